"""All a phone knows, as plain data, and how a phone is filled from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from envs.pocket.files import Files
from envs.pocket.ui import NOTHING, Look, Op
from envs.pocket.words import EASY, FREE, RINGTONES, TIMES, TOGGLES, Lexicon

DECOYS = ("Camera", "Maps", "Mail", "Radio")
APPS = ("Settings", "Contacts", "Messages", "Notes", "Clock", "Shop")
HELD_OUT_APP = "Music"


@dataclass
class Screen:
    """One page of an app. `fresh`: the focused field's content is selected, so the next text replaces it."""

    app: str
    page: str = "main"
    arg: str = ""
    scroll: float = 0.0
    fields: dict[str, str] = field(default_factory=dict)
    focus: str = ""
    fresh: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.page, self.arg


@dataclass
class Dialog:
    """popup: came by itself. until: a "please wait" that ends at this time (0: needs a tap), then becomes `then`."""

    text: str
    options: list[tuple[str, Op]]
    popup: bool = False
    until: float = 0.0
    then: Op = NOTHING


@dataclass
class Aosp:
    """What the apps of `envs.pocket.aosp` keep. components: the app names' own "package/activity"."""

    components: dict[str, str]
    contacts: list[tuple[str, str]] = field(default_factory=list)
    stopwatch: bool = False
    timer: str = ""
    clipboard: str = ""


@dataclass
class State:
    """All a phone knows. Lists are in the order in which they are shown."""

    look: Look
    apps: list[str]
    people: list[str]
    person_buttons: list[str]
    codes: dict[str, str]
    notes: dict[str, str]
    alarms: dict[str, bool]
    times: list[str]
    goods: list[str]
    songs: list[str]
    toggles: list[str]
    ringtones: list[str]
    settings: dict[str, dict[str, str]]
    stars: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)
    basket: dict[str, int] = field(default_factory=dict)
    bought: dict[str, int] = field(default_factory=dict)
    searches: list[str] = field(default_factory=list)
    updates: int = 0
    playing: str = ""
    liked: list[str] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    stack: list[Screen] = field(default_factory=list)
    home_scroll: float = 0.0
    dialog: Dialog | None = None
    clock: float = 0.0
    inputs: int = 0
    popups: dict[int, int] = field(default_factory=dict)
    epoch: float = field(default=1697384040.0, compare=False)  # when `clock` was 0: 2023-10-15 15:34 UTC
    files: Files = field(default_factory=Files, compare=False)
    aosp: Aosp | None = None


def new_state(seed: int, style: str = "easy", held_out: bool = False) -> State:
    """A phone filled at random. held_out adds the app that no training phone has."""
    rng = random.Random(f"pocket-{style}-{seed}")
    words: Lexicon = EASY if style == "easy" else FREE
    apps = [*APPS, *rng.sample(DECOYS, 2)]
    if held_out:
        apps[-1] = HELD_OUT_APP
    rng.shuffle(apps)
    people = rng.sample(words.people, 9)
    codes = rng.sample(words.codes, 9)
    times = list(TIMES)
    settings: dict[str, dict[str, str]] = {"global": {}, "system": {}, "secure": {}}
    toggles = rng.sample(list(TOGGLES), 8)
    for name, (space, key) in TOGGLES.items():
        settings[space][key] = on_value(name) if rng.random() < 0.5 else "0"
    settings["system"]["ringtone"] = rng.choice(RINGTONES)
    settings["system"]["volume_music"] = "5"
    return State(
        look=_look(rng, style),
        apps=apps,
        people=people,
        person_buttons=rng.sample(["Call", "Message", "Star"], 3),
        codes=dict(zip(people, codes, strict=True)),
        notes={title: rng.choice(words.codes) for title in rng.sample(words.titles, rng.randint(3, 5))},
        alarms={time: rng.random() < 0.5 for time in rng.sample(times, rng.randint(2, 4))},
        times=rng.sample(times, len(times)),
        goods=rng.sample(words.goods, 10),
        songs=rng.sample(words.songs, 8),
        toggles=toggles,
        ringtones=rng.sample(RINGTONES, len(RINGTONES)),
        settings=settings,
    )


def on_value(toggle: str) -> str:
    """What `settings get` shows for a switched-on toggle. Location has modes; 3 is high accuracy."""
    return "3" if toggle == "Location" else "1"


def _look(rng: random.Random, style: str) -> Look:
    if style == "easy":
        return Look(theme=rng.randrange(2), dialog_line=rng.randint(2, 4))
    return Look(
        theme=rng.randrange(2, 1_000_000),
        snap=False,
        top=rng.uniform(0.2, 1.0),
        line=rng.uniform(1.75, 2.3),
        margin=rng.uniform(0.55, 1.2),
        font=rng.uniform(0.62, 0.9),
        dialog_line=rng.randint(1, 4),
    )
