"""Where a page's cells lie on a phone: between a status bar and a navigation bar, above a keyboard while a field has the focus.

All lengths are dp, 360 to the screen's width, until a cell is placed in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from guiderail.agent.errors import SetupError
from guiderail.envs.pocket.handset.keyboard import HIGH, KEYBOARD, keys
from guiderail.envs.pocket.ui import NOTHING, Appearance, Cell, Dress, Line, Op, Overlay, Page, Placed, Scene

WIDTH, STATUS, HEADER, NAVIGATION = 360.0, 28.0, 56.0, 48.0
HEIGHTS = {"clock": 168.0, "app": 106.0, "row": 72.0, "hero": 190.0, "heard": 56.0, "said": 56.0, "field": 80.0}
HEIGHTS |= {"body": 64.0, "empty": 220.0, "bar": 72.0, "entry": 72.0, "round": 72.0}
ONE_LINE = 56.0
SLIVER = 20.0
CARD, OPTION, MENU = (280.0, 72.0), (116.0, 56.0), (196.0, 48.0)
"""(width, height) of a dialog's text, of one of its buttons, and of an entry of a menu."""


@dataclass(frozen=True, slots=True)
class Chrome:
    """What surrounds pages. time: in the status bar, with the `signs` that stand at its right end. deep: a page to go back
    to. keys: the keyboard's layout; "" while there is none."""

    time: str
    signs: tuple[str, ...]
    deep: bool
    keys: str = ""


def height_of(line: Line) -> float:
    dress = line[0].dress or Dress("body")
    plain_row = dress.role == "row" and not dress.detail
    return ONE_LINE if plain_row else HEIGHTS[dress.role]


def window(page: Page, width: int, height: int, chrome: Chrome) -> tuple[float, float]:
    """Top and bottom of the part that scrolls."""
    end = height / width * WIDTH - NAVIGATION - (KEYBOARD if chrome.keys else 0)
    return STATUS + (HEADER if page.title else 0), end - (height_of(page.footer) if page.footer else 0)


def scroll_end(page: Page, width: int, height: int, chrome: Chrome) -> float:
    """The largest scroll position."""
    top, bottom = window(page, width, height, chrome)
    return max(0.0, sum(map(height_of, page.lines)) - (bottom - top))


def is_below(page: Page, line: int, scroll: float, width: int, height: int, chrome: Chrome) -> bool:
    """Whether the end of a line lies under the part that is shown."""
    top, bottom = window(page, width, height, chrome)
    return sum(map(height_of, page.lines[: line + 1])) - scroll > bottom - top


@lru_cache(maxsize=16)  # one look, tap and look again ask for the same scene up to three times
def lay_out(
    page: Page,
    scroll: float,
    appearance: Appearance,
    size: tuple[int, int],
    overlay: Overlay | None,
    chrome: Chrome,
) -> Scene:
    """Lay a dressed page out. size: (width, height) in pixels. Raises SetupError for screens too small to read."""
    width, height = size
    if height < 1.5 * width or width < 180:
        raise SetupError(
            f'screen {width}x{height}: style "phone" needs at least 180 px width and height >= 1.5 x width'
        )
    place = _Placer(width / WIDTH)
    top, bottom = window(page, width, height, chrome)
    y, shown, least = top - scroll, 0, 2 / place.dp  # two pixels, so that a rounded box is never empty
    for line in page.lines:
        step = height_of(line)
        if min(y + step, bottom) - max(y, top) >= least:
            place.line(line, y, step, clip=(top, bottom))
            shown += 1
        y += step
    if page.title:
        _header(place, page, chrome)
    if page.footer:
        _footer(place, page.footer, bottom)
    if chrome.keys:
        start = height / place.dp - NAVIGATION - KEYBOARD
        for left, row, wide, cell in keys(chrome.keys):
            place.cell(cell, left, start + row, wide, HIGH, "keys")
    _system(place, page, height / place.dp, chrome)
    panel = _dialog(place, overlay, height / place.dp) if overlay else None
    reel = round(top * place.dp), round(bottom * place.dp)
    return Scene(width, height, appearance, tuple(place.items), shown, len(page.lines), panel, reel)


class _Placer:
    def __init__(self, dp: float):
        self.dp = dp
        self.items: list[Placed] = []

    def line(self, cells: Line, top: float, step: float, clip: tuple[float, float]) -> None:
        share = WIDTH / len(cells) if cells[0].dress and cells[0].dress.role != "app" else WIDTH / 4
        for k, cell in enumerate(cells):
            self.cell(cell, k * share, top, share, step, "list", clip)

    def cell(
        self,
        cell: Cell,
        left: float,
        top: float,
        wide: float,
        high: float,
        layer: str,
        clip: tuple[float, float] | None = None,
    ) -> None:
        self.items.append(_placed(self.dp, cell, left, top, wide, high, layer, clip))


@lru_cache(maxsize=1024)
def _placed(
    dp: float,
    cell: Cell,
    left: float,
    top: float,
    wide: float,
    high: float,
    layer: str,
    clip: tuple[float, float] | None,
) -> Placed:
    first, last = (max(top, clip[0]), min(top + high, clip[1])) if clip else (top, top + high)
    text = wording(cell, wide, high)
    return Placed(
        cell,
        (round(left * dp), round(first * dp), round((left + wide) * dp), round(last * dp)),
        (round((left + text.x) * dp), round((top + text.middle) * dp)),
        layer,
        span=(round(top * dp), round((top + high) * dp)),
        sliver=last - first < min(SLIVER, high / 2),
    )


