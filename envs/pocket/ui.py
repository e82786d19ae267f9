"""Pages as plain data, and where their cells lie on a screen.

A page is a header, lines that scroll, and a fixed footer. A line holds cells side by side. All lengths are units of a
tenth of the screen's width. In the easy style every word starts on a whole unit and every line of text fills one row of
units. So at 160 px a grid of 16 px patches always cuts a word in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from guiderail.agent.errors import SetupError
from guiderail.envs.live.device import Kind

Op = tuple[str, ...]
"""What a cell does: a verb and its arguments, as data, so that a phone's state can be copied and compared."""
NOTHING: Op = ()
DISMISS: Op = ("dismiss",)


@dataclass(frozen=True, slots=True)
class Dress:
    """How a cell looks on a phone of style "phone". role: a name in `handset.layout.HEIGHTS`. detail: a second line of text.
    picture: in front of the words, "kind:what". trail: the glyph at the end."""

    role: str
    detail: str = ""
    picture: str = ""
    trail: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """op: on a tap. hold: on a long press. icon: which picture, for kind "icon". focused, hint: for fields. dress: style
    "phone"."""

    text: str
    op: Op = NOTHING
    kind: Kind = "text"
    checked: bool | None = None
    hold: Op = NOTHING
    icon: int = 0
    focused: bool = False
    dress: Dress | None = None
    hint: str = ""


Line = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """menu: what the Menu button offers. enter: what the Enter key does while a field has the focus."""

    title: str
    lines: tuple[Line, ...]
    footer: Line = ()
    menu: tuple[tuple[str, Op], ...] = ()
    enter: Op = NOTHING
    tall: bool = False


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a phone is drawn. All numbers in units; `snap` puts words on whole units. handset: style "phone", which
    `handset.layout` lays out and `handset.paint` draws; only `theme` counts then."""

    theme: int = 0
    snap: bool = True
    top: float = 0.5
    line: float = 2.0
    margin: float = 1.0
    font: float = 0.75
    dialog_line: int = 2
    handset: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A cell and its pixels: box (left, top, right, bottom) and the origin of its text (left, centre line). Of style "phone":
    span, top and bottom of the whole cell, of which a list may show a part; sliver, too small a part to aim at."""

    cell: Cell
    box: tuple[int, int, int, int]
    text_at: tuple[int, int]
    layer: str = "list"
    span: tuple[int, int] | None = None
    sliver: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything visible, in drawing order. panel: the dialog's rectangle; while it shows, only layers "dialog" and "system"
    react. reel: top and bottom of the part that scrolls, in pixels; None for the whole screen."""

    width: int
    height: int
    appearance: Appearance
    placed: tuple[Placed, ...]
    lines_shown: int
    lines_total: int
    panel: tuple[int, int, int, int] | None = None
    reel: tuple[int, int] | None = None

    @property
    def active(self) -> tuple[Placed, ...]:
        return tuple(p for p in self.placed if p.layer in ("dialog", "system")) if self.panel else self.placed

    def at(self, x: float, y: float) -> Placed | None:
        """The cell under a point given in pixels, the top one first."""
        for item in reversed(self.active):
            left, top, right, bottom = item.box
            if left <= x < right and top <= y < bottom:
                return item
        return None

    def find(self, op: Op) -> Placed | None:
        return next((p for p in self.active if p.cell.op == op or p.cell.hold == op), None)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A dialog: one line of text over one line of options."""

    text: str
    options: tuple[tuple[str, Op], ...]


def shown_lines(height: float, appearance: Appearance, header: bool, footer: bool, tall: bool = False) -> int:
    """How many list lines fit; height in units."""
    slots = int((height - appearance.top) / appearance.line)
    return max(1, (slots - header - footer) // (2 if tall else 1))


def scene(
    page: Page, scroll: float, appearance: Appearance, width: int, height: int, overlay: Overlay | None = None
) -> Scene:
    """Lay a page out on width x height pixels. Raises SetupError for screens too wide or too small to read."""
    unit = width / 10
    if height < 1.5 * width or width < 100:
        raise SetupError(f"screen {width}x{height}: pocket phones need at least 100 px width and height >= 1.5 x width")
    place = _Placer(unit, appearance)
    header, footer = bool(page.title), bool(page.footer)
    shown = shown_lines(height / unit, appearance, header, footer, page.tall)
    step = appearance.line * (2 if page.tall else 1)
    first = appearance.top + appearance.line * header
    end = first + shown * step
    for index, line in enumerate(page.lines):
        top = first + (index - scroll) * step
        if top + step > first + 0.01 and top < end - 0.01:
            place.line(line, max(top, first), min(top + step, end), top + step / 2, "list", page.tall)
    if header:
        place.line((Cell(page.title, kind="title"),), 0, first, appearance.top + appearance.line / 2, "header")
    if footer:
        place.line(page.footer, end, end + appearance.line, end + appearance.line / 2, "footer")
    panel = place.dialog(overlay) if overlay else None
    return Scene(width, height, appearance, tuple(place.items), shown, len(page.lines), panel)


class _Placer:
    def __init__(self, unit: float, appearance: Appearance):
        self.unit, self.appearance = unit, appearance
        self.items: list[Placed] = []

    def line(
        self,
        cells: Line,
        top: float,
        bottom: float,
        middle: float,
        layer: str,
        tall: bool = False,
        left: float = 0,
        right: float = 10,
    ) -> None:
        share = (right - left) / max(1, len(cells))
        for k, cell in enumerate(cells):
            x0, x1 = left + k * share, left + (k + 1) * share
            text_x = x0 + self.appearance.margin
            text_y = middle + self.appearance.line / 2 if tall else middle
            if self.appearance.snap:
                text_x, text_y = round(text_x), round(text_y - 0.5) + 0.5
            box = tuple(round(v * self.unit) for v in (x0, top, x1, bottom))
            self.items.append(
                Placed(
                    cell,
                    (box[0], box[1], box[2], box[3]),
                    (round(text_x * self.unit), round(text_y * self.unit)),
                    layer,
                )
            )

    def dialog(self, overlay: Overlay) -> tuple[int, int, int, int]:
        appearance, unit = self.appearance, self.unit
        top = appearance.top + appearance.line * appearance.dialog_line
        middle = top + appearance.line / 2
        self.line((Cell(overlay.text),), top, top + appearance.line, middle, "dialog", left=1, right=9)
        low = top + appearance.line
        if overlay.options:
            options = tuple(Cell(text, op, "button") for text, op in overlay.options)
            self.line(options, low, low + appearance.line, low + appearance.line / 2, "dialog", left=1, right=9)
            low += appearance.line
        return round(unit), round(top * unit), round(9 * unit), round(low * unit)
