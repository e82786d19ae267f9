"""Ways through the stand-in apps of `aosp` for the AndroidWorld tasks that a pocket phone can honestly hold.

A way sees what accessibility tells (`Device.elements`) and the task's parameters, and yields one action at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from agent.types import Action, Click, LongPress, Open, Point, Swipe, Terminate, Type
from envs.device import Element

Seen = Sequence[Element]
Params = Mapping[str, Any]
Way = Generator[Action, Seen, Seen]
"""Yields actions, is sent what is visible after each, returns what was visible last."""

FURTHER = Swipe(Point(0.5, 0.75), Point(0.5, 0.25))


class Expert:
    """The way through one task. `act` takes what is visible now. Raises LookupError when it does not get on."""

    def __init__(self, task: str, params: Params):
        self._make, self._params = WAYS[task], params
        self._way: Way | None = None

    def act(self, seen: Seen) -> Action:
        try:
            if self._way is None:
                self._way = self._make(seen, self._params)
                return next(self._way)
            return self._way.send(seen)
        except StopIteration:
            return Terminate("success")


def _find(seen: Seen, text: str) -> Generator[Action, Seen, Element]:
    """Scroll until an element with this text reacts."""
    for _ in range(10):
        for element in seen:
            if element.text == text and element.clickable:
                return element
        seen = yield FURTHER
    raise LookupError(text)


def _tap(seen: Seen, *texts: str) -> Way:
    for text in texts:
        element = yield from _find(seen, text)
        seen = yield Click(element.box.center)
    return seen


def _hold(seen: Seen, text: str, choice: str) -> Way:
    element = yield from _find(seen, text)
    seen = yield LongPress(element.box.center, 1.0)
    return (yield from _tap(seen, choice))


def _field(seen: Seen, index: int) -> Point:
    return [e for e in seen if e.kind == "field"][index].box.center


def _write(seen: Seen, *texts: str | None) -> Way:
    """One text per field, top to bottom; None leaves a field alone."""
    for index, text in enumerate(texts):
        if text is not None:
            yield Click(_field(seen, index))
            seen = yield Type(text)
    return seen


def _switch(seen: Seen, name: str, on: bool) -> Way:
    toggle = next(e for e in seen if e.text == name)
    return seen if toggle.checked == on else (yield from _tap(seen, name))


def _settings(**wanted: str) -> Callable[[Seen, Params], Way]:
    """Switch name -> "on", "off", or the parameter that says so."""

    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open("Settings")
        for name, value in wanted.items():
            seen = yield from _switch(seen, name, p.get(value, value) == "on")
        return seen

    return way


def _brightness(seen: Seen, p: Params) -> Way:
    seen = yield Open("Settings")
    return (yield from _tap(seen, "Brightness", "Highest" if p["max_or_min"] == "max" else "Lowest"))


def _open_app(seen: Seen, p: Params) -> Way:
    return (yield Open(p["app_name"]))


def _wifi_and_app(seen: Seen, p: Params) -> Way:
    seen = yield from _settings(Wifi="on")(seen, p)
    return (yield from _open_app(seen, p))


def _copy(seen: Seen, p: Params) -> Way:
    seen = yield Open("Clipper")
    seen = yield from _write(seen, p["clipboard_content"])
    seen = yield LongPress(_field(seen, 0), 1.0)
    return (yield from _tap(seen, "Copy"))


def _in_folder(app: str, folder: str, choice: str) -> Callable[[Seen, Params], Way]:
    """Hold the file in the folder that a parameter names, choose, and where it moves go there."""

    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app)
        if folder in p:
            seen = yield from _tap(seen, p[folder])
        seen = yield from _hold(seen, p["file_name"], choice)
        return (yield from _tap(seen, p["destination_folder"])) if choice == "Move" else seen

    return way


def _delete_newest(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, "Newest")
    return (yield from _hold(seen, _notes(seen)[0].text, "Delete"))


def _delete_all(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    while _notes(seen):
        seen = yield from _hold(seen, _notes(seen)[0].text, "Delete")
    return seen


def _notes(seen: Seen) -> list[Element]:
    return [e for e in seen if e.kind == "row" and "." in e.text]


def _create_folder(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, "Folder")
    seen = yield from _write(seen, p["folder_name"])
    return (yield from _tap(seen, "Create"))


def _create_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, "Note")
    seen = yield from _write(seen, p["file_name"], p["text"])
    return (yield from _tap(seen, "Save"))


def _paste_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, "Note")
    seen = yield from _write(seen, p["file_name"])
    seen = yield LongPress(_field(seen, 1), 1.0)
    return (yield from _tap(seen, "Paste", "Save"))


def _edit_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, p["file_name"])
    old = [e for e in seen if e.kind == "field"][1].text
    new = {"header": f"{p.get('header')}\n{old}", "footer": f"{old}\n{p.get('footer')}"}
    seen = yield from _write(seen, None, new.get(p["edit_type"], p.get("replace_text", "")))
    return (yield from _tap(seen, "Save"))


def _change_note(seen: Seen, p: Params) -> Way:
    seen = yield Open("Markor")
    seen = yield from _tap(seen, p["original_name"])
    seen = yield from _write(seen, p["new_name"], p["updated_content"])
    return (yield from _tap(seen, "Save"))


def _taps(app: str, *texts: str) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app)
        return (yield from _tap(seen, *texts))

    return way


def _timer(seen: Seen, p: Params) -> Way:
    digits = f"{p['hours']:02d}{p['minutes']:02d}{p['seconds']:02d}".lstrip("0")
    seen = yield Open("Clock")
    return (yield from _tap(seen, "Timer", *digits))


def _record_as(seen: Seen, p: Params) -> Way:
    seen = yield Open("Audio Recorder")
    seen = yield from _tap(seen, "Record", "Stop")
    seen = yield from _write(seen, p["file_name"])
    return (yield from _tap(seen, "Save"))


def _add_contact(seen: Seen, p: Params) -> Way:
    first, _, last = p["name"].partition(" ")
    seen = yield Open("Contacts")
    seen = yield from _tap(seen, "Add")
    seen = yield from _write(seen, first, last or None, p["number"])
    return (yield from _tap(seen, "Save"))


_TOGGLES = {
    f"System{name}Turn{side}{verify}": _settings(**{name: "on_or_off"})
    for name in ("Wifi", "Bluetooth")
    for side in ("On", "Off")
    for verify in ("", "Verify")
}

WAYS: dict[str, Callable[[Seen, Params], Way]] = {
    **_TOGGLES,
    **{f"SystemBrightness{side}{verify}": _brightness for side in ("Max", "Min") for verify in ("", "Verify")},
    "OpenAppTaskEval": _open_app,
    "TurnOffWifiAndTurnOnBluetooth": _settings(Wifi="off", Bluetooth="on"),
    "TurnOnWifiAndOpenApp": _wifi_and_app,
    "SystemCopyToClipboard": _copy,
    "FilesDeleteFile": _in_folder("Files", "subfolder", "Delete"),
    "FilesMoveFile": _in_folder("Files", "source_folder", "Move"),
    "MarkorDeleteNote": _in_folder("Markor", "subfolder", "Delete"),
    "MarkorMoveNote": _in_folder("Markor", "source_folder", "Move"),
    "MarkorDeleteNewestNote": _delete_newest,
    "MarkorDeleteAllNotes": _delete_all,
    "MarkorCreateFolder": _create_folder,
    "MarkorCreateNote": _create_note,
    "MarkorCreateNoteFromClipboard": _paste_note,
    "MarkorEditNote": _edit_note,
    "MarkorChangeNoteContent": _change_note,
    "CameraTakePhoto": _taps("Camera", "Shutter"),
    "CameraTakeVideo": _taps("Camera", "Video", "Record", "Stop"),
    "ClockStopWatchPausedVerify": _taps("Clock", "Stopwatch"),
    "ClockStopWatchRunning": _taps("Clock", "Stopwatch", "Start"),
    "ClockTimerEntry": _timer,
    "AudioRecorderRecordAudio": _taps("Audio Recorder", "Record", "Stop", "Save"),
    "AudioRecorderRecordAudioWithFileName": _record_as,
    "ContactsAddContact": _add_contact,
}
"""AndroidWorld's task name -> a way through it on a pocket phone. Other tasks can be started, but not be solved here."""
