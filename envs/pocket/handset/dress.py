"""What a page's cells look like on a phone: second lines, pictures and glyphs, found from what the cells do.

What is added never shows more than the page did: no price, number or preview depends on what was done or must be remembered.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace

from guiderail.envs.pocket.state import OpenPage, State
from guiderail.envs.pocket.ui import Cell, Dress, Line, Page

GLYPHS = {
    "Wifi": "wifi",
    "Bluetooth": "bluetooth",
    "Airplane": "airplane",
    "Data": "data",
    "Roaming": "globe",
    "Location": "place",
    "Rotate": "rotate",
    "Vibrate": "vibrate",
    "Clicks": "sound",
    "Call": "call",
    "Message": "message",
    "Star": "star",
    "Play": "play",
    "Like": "heart",
    "Queue": "queue",
    "Sound": "sound",
    "Update": "update",
    "Calls": "call",
    "New": "plus",
    "Add": "plus",
    "Save": "check",
    "Find": "search",
    "Basket": "basket",
    "Pay": "check",
    "Send": "send",
}
APP_GLYPHS = {
    "Settings": "gear",
    "Contacts": "person",
    "Messages": "message",
    "Notes": "note",
    "Clock": "clock",
    "Shop": "cart",
    "Music": "music",
    "Camera": "camera",
    "Maps": "map",
    "Mail": "mail",
    "Radio": "radio",
}
HINTS = {"write": "Message", "title": "Title", "text": "Note", "search": "Search"}
PREVIEWS = ("See you soon", "Thanks a lot", "Sounds good", "On my way", "Talk later", "Good morning")
ARTISTS = ("The Lanterns", "Nora Vale", "Blue Harbour", "Otto Lind", "Paper Kites", "Silver Oak")
DAYS = ("Every day", "Monday to Friday", "Weekends", "Mon, Wed, Fri")
APPS_A_LINE = 4


def dress(state: State, page: Page) -> Page:
    """The page in front, dressed."""
    front = state.front
    if front is None:
        return _home(state, page)
    lines = tuple(tuple(_cell(state, cell) for cell in line) for line in page.lines)
    footer = tuple(replace(c, dress=Dress("bar", picture=_glyph(c.text))) for c in page.footer)
    match front.key:
        case ("chat", _):
            return _chat(page, lines, footer)
        case ("person" | "song" as kind, name):
            shown = f"avatar:{name}" if kind == "person" else f"cover:{name}"
            lines = ((Cell(name, dress=Dress("hero", _about(kind, name), shown)),), *lines)
    return replace(page, lines=lines, footer=footer)


def _home(state: State, page: Page) -> Page:
    now = time.gmtime(state.now)
    date = f"{time.strftime('%A', now)}, {now.tm_mday} {time.strftime('%B', now)}"
    cells = [replace(c, dress=Dress("app", picture=f"app:{c.text}")) for line in page.lines for c in line]
    apps = tuple(tuple(cells[k : k + APPS_A_LINE]) for k in range(0, len(cells), APPS_A_LINE))
    return Page("", ((Cell(time.strftime("%H:%M", now), dress=Dress("clock", date)),), *apps))


def _chat(page: Page, lines: tuple[Line, ...], footer: Line) -> Page:
    """The field stands beside the button, under what was written."""
    *said, (field,) = lines
    (send,) = footer
    bar = (replace(field, dress=Dress("entry")), replace(send, dress=Dress("round", picture="glyph:send")))
    return replace(page, lines=tuple(said), footer=bar)


def _cell(state: State, cell: Cell) -> Cell:
    if cell.kind == "field":
        return replace(cell, text=cell.text if cell.checked else HINTS[cell.text], dress=Dress("field"))
    if cell.kind == "text":
        return _words(state.front, cell)
    if cell.hold[:1] == ("messages.ask",):
        return replace(cell, text=cell.text.removeprefix("me "), dress=Dress("said"))
    detail, picture, trail = _row(state, cell)
    good = cell.op[:1] in (("shop.add",), ("shop.drop",))
    text, look = _capital(cell.text) if good else cell.text, Dress("row", detail, picture, trail)
    return Cell(text, cell.op, cell.kind, cell.checked, cell.hold, cell.icon, cell.focused, look)


def _words(front: OpenPage | None, cell: Cell) -> Cell:
    if front and front.page == "chat":
        return replace(cell, text=f"My {cell.text.replace(' ', ' is ', 1)}", dress=Dress("heard"))
    return replace(cell, dress=Dress("body" if front and front.page == "note" else "empty", picture="glyph:box"))


def _row(state: State, cell: Cell) -> tuple[str, str, str]:
    """(second line, picture, glyph at the end)"""
    match cell.op:
        case ("settings.toggle", name):
            return "On" if state.is_on(name) else "Off", _glyph(name), ""
        case ("settings.ring", _) | ("clock.add", _):
            return "", "", ""
        case ("go", "person", name):
            return _about("person", name), f"avatar:{name}", ""
        case ("go", "chat", name):
            return _chosen(PREVIEWS, name), f"avatar:{name}", ""
        case ("go", "note", title):
            return state.notes.get(title, ""), "glyph:note", ""
        case ("go", "song", name):
            return _about("song", name), f"cover:{name}", ""
        case ("contacts.forget", name):
            return "Outgoing call", f"avatar:{name}", "trash"
        case ("clock.toggle", at):
            return _chosen(DAYS, at), "glyph:alarm", ""
        case ("shop.add", name):
            return f"$ {random.Random(f'price-{name}').randrange(79, 999) / 100:.2f}", f"good:{name}", "plus"
        case ("shop.drop", name):
            return "In the basket", f"good:{name}", "minus"
        case ("music.drop", name):
            return _about("song", name), f"cover:{name}", "minus"
    return "", _glyph(cell.text), ""


def _about(kind: str, name: str) -> str:
    if kind == "song":
        return _chosen(ARTISTS, name)
    digits = random.Random(f"number-{name}")
    return f"+1 555 {digits.randrange(100, 999)} {digits.randrange(1000, 9999)}"


def _chosen(words: tuple[str, ...], name: str) -> str:
    return random.Random(f"about-{name}").choice(words)


def _glyph(name: str) -> str:
    return f"glyph:{GLYPHS[name]}" if name in GLYPHS else ""


def _capital(text: str) -> str:
    """ "milk" -> "Milk", "2 milk" -> "2 Milk"."""
    count, blank, name = text.partition(" ") if text[:1].isdigit() else ("", "", text)
    return f"{count}{blank}{name[:1].upper()}{name[1:]}"
