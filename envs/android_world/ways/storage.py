"""Files, notes in Markor, pictures."""

from __future__ import annotations

from collections.abc import Callable

from guiderail.agent.types import Click, LongPress, Open, SystemButton, Type
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways, field, hold, tap, write
from guiderail.envs.live.device import Element


def _in_folder(app: str, folder: str, choice: str) -> Callable[[Seen, Params], Way]:
    """Hold the file in the folder that a parameter names, choose, and where it moves go there."""

    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app)
        if folder in p:
            seen = yield from tap(seen, p[folder])
        seen = yield from hold(seen, p["file_name"], choice)
        return (yield from tap(seen, p["destination_folder"])) if choice == "Move" else seen

    return way


def _delete_newest(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, "Newest")
    return (yield from hold(seen, _notes(seen)[0].text, "Delete"))


def _delete_all(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    while _notes(seen):
        seen = yield from hold(seen, _notes(seen)[0].text, "Delete")
    return seen


def _notes(seen: Seen) -> list[Element]:
    return [e for e in seen if e.kind == "row" and "." in e.text]


def _create_folder(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, "Folder")
    seen = yield from write(seen, p["folder_name"])
    return (yield from tap(seen, "Create"))


def create_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, "Note")
    seen = yield from write(seen, p["file_name"])
    yield Click(field(seen, 1))
    yield from _lines(p["text"].rstrip("\n"))
    return (yield from tap(seen, "Save"))


def _lines(text: str) -> Way:
    """Text at the cursor; a line ends with the Enter key."""
    first, *others = text.split("\n")
    seen = yield Type(first)
    for line in others:
        seen = yield SystemButton("Enter")
        if line:
            seen = yield Type(line)
    return seen


def _paste_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, "Note")
    seen = yield from write(seen, p["file_name"])
    seen = yield LongPress(field(seen, 1), 1.0)
    return (yield from tap(seen, "Paste", "Save"))


def _edit_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, p["file_name"])
    old = [e for e in seen if e.kind == "field"][1].text
    new = {"header": f"{p.get('header')}\n{old}", "footer": f"{old}\n{p.get('footer')}"}
    seen = yield from write(seen, None, new.get(p["edit_type"], p.get("replace_text", "")))
    return (yield from tap(seen, "Save"))


def _change_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from tap(seen, p["original_name"])
    seen = yield from write(seen, p["new_name"], p["updated_content"])
    return (yield from tap(seen, "Save"))


def _add_header(seen: Seen, p: Params) -> Way:
    """A note opens with the cursor at the top of its text."""
    seen = yield Open("Markor")
    seen = yield from tap(seen, p["original_name"])
    seen = yield from _lines(f"{p['header']}\n\n")
    seen = yield from write(seen, p["new_name"])
    return (yield from tap(seen, "Save"))


def _merge_notes(seen: Seen, p: Params) -> Way:
    """Read the notes, then write what they say, with an empty line between two of them."""
    contents = []
    seen = yield Open("Markor")
    for k in (1, 2, 3):
        seen = yield from tap(seen, p[f"file{k}_name"])
        contents.append([e for e in seen if e.kind == "field"][1].text)
        yield SystemButton("Back")
        seen = yield SystemButton("Back")
    return (yield from create_note(seen, {"file_name": p["new_file_name"], "text": "\n\n".join(contents)}))


def _copy_picture(seen: Seen, p: Params) -> Way:
    seen = yield Open("Simple Gallery Pro")
    seen = yield from hold(seen, p["file_name"], "Copy to")
    return (yield from tap(seen, "Download"))


def _draw(seen: Seen, p: Params) -> Way:
    seen = yield Open("Simple Draw Pro")
    seen = yield from tap(seen, "Save")
    seen = yield Type(p["file_name"])
    return (yield from tap(seen, "Pictures"))


WAYS: Ways = {
    "FilesDeleteFile": _in_folder("Files", "subfolder", "Delete"),
    "FilesMoveFile": _in_folder("Files", "source_folder", "Move"),
    "MarkorDeleteNote": _in_folder("Markor", "subfolder", "Delete"),
    "MarkorMoveNote": _in_folder("Markor", "source_folder", "Move"),
    "MarkorDeleteNewestNote": _delete_newest,
    "MarkorDeleteAllNotes": _delete_all,
    "MarkorCreateFolder": _create_folder,
    "MarkorCreateNote": create_note,
    "MarkorCreateNoteFromClipboard": _paste_note,
    "MarkorEditNote": _edit_note,
    "MarkorChangeNoteContent": _change_note,
    "MarkorAddNoteHeader": _add_header,
    "MarkorMergeNotes": _merge_notes,
    "MarkorTranscribeReceipt": create_note,
    "MarkorTranscribeVideo": create_note,
    "SaveCopyOfReceiptTaskEval": _copy_picture,
    "SimpleDrawProCreateDrawing": _draw,
}
