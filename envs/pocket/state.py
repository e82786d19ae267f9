"""Everything a phone knows, as plain data, and how a phone is filled from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from guiderail.agent.errors import SetupError
from guiderail.envs.pocket.files import Files
from guiderail.envs.pocket.ui import NOTHING, Appearance, Op
from guiderail.envs.pocket.words import EASY, FREE, RINGTONES, TIMES, TOGGLES, Lexicon

STYLES: dict[str, tuple[int, int]] = {"easy": (160, 288), "free": (160, 288), "phone": (360, 800)}
"""Style -> (width, height) in pixels of its screens, unless told otherwise."""
DECOYS = ("Camera", "Maps", "Mail", "Radio")
APPS = ("Settings", "Contacts", "Messages", "Notes", "Clock", "Shop")
HELD_OUT_APP = "Music"


@dataclass
class OpenPage:
    """One page of an app, as the user left it. `fresh`: the focused field's content is selected, so the next text replaces it."""

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
    """popup: it came by itself. until: the time at which a "please wait" ends and `then` is done; 0: it needs a tap."""

    text: str
    options: list[tuple[str, Op]]
    popup: bool = False
    until: float = 0.0
    then: Op = NOTHING


@dataclass
class Aosp:
    """What the apps of `envs.pocket.aosp` store. components: the app names' own "package/activity"."""

    components: dict[str, str]
    stopwatch: bool = False
    timer: str = ""
    clipboard: str = ""


@dataclass
class State:
    """Everything a phone knows. Lists are in the order in which they are shown. stack: open pages, the front one last.
    longest_text: most letters of a field."""

    appearance: Appearance
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
    stack: list[OpenPage] = field(default_factory=list)
    home_scroll: float = 0.0
    dialog: Dialog | None = None
    clock: float = 0.0
    inputs: int = 0
    popups: dict[int, int] = field(default_factory=dict)
    epoch: float = field(default=1697384040.0, compare=False)  # when `clock` was 0: 2023-10-15 15:34 UTC
    files: Files = field(default_factory=Files, compare=False)
    aosp: Aosp | None = None
    keys: str = "small"  # the soft keyboard's layout
    battery: int = 100
    longest_text: int = 200

    @property
    def now(self) -> float:
        """The phone's own time in seconds since 1970."""
        return self.epoch + self.clock

    @property
    def front(self) -> OpenPage | None:
        """The page in front; None on the home screen."""
        return self.stack[-1] if self.stack else None

    def go(self, page: str, arg: str = "") -> None:
        """Open another page of the app in front. Opening a chat reads it."""
        if self.front:
            self.blur()
            self.stack.append(OpenPage(self.front.app, page, arg))
            if page == "chat" and arg not in self.read:
                self.read.append(arg)

    def back(self) -> None:
        """Leave the page in front, as an app does after saving."""
        if self.stack:
            self.stack.pop()

    def focus(self, name: str) -> None:
        """Put the cursor into a field of the page in front."""
        if self.front:
            self.front.focus, self.front.fresh = name, True

    def blur(self) -> None:
        if self.front:
            self.front.focus, self.front.fresh = "", False

    def is_on(self, toggle: str) -> bool:
        space, key = TOGGLES[toggle]
        return self.settings[space].get(key, "0") not in ("0", "")

    def switch(self, toggle: str, on: bool) -> None:
        space, key = TOGGLES[toggle]
        self.settings[space][key] = on_value(toggle) if on else "0"


def new_state(seed: int, style: str = "easy", held_out: bool = False) -> State:
    """A phone with random content. held_out adds the app that no training phone has. Raises SetupError for an unknown style."""
    size_of_style(style)
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
    made = State(
        appearance=_appearance(rng, style),
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
    if style == "phone":
        made.epoch, made.battery = made.epoch + 60 * rng.randrange(60 * 24), rng.randint(15, 100)
    return made


def size_of_style(style: str) -> tuple[int, int]:
    """The screen size of a style, (width, height) in pixels. Raises SetupError for an unknown one."""
    if style not in STYLES:
        raise SetupError(f"style {style!r}, expected one of {', '.join(STYLES)}")
    return STYLES[style]


def on_value(toggle: str) -> str:
    """What `settings get` prints for a toggle that is on. Location has modes; 3 is high accuracy."""
    return "3" if toggle == "Location" else "1"


def _appearance(rng: random.Random, style: str) -> Appearance:
    if style == "easy":
        return Appearance(theme=rng.randrange(2), dialog_line=rng.randint(2, 4))
    if style == "phone":
        return Appearance(theme=rng.randrange(1_000_000), snap=False, handset=True)
    return Appearance(
        theme=rng.randrange(2, 1_000_000),
        snap=False,
        top=rng.uniform(0.2, 1.0),
        line=rng.uniform(1.75, 2.3),
        margin=rng.uniform(0.55, 1.2),
        font=rng.uniform(0.62, 0.9),
        dialog_line=rng.randint(1, 4),
    )
