"""Small screens on which a model learns to read and to point: random ones in many layouts, and pages of Pocket phones.

Both are drawn by Pocket's renderer. A stream of screens has a name ("train", "eval" or your own) and a seed. Streams with
different names share neither a generic screen's random numbers nor a Pocket phone: "train" takes its phones from the split
"train", every other name from the split "test".
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from PIL import Image

from guiderail.envs.live.device import Kind
from guiderail.envs.pocket import words
from guiderail.envs.pocket.draw import draw, mark_box, word_boxes
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import demonstrate, draws, task
from guiderail.envs.pocket.ui import Appearance, Cell, Placed, Scene

SIZE = (160, 288)
"""(width, height) in pixels of the screens that tiny models are made for."""
COLUMNS = 10
PixelBox = tuple[int, int, int, int]

INTERFACE = (
    "Account About Accept Activity Agenda Album All Allow Apply Archive Attach Audio Author Backup Balance Battery "
    "Bell Block Board Book Bookmark Bright Browse Budget Bus Calendar Camera Cards Cart Cast Channel Chat Check "
    "Choose City Clear Colour Comment Compass Compose Confirm Copy Country Cut Daily Dark Date Default Deny Desk "
    "Details Device Display Dock Done Download Draft Edit Email Event Export Family Fast Favourite Feed File Filter "
    "Fitness Flag Flight Folder Follow Font Food Forward Friends Gallery Games Gift Group Guide Health Help Hide "
    "History Hotel House Image Import Inbox Info Invite Join Keyboard Label Language Large Later Layout Library "
    "Light Link List Local Lock Login Loud Mail Manage Map Mark Market Media Member Memory Merge Mode Money More "
    "Move Mute Name Network News Night Offers Office Old Online Orders Page Paint Password Paste Pause Phone Photo "
    "Pin Places Player Points Post Power Price Print Privacy Private Profile Project Public Quick Quiet Radio Rate "
    "Recent Record Refresh Remind Remove Reply Report Reset Resize Restore Retry Review Room Route Safety Sale "
    "Scan Score Screen Search Select Server Share Sign Size Sleep Small Sort Space Speed Sport Start Status Stop "
    "Store Street Style Submit Subway Sync System Table Tags Taxi Team Test Theme Ticket Time Tools Total Track "
    "Traffic Train Trash Turbo Undo Unit Upload User Version Video View Visit Voice Volume Wallet Watch Weather "
    "Website Weekly Widget Window Work Zoom"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One visible element. Boxes are (left, top, right, bottom) in pixels of the screen.

    words: each word with its box. mark: box of the switch or tick box. checked: None for an element without a state.
    """

    text: str
    kind: Kind
    box: PixelBox
    words: tuple[tuple[str, PixelBox], ...]
    mark: PixelBox | None
    checked: bool | None
    focused: bool

    @property
    def centre(self) -> tuple[int, int]:
        """In pixels."""
        return (self.box[0] + self.box[2]) // 2, (self.box[1] + self.box[3]) // 2

    @property
    def text_boxes(self) -> tuple[PixelBox, ...]:
        """One per word."""
        return tuple(box for _, box in self.words)


@dataclass(frozen=True)
class DrawnScreen:
    """A scene with its picture and its elements."""

    scene: Scene

    @cached_property
    def elements(self) -> tuple[Shown, ...]:
        """Those that react now; while a dialog shows, only the dialog's."""
        return tuple(_shown(item, self.scene) for item in self.scene.active if item.cell.text.strip())

    @cached_property
    def drawn(self) -> tuple[Shown, ...]:
        """All that were drawn, covered ones too."""
        return tuple(_shown(item, self.scene) for item in self.scene.placed if item.cell.text.strip())

    @cached_property
    def named(self) -> tuple[Shown, ...]:
        """Those of `elements` whose text occurs once on this screen."""
        often = Counter(shown.text for shown in self.drawn)
        return tuple(shown for shown in self.elements if often[shown.text] == 1)

    @property
    def panel(self) -> PixelBox | None:
        """The box of a dialog, which hides what is below it."""
        return self.scene.panel

    @cached_property
    def image(self) -> Image.Image:
        """SIZE, RGB."""
        return draw(self.scene)


