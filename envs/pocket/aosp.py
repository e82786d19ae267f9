"""A phone with the apps that AndroidWorld's own tasks ask for, under their real package names.

Small stand-ins, each with its own pages, that really do what they show: files lie in the phone's storage, switches in its
settings, contacts in its contacts provider. So AndroidWorld's checks, which read these, need not be touched.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from envs.pocket.files import SHARED, FileError
from envs.pocket.state import Aosp, Dialog, Screen, State, new_state
from envs.pocket.ui import DISMISS, NOTHING, Cell, Line, Look, Op, Page

if TYPE_CHECKING:
    from envs.pocket.phone import Phone

COMPONENTS = {
    "Settings": "com.android.settings/.Settings",
    "Files": "com.google.android.documentsui/com.android.documentsui.files.FilesActivity",
    "Markor": "net.gsantner.markor/net.gsantner.markor.activity.MainActivity",
    "Camera": "com.android.camera2/com.android.camera.CameraLauncher",
    "Clock": "com.google.android.deskclock/com.android.deskclock.DeskClock",
    "Audio Recorder": "com.dimowner.audiorecorder/com.dimowner.audiorecorder.app.welcome.WelcomeActivity",
    "Contacts": "com.google.android.contacts/com.android.contacts.activities.PeopleActivity",
    "Phone": "com.google.android.dialer/com.google.android.dialer.extensions.GoogleDialtactsActivity",
    "Clipper": "ca.zgrs.clipper/ca.zgrs.clipper.Main",
}
MARKOR = f"{SHARED}/Documents/Markor"
RECORDS = f"{SHARED}/Android/data/com.dimowner.audiorecorder/files/Music/records"
SWITCHES = ("Wifi", "Bluetooth", "Airplane", "Location")
BRIGHTNESS = {"Lowest": 1, "Low": 64, "Medium": 128, "High": 192, "Highest": 255}


def aosp_state(seed: int = 0) -> State:
    """A phone as AndroidWorld sets one up: its apps, empty folders, nothing in the way."""
    state = new_state(seed)
    state.look = Look(theme=random.Random(f"aosp-{seed}").randrange(2))
    state.apps = list(COMPONENTS)
    state.settings["system"]["screen_brightness"] = "128"
    state.settings["global"]["airplane_mode_on"] = "0"
    state.aosp = Aosp(dict(COMPONENTS))
    for folder in (MARKOR, RECORDS):
        state.files.make_folder(folder)
    return state


def view(phone: Phone, screen: Screen) -> Page:
    """The page in front; pages that an app does not have are empty."""
    page = _VIEWS.get((screen.app, screen.page))
    return page(phone, screen) if page else Page(screen.app, ((Cell("Nothing here"),),))


def _row(text: str, op: Op = NOTHING, hold: Op = NOTHING) -> Line:
    return (Cell(text, op, "row", hold=hold),)


def _button(text: str, *op: str) -> Cell:
    return Cell(text, op, "button")


def _field(screen: Screen, name: str) -> Line:
    """A long press offers the clipboard."""
    text = " ".join(screen.fields.get(name, "").split())
    focused = screen.focus == name
    return (
        Cell(text or name, ("focus", name), "field", hold=("aosp.menu", name), focused=focused, checked=bool(text)),
    )


# ----------------------------------------------------------------------------------------------------------- Settings


def _settings(phone: Phone, screen: Screen) -> Page:
    switches = [(Cell(s, ("settings.toggle", s), "toggle", phone.is_on(s)),) for s in SWITCHES]
    return Page("Settings", (*switches, _row("Brightness", ("go", "brightness", ""))))


def _brightness(phone: Phone, screen: Screen) -> Page:
    now = phone.state.settings["system"].get("screen_brightness", "")
    rows = [(Cell(n, ("aosp.bright", str(v)), "check", now == str(v)),) for n, v in BRIGHTNESS.items()]
    return Page("Brightness", tuple(rows))


def _bright(phone: Phone, value: str) -> None:
    phone.state.settings["system"]["screen_brightness"] = value


# ----------------------------------------------------------------------------------------------------- Files and Markor


def _browse(phone: Phone, screen: Screen) -> Page:
    """A folder: folders first; a tap opens, a long press offers what can be done. Markor edits, Files only shows."""
    home = MARKOR if screen.app == "Markor" else SHARED
    folder = screen.arg or home
    places = [posixpath.join(folder, name) for name in phone.files.names(folder)]
    folders = [p for p in places if phone.files.is_folder(p)]
    files = [p for p in places if p in phone.files]
    if screen.fields.get("sort") == "newest":
        files.sort(key=phone.files.changed, reverse=True)
    rows = [_row(_name(p), ("go", "main", p), ("aosp.ask", p)) for p in folders]
    show = ("aosp.edit",) if screen.app == "Markor" else ("go", "file")
    rows += [_row(_name(p), (*show, p), ("aosp.ask", p)) for p in files]
    footer: Line = (_button("Newest", "aosp.sort"),)
    if screen.app == "Markor":
        footer = (_button("Note", "go", "edit", folder), _button("Folder", "go", "folder", folder), *footer)
    return Page(_name(folder), tuple(rows) or ((Cell("Empty"),),), footer=footer)


def _name(path: str) -> str:
    return posixpath.basename(path)


def _sort(phone: Phone) -> None:
    if phone.screen:
        fields = phone.screen.fields
        fields["sort"] = "" if fields.get("sort") else "newest"


def _ask(phone: Phone, path: str) -> None:
    choices: list[tuple[str, Op]] = [("Delete", ("aosp.delete", path)), ("Move", ("go", "move", path))]
    phone.state.dialog = Dialog(_name(path), [*choices, ("Close", DISMISS)])


def _delete(phone: Phone, path: str) -> None:
    _try(phone, lambda: phone.files.remove(path, recursive=True))


def _file(phone: Phone, screen: Screen) -> Page:
    return Page(_name(screen.arg), ((Cell(f"{len(phone.files.get(screen.arg))} bytes"),),))


def _picker(phone: Phone, screen: Screen) -> Page:
    """Where to: the folders beside what is moved, and those of the app's home."""
    home = MARKOR if screen.app == "Markor" else SHARED
    places = [home, *(posixpath.join(home, n) for n in phone.files.names(home))]
    folders = [p for p in places if phone.files.is_folder(p)]
    return Page("Move to", tuple(_row(_name(p), ("aosp.move", screen.arg, p)) for p in folders))


