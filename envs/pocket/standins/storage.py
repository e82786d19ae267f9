"""Files, Markor, Simple Gallery and Simple Draw: apps whose content is files in the shared storage."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable

from PIL import Image

from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.standins.widgets import attempt, button, field, row, words, written
from guiderail.envs.pocket.state import Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, Cell, Line, Op, Page

MARKOR = f"{SHARED}/Documents/Markor"
GALLERY, DRAW = "Simple Gallery Pro", "Simple Draw Pro"
HOMES = {"Files": SHARED, "Markor": MARKOR, GALLERY: f"{SHARED}/DCIM"}
AFTER = "after"
"""In the fields of an open note: what comes after the cursor."""
SHOWN = 4000
"""Most letters of a file that Files shows."""


def _browse(state: State, front: OpenPage) -> Page:
    """A folder, its folders first. A tap opens an entry, a long press offers actions. Markor edits files, Files shows them."""
    folder = front.arg or HOMES[front.app]
    places = [posixpath.join(folder, name) for name in state.files.names(folder)]
    folders = [p for p in places if state.files.is_folder(p)]
    files = [p for p in places if p in state.files]
    if front.fields.get("sort") == "newest":
        files.sort(key=state.files.changed, reverse=True)
    rows = [row(_name(p), ("go", "main", p), ("aosp.ask", p)) for p in folders]
    show = ("aosp.edit",) if front.app == "Markor" else ("go", "file")
    rows += [row(_name(p), (*show, p), ("aosp.ask", p)) for p in files]
    footer: Line = (button("Newest", "aosp.sort"),)
    if front.app == "Markor":
        footer = (button("Note", "go", "edit", folder), button("Folder", "go", "folder", folder), *footer)
    return Page(_name(folder), tuple(rows) or ((Cell("Empty"),),), footer=footer)


def _name(path: str) -> str:
    return posixpath.basename(path)


def _sort(state: State) -> None:
    if state.front:
        fields = state.front.fields
        fields["sort"] = "" if fields.get("sort") else "newest"


def _ask(state: State, path: str) -> None:
    choices: list[tuple[str, Op]] = [("Delete", ("aosp.delete", path)), ("Move", ("go", "move", path))]
    if state.front and state.front.app == GALLERY:
        choices[1] = ("Copy to", ("go", "copy", path))
    state.dialog = Dialog(_name(path), [*choices, ("Close", DISMISS)])


def _delete(state: State, path: str) -> None:
    attempt(state, lambda: state.files.remove(path, recursive=True))


def _file(state: State, front: OpenPage) -> Page:
    data = state.files.get(front.arg)
    text = data[:SHOWN].decode("utf-8", "replace") if front.arg.endswith((".txt", ".md")) else ""
    return Page(_name(front.arg), ((Cell(f"{len(data)} bytes"),), *words(text)))


def _picker(state: State, front: OpenPage) -> Page:
    """Where to move or copy something: the app's home and the folders in it, for the gallery all public ones."""
    home = SHARED if front.app == GALLERY else HOMES[front.app]
    places = [home, *(posixpath.join(home, n) for n in state.files.names(home))]
    folders = [p for p in places if state.files.is_folder(p)]
    title, verb = ("Copy to", "aosp.duplicate") if front.page == "copy" else ("Move to", "aosp.move")
    return Page(title, tuple(row(_name(p), (verb, front.arg, p)) for p in folders))


def _move(state: State, path: str, folder: str) -> None:
    state.back()
    attempt(state, lambda: state.files.move(path, folder, state.now))


def _duplicate(state: State, path: str, folder: str) -> None:
    state.back()
    attempt(state, lambda: state.files.copy(path, folder, state.now))


# -------------------------------------------------------------------------------------------------------------- notes