def _shown(item: Placed, scene: Scene) -> Shown:
    cell, mark = item.cell, mark_box(item, scene)
    state = None if mark is None else bool(cell.checked)
    return Shown(cell.text, cell.kind, item.box, tuple(word_boxes(item, scene)), mark, state, cell.focused)


# ------------------------------------------------------------------------------------------------------------- streams


def generic_screens(name: str, seed: int, start: int = 0, size: tuple[int, int] = SIZE) -> Iterator[DrawnScreen]:
    """Random screens number start, start + 1, ... of a stream. size: (width, height) in pixels."""
    for number in itertools.count(start):
        yield generic_screen(random.Random(f"screen-{name}-{seed}-{number}"), size)


def pocket_screens(
    name: str, seed: int, start: int = 0, style: str = "easy", size: tuple[int, int] = SIZE
) -> Iterator[DrawnScreen]:
    """One page that an expert passed on each of the Pocket phones number start, start + 1, ... of a stream."""
    split = "train" if name == "train" else "test"
    for number in itertools.count(start):
        rng = random.Random(f"page-{name}-{seed}-{number}")
        (template, phone_seed), *_ = draws(1, rng.randrange(1 << 40), split)
        made = task(template, phone_seed, split, style, live=rng.random() < 0.5, popups=rng.random() < 0.3)
        scenes = [scene for scene, _ in demonstrate(made, Phone(made.start(), *size))]
        yield DrawnScreen(rng.choice(scenes))


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Every word that screens may show, each once, in a fixed order."""
    lexicon = words.FREE
    names = (*lexicon.people, *lexicon.goods, *lexicon.codes, *lexicon.titles, *lexicon.songs)
    labels = (*words.TOGGLES, *words.RINGTONES, *words.TIMES, *(text for popup in words.POPUPS for text in popup))
    found = [word for text in (*names, *labels, *_app_words(), INTERFACE) for word in text.split()]
    return tuple(dict.fromkeys(word for word in found if not word.isdigit()))


def _app_words() -> tuple[str, ...]:
    """Texts on the pages of Pocket's apps besides its lexicon, found by running the expert on every template twice, the
    second time with the noise of live phones."""
    seen: dict[str, None] = {}
    for split, live in itertools.product(("train", "heldout"), (False, True)):
        for template, seed in draws(28, 0, split):
            made = task(template, seed, split, live=live)
            for scene, _ in demonstrate(made, Phone(made.start(), *SIZE)):
                seen |= dict.fromkeys(item.cell.text for item in scene.placed)
    return tuple(seen)


# ------------------------------------------------------------------------------------------------------- random screens


def generic_screen(rng: random.Random, size: tuple[int, int] = SIZE) -> DrawnScreen:
    """A screen of random blocks: lists, switches, ticks, forms, buttons, icon grids, texts; sometimes under a dialog."""
    page = _Page(rng, size)
    if rng.random() < 0.7:
        page.line(2, ["title"], layer="header")
    foot = 2 if rng.random() < 0.5 else 0
    while page.y < page.rows - foot - 1.5 and page.block(page.rows - foot):
        page.y += rng.choice((0, 0, 0, 1))
    if foot:
        page.y = page.rows - foot - 0.5
        page.line(foot, ["button"] * rng.choice((1, 2, 2)), layer="footer")
    panel = page.dialog() if rng.random() < 0.12 else None
    look = Appearance(theme=page.theme, top=page.top)
    return DrawnScreen(Scene(*size, look, tuple(page.placed), 0, 0, panel))


_BLOCKS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("list", ("row",)),
    ("list", ("row",)),
    ("list", ("toggle",)),
    ("list", ("toggle",)),
    ("list", ("check",)),
    ("list", ("text",)),
    ("form", ("field",)),
    ("buttons", ("button",)),
    ("icons", ("icon",)),
    ("mixed", ("row", "toggle", "check", "button", "text", "field")),
)


class _Page:
    """Fills a screen from the top; y and sizes are in tenths of the width."""

    def __init__(self, rng: random.Random, size: tuple[int, int]):
        self.rng, self.placed = rng, list[Placed]()
        self.unit = size[0] / COLUMNS
        self.rows = int(size[1] / self.unit)
        self.theme = rng.randrange(2)
        self.top = self.y = rng.choice((0.5, 0.5, 1.0, 1.5))
        self.margin = rng.choice((1, 1, 0, 2))
        self.used: set[str] = set()

    def block(self, end: float) -> bool:
        """Lines of one kind; False when there is no room left."""
        layout, kinds = self.rng.choice(_BLOCKS)
        height = 4 if layout == "icons" else self.rng.choice((2, 2, 2, 1, 3) if layout == "list" else (2, 2, 3))
        columns = 1 if layout in ("list", "form") and self.rng.random() < 0.75 else 2
        columns = self.rng.choice((2, 2, 3)) if layout == "icons" else columns
        selected = self.rng.randrange(6)
        for index in range(self.rng.randint(1, 7 if layout == "list" else 3)):
            if self.y + height + 0.5 > end:
                return index > 0
            self.line(height, [self.rng.choice(kinds) for _ in range(columns)], selected == index)
        return True

    def line(self, height: float, kinds: list[Kind], chosen: bool = False, layer: str = "list") -> None:
        left, share = 0.0, COLUMNS / len(kinds)
        # Words stand on whole units: in a line of even height that is the middle only if the line starts half a unit off.
        self.y = math.floor(self.y) + 0.5 if height % 2 == 0 else float(math.ceil(self.y))
        for kind in kinds:
            self.cell(kind, left, left + share, height, chosen, layer)
            left += share
        self.y += height

    def cell(self, kind: Kind, x0: float, x1: float, height: float, chosen: bool, layer: str) -> None:
        """One cell, its words on whole units as `Appearance.snap` wants them."""
        rng, unit = self.rng, self.unit
        margin = self.margin if x1 - x0 > 6 else 0 if kind in ("toggle", "check") or x1 - x0 < 4 else 1
        margin = max(margin, 1) if kind in ("button", "field") else margin
        text_x = math.ceil(x0 + margin)
        room = x1 - text_x - {"toggle": 2.4, "check": 1.6, "button": 0.5}.get(kind, 0.2)
        text_y = math.ceil(self.y + height - 1.5 if kind == "icon" else self.y + height / 2 - 1) + 0.5
        on = rng.random() < 0.5
        cell = Cell(
            self.label(room),
            kind=kind,
            checked=chosen or on if kind in ("toggle", "check") else on if kind == "field" else None,
            icon=rng.randrange(11),
            focused=kind == "field" and rng.random() < 0.4,
        )
        box = tuple(round(v * unit) for v in (x0, self.y, x1, self.y + height))
        at = round(text_x * unit), round(text_y * unit)
        self.placed.append(Placed(cell, (box[0], box[1], box[2], box[3]), at, layer))

    def label(self, room: float) -> str:
        """One unused word, or two where they fit. room: in units; a letter takes at most half a unit."""
        for _ in range(60):
            chosen = self.rng.sample(vocabulary(), 2 if room > 5 and self.rng.random() < 0.25 else 1)
            widths = [-(-len(word) * 0.46 // 1) for word in chosen]
            if sum(widths) <= room and not self.used & set(chosen):
                self.used |= set(chosen)
                return " ".join(chosen)
        return "OK"

    def dialog(self) -> PixelBox:
        unit = self.unit
        top = self.y = self.rng.randint(3, self.rows - 7) + 0.5
        self.margin = 1
        for kinds in (["text"], ["button"] * self.rng.choice((1, 2))):
            left, share = 1.0, 8 / len(kinds)
            for kind in kinds:
                self.cell(kind, left, left + share, 2, False, "dialog")  # type: ignore[arg-type]
                left += share
            self.y += 2
        return round(unit), round(top * unit), round(9 * unit), round(self.y * unit)