def _move(phone: Phone, path: str, folder: str) -> None:
    phone.back()
    _try(phone, lambda: phone.files.move(path, folder, phone.now))


def _edit(phone: Phone, screen: Screen) -> Page:
    save = _button("Save", "aosp.save", screen.arg)
    return Page("Note", (_field(screen, "name"), _field(screen, "text")), footer=(save,))


def _open_note(phone: Phone, path: str) -> None:
    phone.do(("go", "edit", path))
    if phone.screen:
        phone.screen.fields = {"name": _name(path), "text": phone.files.get(path).decode("utf-8", "replace")}


def _save(phone: Phone, path: str) -> None:
    """path: the file that is edited, or the folder of a new one."""
    if phone.screen is None or not phone.screen.fields.get("name"):
        return
    fields, old = phone.screen.fields, path in phone.files
    target = posixpath.join(posixpath.dirname(path) if old else path, fields["name"].replace("/", "_"))

    def save() -> None:
        phone.files.write(target, fields.get("text", "").encode(), phone.now)
        if old and target != path:
            phone.files.remove(path)

    phone.back()
    _try(phone, save)


def _folder(phone: Phone, screen: Screen) -> Page:
    return Page("Folder", (_field(screen, "name"),), footer=(_button("Create", "aosp.folder", screen.arg),))


def _make_folder(phone: Phone, parent: str) -> None:
    name = phone.screen.fields.get("name", "").replace("/", "_") if phone.screen else ""
    if name:
        phone.back()
        _try(phone, lambda: phone.files.make_folder(posixpath.join(parent, name)))


