"""Cells that all stand-ins use, what they do when storage refuses, and the clipboard behind every field."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.state import Aosp, Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, NOTHING, Cell, Line, Op

LETTERS = 30
"""About as many letters as a line of text holds."""


def row(text: str, op: Op = NOTHING, hold: Op = NOTHING) -> Line:
    return (Cell(" ".join(text.split()), op, "row", hold=hold),)


def button(text: str, *op: str) -> Cell:
    return Cell(text, op, "button")


def field(front: OpenPage, name: str, hint: str = "") -> Cell:
    """A long press offers the clipboard. A tap selects all of the text."""
    text = " ".join(front.fields.get(name, "").split())
    focused, hint = front.focus == name, hint or name
    hold = ("aosp.menu", name)
    return Cell(text or hint, ("focus", name), "field", hold=hold, focused=focused, checked=bool(text), hint=hint)


def words(text: str) -> tuple[Line, ...]:
    """Text as lines that fit, broken between words."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and len(line) + 1 + len(word) > LETTERS:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        lines.append(line)
    return tuple((Cell(line),) for line in lines if line)


def grid(cells: Iterable[Cell], width: int) -> tuple[Line, ...]:
    every = tuple(cells)
    return tuple(every[k : k + width] for k in range(0, len(every), width))


def attempt(state: State, do: Callable[[], None]) -> bool:
    """Do something with files. When the storage refuses, the app shows its message, and the answer is False."""
    try:
        do()
    except FileError as error:
        tell(state, str(error).rpartition(": ")[2])
        return False
    return True


def tell(state: State, text: str) -> None:
    state.dialog = Dialog(text, [("OK", DISMISS)])


def of(state: State) -> Aosp:
    if state.aosp is None:
        raise RuntimeError("this phone does not have the apps of AndroidWorld")
    return state.aosp


def written(state: State, name: str) -> str:
    """What a field of the page in front holds."""
    return state.front.fields.get(name, "") if state.front else ""


def _menu(state: State, name: str) -> None:
    state.focus(name)
    options: list[tuple[str, Op]] = [("Copy", ("aosp.copy", name)), ("Paste", ("aosp.paste", name))]
    state.dialog = Dialog("Edit", [*options, ("Close", DISMISS)])


def _copy(state: State, name: str) -> None:
    if state.front:
        of(state).clipboard = state.front.fields.get(name, "")


def _paste(state: State, name: str) -> None:
    if state.front:
        state.front.fields[name] = of(state).clipboard
        state.front.focus, state.front.fresh = name, False


def _open(state: State, page: str, arg: str, name: str) -> None:
    """Open a page with the cursor in a field."""
    state.go(page, arg)
    state.focus(name)


VERBS: dict[str, Callable[..., None]] = {
    "aosp.menu": _menu,
    "aosp.copy": _copy,
    "aosp.paste": _paste,
    "aosp.open": _open,
}
