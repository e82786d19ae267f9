"""Settings, Clock, Camera, Audio Recorder and Clipper."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from datetime import UTC, datetime

from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.standins.widgets import attempt, button, field, of, row, written
from guiderail.envs.pocket.state import OpenPage, State
from guiderail.envs.pocket.ui import NOTHING, Cell, Page

RECORDS = f"{SHARED}/Android/data/com.dimowner.audiorecorder/files/Music/records"
SWITCHES = ("Wifi", "Bluetooth", "Airplane", "Location")
BRIGHTNESS = {"Lowest": 1, "Low": 64, "Medium": 128, "High": 192, "Highest": 255}


def _settings(state: State, front: OpenPage) -> Page:
    switches = [(Cell(s, ("settings.toggle", s), "toggle", state.is_on(s)),) for s in SWITCHES]
    return Page("Settings", (*switches, row("Brightness", ("go", "brightness", ""))))


def _brightness(state: State, front: OpenPage) -> Page:
    now = state.settings["system"].get("screen_brightness", "")
    rows = [(Cell(n, ("aosp.bright", str(v)), "check", now == str(v)),) for n, v in BRIGHTNESS.items()]
    return Page("Brightness", tuple(rows))


def _bright(state: State, value: str) -> None:
    state.settings["system"]["screen_brightness"] = value


# -------------------------------------------------------------------------------------------------- camera and recorder


def _camera(state: State, front: OpenPage) -> Page:
    return Page("Camera", (), footer=(button("Shutter", "aosp.photo"), button("Video", "go", "video", "")))


def _video(state: State, front: OpenPage) -> Page:
    going = front.fields.get("going") == "yes"
    return Page("Video", (), footer=(button("Stop" if going else "Record", "aosp.film"),))


def _photo(state: State) -> None:
    _keep(state, f"{SHARED}/Pictures/IMG_{_time(state)}.jpg")


def _film(state: State) -> None:
    if _stopped(state):
        _keep(state, f"{SHARED}/Movies/VID_{_time(state)}.mp4")


def _recorder(state: State, front: OpenPage) -> Page:
    going = front.fields.get("going") == "yes"
    rows = tuple(row(n) for n in state.files.names(RECORDS))
    return Page("Recorder", rows, footer=(button("Stop" if going else "Record", "aosp.record"),))


def _record(state: State) -> None:
    if _stopped(state):
        state.go("keep")


def _keep_as(state: State, front: OpenPage) -> Page:
    return Page("Save as", ((field(front, "name"),),), footer=(button("Save", "aosp.keep"),))


def _keep_record(state: State) -> None:
    name = written(state, "name").replace("/", "_")
    state.back()
    _keep(state, f"{RECORDS}/{name or 'Record_' + _time(state)}.m4a")


def _stopped(state: State) -> bool:
    """Start the recording of this page, or stop it. True when it was stopped."""
    if state.front is None:
        return False
    going = state.front.fields.pop("going", "") == "yes"
    if not going:
        state.front.fields["going"] = "yes"
    return going


def _time(state: State) -> str:
    return f"{datetime.fromtimestamp(state.now, UTC):%Y%m%d_%H%M%S}"


def _keep(state: State, path: str) -> None:
    """Write a file under a free name, so that nothing is overwritten."""
    stem, end = posixpath.splitext(path)
    free = next(p for p in (path, *(f"{stem}-{k}{end}" for k in range(1, 1000))) if p not in state.files)
    attempt(state, lambda: state.files.write(free, b"pocket", state.now))


# -------------------------------------------------------------------------------------------------- clock and clipboard


def _clock(state: State, front: OpenPage) -> Page:
    rows = (row("Stopwatch", ("go", "stopwatch", "")), row("Timer", ("go", "timer", "")))
    return Page("Clock", rows)


def _stopwatch(state: State, front: OpenPage) -> Page:
    running = of(state).stopwatch
    buttons = ("Pause", "Lap") if running else ("Start", "Reset")
    footer = tuple(button(b, "aosp.stopwatch", b) for b in buttons)
    return Page("Stopwatch", (row("Stopwatch", NOTHING), (Cell("running" if running else "00:00:00"),)), footer=footer)


def _press(state: State, name: str) -> None:
    if name in ("Start", "Pause"):
        of(state).stopwatch = name == "Start"


def _timer(state: State, front: OpenPage) -> Page:
    """A keypad: digits enter from the right."""
    digits = of(state).timer.rjust(6, "0")
    shown = f"{digits[:2]}h {digits[2:4]}m {digits[4:]}s"
    keys = [tuple(button(k, "aosp.digit", k) for k in keys) for keys in ("123", "456", "789", "0")]
    return Page("Timer", ((Cell(shown),), *keys), footer=(button("Clear", "aosp.clear"), button("Start", "aosp.start")))


def _digit(state: State, digit: str) -> None:
    of(state).timer = (of(state).timer + digit).lstrip("0")[-6:]


def _clear(state: State) -> None:
    of(state).timer = ""


def _clipper(state: State, front: OpenPage) -> Page:
    return Page("Clipper", ((field(front, "text"),),))


VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    ("Settings", "main"): _settings,
    ("Settings", "brightness"): _brightness,
    ("Camera", "main"): _camera,
    ("Camera", "video"): _video,
    ("Audio Recorder", "main"): _recorder,
    ("Audio Recorder", "keep"): _keep_as,
    ("Clock", "main"): _clock,
    ("Clock", "stopwatch"): _stopwatch,
    ("Clock", "timer"): _timer,
    ("Clipper", "main"): _clipper,
}
VERBS: dict[str, Callable[..., None]] = {
    "aosp.bright": _bright,
    "aosp.photo": _photo,
    "aosp.film": _film,
    "aosp.record": _record,
    "aosp.keep": _keep_record,
    "aosp.stopwatch": _press,
    "aosp.digit": _digit,
    "aosp.clear": _clear,
    "aosp.start": _clear,
}
