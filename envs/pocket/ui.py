"""Pages as plain data, and where their cells lie on a screen.

A page is a header, lines that scroll, and a fixed footer. A line holds cells side by side. All lengths are units of a
tenth of the screen's width. In the easy style every word starts on a whole unit and every line of text fills one row of
units, so at 160 px each word is cut by a 16 px patch grid in always the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import SetupError
from envs.device import Kind

Op = tuple[str, ...]
"""What happens: a verb and its arguments, as data, so that a phone's state can be copied and compared."""
NOTHING: Op = ()
DISMISS: Op = ("dismiss",)


@dataclass(frozen=True, slots=True)
class Cell:
    """op: on a tap. hold: on a long press. icon: which picture, for kind "icon". focused: for fields."""

    text: str
    op: Op = NOTHING
    kind: Kind = "text"
    checked: bool | None = None
    hold: Op = NOTHING
    icon: int = 0
    focused: bool = False


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
class Look:
    """How a phone is drawn. All numbers in units; `snap` puts words on whole units."""

    theme: int = 0
    snap: bool = True
    top: float = 0.5
    line: float = 2.0
    margin: float = 1.0
    font: float = 0.75
    dialog_line: int = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A cell and its pixels: box (left, top, right, bottom) and the origin of its text (left, centre line)."""

    cell: Cell
    box: tuple[int, int, int, int]
    text_at: tuple[int, int]
    layer: str = "list"


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything visible, in drawing order. `panel` is the dialog's rectangle; only layer "dialog" reacts while it shows."""

    width: int
    height: int
    look: Look
    placed: tuple[Placed, ...]
    lines_shown: int
    lines_total: int
    panel: tuple[int, int, int, int] | None = None

    @property
    def active(self) -> tuple[Placed, ...]:
        return tuple(p for p in self.placed if p.layer == "dialog") if self.panel else self.placed

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


def shown_lines(height: float, look: Look, header: bool, footer: bool, tall: bool = False) -> int:
    """How many list lines fit; height in units."""
    slots = int((height - look.top) / look.line)
    return max(1, (slots - header - footer) // (2 if tall else 1))


def scene(page: Page, scroll: float, look: Look, width: int, height: int, overlay: Overlay | None = None) -> Scene:
    """Lay a page out on width x height pixels. Raises SetupError for screens too wide or too small to read."""
    unit = width / 10
    if height < 1.5 * width or width < 100:
        raise SetupError(f"screen {width}x{height}: pocket phones need at least 100 px width and height >= 1.5 x width")
    place = _Placer(unit, look)
    header, footer = bool(page.title), bool(page.footer)
    shown = shown_lines(height / unit, look, header, footer, page.tall)
    step = look.line * (2 if page.tall else 1)
    first = look.top + look.line * header
    end = first + shown * step
    for index, line in enumerate(page.lines):
        top = first + (index - scroll) * step
        if top + step > first + 0.01 and top < end - 0.01:
            place.line(line, max(top, first), min(top + step, end), top + step / 2, "list", page.tall)
    if header:
        place.line((Cell(page.title, kind="title"),), 0, first, look.top + look.line / 2, "header")
    if footer:
        place.line(page.footer, end, end + look.line, end + look.line / 2, "footer")
    panel = place.dialog(overlay) if overlay else None
    return Scene(width, height, look, tuple(place.items), shown, len(page.lines), panel)


class _Placer:
    def __init__(self, unit: float, look: Look):
        self.unit, self.look = unit, look
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
            text_x = x0 + self.look.margin
            text_y = middle + self.look.line / 2 if tall else middle
            if self.look.snap:
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
        look, unit = self.look, self.unit
        top = look.top + look.line * look.dialog_line
        middle = top + look.line / 2
        self.line((Cell(overlay.text),), top, top + look.line, middle, "dialog", left=1, right=9)
        low = top + look.line
        if overlay.options:
            options = tuple(Cell(text, op, "button") for text, op in overlay.options)
            self.line(options, low, low + look.line, low + look.line / 2, "dialog", left=1, right=9)
            low += look.line
        return round(unit), round(top * unit), round(9 * unit), round(low * unit)