def _try(phone: Phone, do: Callable[[], None]) -> None:
    """What the storage refuses, the app says."""
    try:
        do()
    except FileError as error:
        phone.state.dialog = Dialog(str(error).rpartition(": ")[2], [("OK", DISMISS)])


# -------------------------------------------------------------------------------------------------- Camera and recorder


def _camera(phone: Phone, screen: Screen) -> Page:
    return Page("Camera", (), footer=(_button("Shutter", "aosp.photo"), _button("Video", "go", "video", "")))


def _video(phone: Phone, screen: Screen) -> Page:
    going = screen.fields.get("going") == "yes"
    return Page("Video", (), footer=(_button("Stop" if going else "Record", "aosp.film"),))


def _photo(phone: Phone) -> None:
    _keep(phone, f"{SHARED}/Pictures/IMG_{_time(phone)}.jpg")


def _film(phone: Phone) -> None:
    if _stopped(phone):
        _keep(phone, f"{SHARED}/Movies/VID_{_time(phone)}.mp4")


def _recorder(phone: Phone, screen: Screen) -> Page:
    going = screen.fields.get("going") == "yes"
    rows = tuple(_row(n) for n in phone.files.names(RECORDS))
    return Page("Recorder", rows, footer=(_button("Stop" if going else "Record", "aosp.record"),))


def _record(phone: Phone) -> None:
    if _stopped(phone):
        phone.do(("go", "keep", ""))


def _keep_as(phone: Phone, screen: Screen) -> Page:
    return Page("Save as", (_field(screen, "name"),), footer=(_button("Save", "aosp.keep"),))


def _keep_record(phone: Phone) -> None:
    name = phone.screen.fields.get("name", "").replace("/", "_") if phone.screen else ""
    phone.back()
    _keep(phone, f"{RECORDS}/{name or 'Record_' + _time(phone)}.m4a")


def _stopped(phone: Phone) -> bool:
    """Start what runs on this page, or stop it: then True."""
    if phone.screen is None:
        return False
    going = phone.screen.fields.pop("going", "") == "yes"
    if not going:
        phone.screen.fields["going"] = "yes"
    return going


def _time(phone: Phone) -> str:
    return f"{datetime.fromtimestamp(phone.now, UTC):%Y%m%d_%H%M%S}"


def _keep(phone: Phone, path: str) -> None:
    """Under a name that is free: nothing is overwritten."""
    stem, end = posixpath.splitext(path)
    free = next(p for p in (path, *(f"{stem}-{k}{end}" for k in range(1, 1000))) if p not in phone.files)
    _try(phone, lambda: phone.files.write(free, b"pocket", phone.now))


# ---------------------------------------------------------------------------------------------------- Clock and contacts


def _clock(phone: Phone, screen: Screen) -> Page:
    rows = (_row("Stopwatch", ("go", "stopwatch", "")), _row("Timer", ("go", "timer", "")))
    return Page("Clock", rows)


def _stopwatch(phone: Phone, screen: Screen) -> Page:
    running = _of(phone).stopwatch
    buttons = ("Pause", "Lap") if running else ("Start", "Reset")
    footer = tuple(_button(b, "aosp.stopwatch", b) for b in buttons)
    return Page("Stopwatch", (_row("Stopwatch", NOTHING), (Cell("running" if running else "00:00:00"),)), footer=footer)


def _press(phone: Phone, button: str) -> None:
    if button in ("Start", "Pause"):
        _of(phone).stopwatch = button == "Start"


def _timer(phone: Phone, screen: Screen) -> Page:
    """A keypad: digits come in from the right."""
    digits = _of(phone).timer.rjust(6, "0")
    shown = f"{digits[:2]}h {digits[2:4]}m {digits[4:]}s"
    keys = [tuple(_button(k, "aosp.digit", k) for k in row) for row in ("123", "456", "789", "0")]
    return Page(
        "Timer", ((Cell(shown),), *keys), footer=(_button("Clear", "aosp.clear"), _button("Start", "aosp.start"))
    )


def _digit(phone: Phone, digit: str) -> None:
    _of(phone).timer = (_of(phone).timer + digit).lstrip("0")[-6:]