def _edit(state: State, front: OpenPage) -> Page:
    """A tap on the text selects all of it."""
    text = OpenPage(front.app, fields={"text": _content(front)}, focus=front.focus)
    cell = field(text, "text")
    tapped = Cell(cell.text, ("note.all",), "field", cell.checked, cell.hold, focused=cell.focused, hint=cell.hint)
    save = button("Save", "aosp.save", front.arg)
    return Page("Note", ((field(front, "name"),), (tapped,)), footer=(save,), enter=("note.enter",))


def _content(front: OpenPage) -> str:
    return front.fields.get("text", "") + front.fields.get(AFTER, "")


def _all(state: State) -> None:
    if state.front:
        state.front.fields["text"], state.front.fields[AFTER] = _content(state.front), ""
        state.focus("text")


def _enter(state: State) -> None:
    """A new line in the text; in the name, on to the text."""
    front = state.front
    if front and front.focus == "text":
        front.fields["text"] = ("" if front.fresh else front.fields.get("text", "")) + "\n"
        front.fresh = False
    elif front:
        _all(state)


def _open_note(state: State, path: str) -> None:
    """The cursor is at the top of the text."""
    state.go("edit", path)
    if state.front:
        text = state.files.get(path).decode("utf-8", "replace")
        state.front.fields = {"name": _name(path), "text": "", AFTER: text}
        state.front.focus, state.front.fresh = "text", False


def _save(state: State, path: str) -> None:
    """path: the file that is edited, or the folder of a new one."""
    if state.front is None or not state.front.fields.get("name"):
        return
    front, old = state.front, path in state.files
    target = posixpath.join(posixpath.dirname(path) if old else path, front.fields["name"].replace("/", "_"))

    def save() -> None:
        state.files.write(target, _content(front).encode(), state.now)
        if old and target != path:
            state.files.remove(path)

    state.back()
    attempt(state, save)


def _folder(state: State, front: OpenPage) -> Page:
    return Page("Folder", ((field(front, "name"),),), footer=(button("Create", "aosp.folder", front.arg),))


def _make_folder(state: State, parent: str) -> None:
    if name := written(state, "name").replace("/", "_"):
        state.back()
        attempt(state, lambda: state.files.make_folder(posixpath.join(parent, name)))


# ----------------------------------------------------------------------------------------------------------- drawings


def _canvas(state: State, front: OpenPage) -> Page:
    return Page("Drawing", (), footer=(button("Save", "aosp.open", "keep", "", "File name"),))


def _keep_as(state: State, front: OpenPage) -> Page:
    """The name has its ending, as this app's dialog for saving has it."""
    places = tuple(row(n, ("draw.save", n)) for n in state.files.names(SHARED))
    return Page("Save in", ((field(front, "File name"),), *places))


def _draw(state: State, folder: str) -> None:
    if name := written(state, "File name").replace("/", "_"):
        state.back()
        target = posixpath.join(SHARED, folder, name)
        attempt(state, lambda: state.files.write(target, _picture(name), state.now))


def _picture(name: str) -> bytes:
    """An empty drawing, as its name's ending says."""
    if name.endswith(".svg"):
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="160"></svg>'
    made = io.BytesIO()
    Image.new("RGB", (90, 160), "white").save(made, "JPEG" if name.endswith((".jpg", ".jpeg")) else "PNG")
    return made.getvalue()


VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    **{(app, "main"): _browse for app in HOMES},
    **{(app, "move"): _picker for app in HOMES},
    **{(app, "file"): _file for app in HOMES},
    (GALLERY, "copy"): _picker,
    ("Markor", "edit"): _edit,
    ("Markor", "folder"): _folder,
    (DRAW, "main"): _canvas,
    (DRAW, "keep"): _keep_as,
}
VERBS: dict[str, Callable[..., None]] = {
    "aosp.sort": _sort,
    "aosp.ask": _ask,
    "aosp.delete": _delete,
    "aosp.move": _move,
    "aosp.duplicate": _duplicate,
    "aosp.edit": _open_note,
    "aosp.save": _save,
    "aosp.folder": _make_folder,
    "note.all": _all,
    "note.enter": _enter,
    "draw.save": _draw,
}