def _header(place: _Placer, page: Page, chrome: Chrome) -> None:
    left, right = (56.0 if chrome.deep else 0.0), WIDTH - (48.0 if page.menu else 0.0)
    if chrome.deep:
        place.cell(_tool("Navigate up", ("press", "BACK"), "back"), 0, STATUS, left, HEADER, "header")
    place.cell(Cell(page.title, kind="title", dress=Dress("title")), left, STATUS, right - left, HEADER, "header")
    if page.menu:
        place.cell(_tool("More options", ("press", "MENU"), "dots"), right, STATUS, WIDTH - right, HEADER, "header")


def _tool(text: str, op: Op, name: str) -> Cell:
    return Cell(text, op, "icon", dress=Dress("tool", picture=f"glyph:{name}"))


def _footer(place: _Placer, footer: Line, top: float) -> None:
    high = height_of(footer)
    if footer[0].dress and footer[0].dress.role == "entry":
        place.cell(footer[0], 0, top, WIDTH - 64, high, "footer")
        place.cell(footer[1], WIDTH - 64, top, 64, high, "footer")
        return
    for k, cell in enumerate(footer):
        dress = Dress("pill", picture=cell.dress.picture if cell.dress else "")
        share = WIDTH / len(footer)
        place.cell(
            cell if len(footer) > 1 else Cell(cell.text, cell.op, cell.kind, dress=dress),
            k * share,
            top,
            share,
            high,
            "footer",
        )


def _system(place: _Placer, page: Page, bottom: float, chrome: Chrome) -> None:
    """home: bars of the home screen lie on its wallpaper."""
    home = "" if page.title else "home"
    place.cell(Cell(chrome.time, dress=Dress("status", " ".join(chrome.signs), home)), 0, 0, WIDTH, STATUS, "system")
    back = "go-down" if chrome.keys else "go-back"
    for k, (text, op, name) in enumerate(
        (("Back", ("press", "BACK"), back), ("Home", ("press", "HOME"), "go-home"), ("Recents", NOTHING, "go-recent"))
    ):
        cell = Cell(text, op, "icon", dress=Dress("navigation", home, f"glyph:{name}"))
        place.cell(cell, k * WIDTH / 3, bottom - NAVIGATION, WIDTH / 3, NAVIGATION, "system")


def _dialog(place: _Placer, overlay: Overlay, bottom: float) -> tuple[int, int, int, int]:
    if overlay.text == "Menu":
        wide, high = MENU
        left, top = WIDTH - wide - 8, STATUS + 6
        for k, (text, op) in enumerate(overlay.options):
            place.cell(Cell(text, op, "button", dress=Dress("choice")), left, top + 8 + k * high, wide, high, "dialog")
        end = top + 16 + high * len(overlay.options)
    else:
        wide, high = CARD
        left, top = (WIDTH - wide) / 2, (bottom - CARD[1] - OPTION[1]) / 2
        waiting = "" if overlay.options else "glyph:wait"
        place.cell(Cell(overlay.text, dress=Dress("say", picture=waiting)), left, top, wide, high, "dialog")
        start = left + wide - 12 - OPTION[0] * len(overlay.options)
        for k, (text, op) in enumerate(overlay.options):
            cell = Cell(text, op, "button", dress=Dress("option"))
            place.cell(cell, start + k * OPTION[0], top + high, *OPTION, "dialog")
        end = top + high + (OPTION[1] + 8 if overlay.options else 0)
    return (round(left * place.dp), round(top * place.dp), round((left + wide) * place.dp), round(end * place.dp))


@dataclass(frozen=True, slots=True)
class Wording:
    """Where a cell's words stand inside it. x, middle: of the anchor ("l" left end, "m" middle, "r" right end). room: width."""

    size: float
    x: float
    middle: float
    anchor: str
    room: float


def wording(cell: Cell, wide: float, high: float) -> Wording:
    """wide, high: of the whole cell. Size 0: the cell shows no words."""
    dress, half = cell.dress or Dress("body"), high / 2
    pictured = 72.0 if dress.picture else 16.0
    end = 76.0 if cell.kind in ("toggle", "check") else 60.0 if dress.trail else 16.0
    match dress.role:
        case "row":
            return Wording(16, pictured, half - 10 if dress.detail else half, "l", wide - pictured - end)
        case "title":
            left = 16.0 if wide > WIDTH - 50 else 4.0
            return Wording(20, left, half, "l", wide - left - 8)
        case "clock":
            return Wording(64, wide / 2, 82, "m", wide - 32)
        case "app":
            return Wording(12.5, wide / 2, 88, "m", wide - 4)
        case "hero":
            return Wording(22, wide / 2, 138, "m", wide - 32)
        case "heard":
            return Wording(16, 32, half, "l", wide - 96)
        case "said":
            return Wording(16, wide - 32, half, "r", wide - 96)
        case "field" | "entry":
            return Wording(16, 32, half, "l", wide - 56)
        case "empty":
            return Wording(16, wide / 2, 150, "m", wide - 32)
        case "bar":
            return Wording(12.5, wide / 2, 52, "m", wide - 8)
        case "pill":
            return Wording(15, wide / 2 + (12 if dress.picture else 0), half, "m", wide - 96)
        case "say":
            return Wording(18, pictured if dress.picture else 24, half + 4, "l", wide - 40)
        case "option":
            return Wording(15, wide / 2, half, "m", wide - 16)
        case "key":
            return Wording(0 if dress.picture else 14 if len(cell.text) > 1 else 20, wide / 2, half, "m", wide)
        case "status":
            return Wording(13, 18, half, "l", 80)
        case "round" | "tool" | "navigation":
            return Wording(0, wide / 2, half, "m", wide)
    return Wording(16, 16, half, "l", wide - 32)