def _clear(phone: Phone) -> None:
    _of(phone).timer = ""


def _contacts(phone: Phone, screen: Screen) -> Page:
    rows = tuple(_row(name) for name, _ in sorted(_of(phone).contacts))
    return Page("Contacts", rows or ((Cell("Empty"),),), footer=(_button("Add", "go", "add", ""),))


def _add_contact(phone: Phone, screen: Screen) -> Page:
    fields = tuple(_field(screen, name) for name in ("First name", "Last name", "Phone"))
    return Page("Add", fields, footer=(_button("Save", "aosp.contact"),))


def _save_contact(phone: Phone) -> None:
    fields = phone.screen.fields if phone.screen else {}
    name = " ".join(fields[k] for k in ("First name", "Last name") if fields.get(k))
    if name:
        _of(phone).contacts.append((name, fields.get("Phone", "")))
        phone.back()


# ---------------------------------------------------------------------------------------------------------- clipboard


def _menu(phone: Phone, name: str) -> None:
    phone.do(("focus", name))
    options: list[tuple[str, Op]] = [("Copy", ("aosp.copy", name)), ("Paste", ("aosp.paste", name))]
    phone.state.dialog = Dialog("Edit", [*options, ("Close", DISMISS)])


def _copy(phone: Phone, name: str) -> None:
    if phone.screen:
        _of(phone).clipboard = phone.screen.fields.get(name, "")


def _paste(phone: Phone, name: str) -> None:
    if phone.screen:
        phone.screen.fields[name] = _of(phone).clipboard
        phone.screen.focus, phone.screen.fresh = name, False


def _clipper(phone: Phone, screen: Screen) -> Page:
    return Page("Clipper", (_field(screen, "text"),))


def _of(phone: Phone) -> Aosp:
    if phone.state.aosp is None:
        raise RuntimeError("this phone has other apps")
    return phone.state.aosp


def forget(phone: Phone, package: str) -> None:
    """`pm clear`: the app's own data are gone and it is closed."""
    aosp = _of(phone)
    if package == "com.android.providers.contacts":
        aosp.contacts.clear()
    if package == COMPONENTS["Clock"].partition("/")[0]:
        aosp.stopwatch, aosp.timer = False, ""
    if phone.screen and COMPONENTS.get(phone.screen.app, "").startswith(f"{package}/"):
        phone.state.stack = []


_VIEWS: dict[tuple[str, str], Callable[[Phone, Screen], Page]] = {
    ("Settings", "main"): _settings,
    ("Settings", "brightness"): _brightness,
    **{(app, "main"): _browse for app in ("Files", "Markor")},
    **{(app, "move"): _picker for app in ("Files", "Markor")},
    ("Files", "file"): _file,
    ("Markor", "edit"): _edit,
    ("Markor", "folder"): _folder,
    ("Camera", "main"): _camera,
    ("Camera", "video"): _video,
    ("Audio Recorder", "main"): _recorder,
    ("Audio Recorder", "keep"): _keep_as,
    ("Clock", "main"): _clock,
    ("Clock", "stopwatch"): _stopwatch,
    ("Clock", "timer"): _timer,
    ("Contacts", "main"): _contacts,
    ("Contacts", "add"): _add_contact,
    ("Clipper", "main"): _clipper,
}

VERBS: dict[str, Callable[..., None]] = {
    "aosp.bright": _bright,
    "aosp.sort": _sort,
    "aosp.ask": _ask,
    "aosp.delete": _delete,
    "aosp.move": _move,
    "aosp.edit": _open_note,
    "aosp.save": _save,
    "aosp.folder": _make_folder,
    "aosp.photo": _photo,
    "aosp.film": _film,
    "aosp.record": _record,
    "aosp.keep": _keep_record,
    "aosp.stopwatch": _press,
    "aosp.digit": _digit,
    "aosp.clear": _clear,
    "aosp.start": _clear,
    "aosp.contact": _save_contact,
    "aosp.menu": _menu,
    "aosp.copy": _copy,
    "aosp.paste": _paste,
}
