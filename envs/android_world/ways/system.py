"""Settings, clock, camera, recorder, clipboard."""

from __future__ import annotations

from collections.abc import Callable

from guiderail.agent.types import LongPress, Open
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways, field, tap, taps, write


def _switch(seen: Seen, name: str, on: bool) -> Way:
    toggle = next(e for e in seen if e.text == name)
    return seen if toggle.checked == on else (yield from tap(seen, name))


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
    return (yield from tap(seen, "Brightness", "Highest" if p["max_or_min"] == "max" else "Lowest"))


def _open_app(seen: Seen, p: Params) -> Way:
    return (yield Open(p["app_name"]))


def _wifi_and_app(seen: Seen, p: Params) -> Way:
    seen = yield from _settings(Wifi="on")(seen, p)
    return (yield from _open_app(seen, p))


def _copy(seen: Seen, p: Params) -> Way:
    seen = yield Open("Clipper")
    seen = yield from write(seen, p["clipboard_content"])
    seen = yield LongPress(field(seen, 0), 1.0)
    return (yield from tap(seen, "Copy"))


def _timer(seen: Seen, p: Params) -> Way:
    digits = f"{p['hours']:02d}{p['minutes']:02d}{p['seconds']:02d}".lstrip("0")
    seen = yield Open("Clock")
    return (yield from tap(seen, "Timer", *digits))


def _record_as(seen: Seen, p: Params) -> Way:
    seen = yield Open("Audio Recorder")
    seen = yield from tap(seen, "Record", "Stop")
    seen = yield from write(seen, p["file_name"])
    return (yield from tap(seen, "Save"))


_TOGGLES = {
    f"System{name}Turn{side}{verify}": _settings(**{name: "on_or_off"})
    for name in ("Wifi", "Bluetooth")
    for side in ("On", "Off")
    for verify in ("", "Verify")
}

WAYS: Ways = {
    **_TOGGLES,
    **{f"SystemBrightness{side}{verify}": _brightness for side in ("Max", "Min") for verify in ("", "Verify")},
    "OpenAppTaskEval": _open_app,
    "TurnOffWifiAndTurnOnBluetooth": _settings(Wifi="off", Bluetooth="on"),
    "TurnOnWifiAndOpenApp": _wifi_and_app,
    "SystemCopyToClipboard": _copy,
    "CameraTakePhoto": taps("Camera", "Shutter"),
    "CameraTakeVideo": taps("Camera", "Video", "Record", "Stop"),
    "ClockStopWatchPausedVerify": taps("Clock", "Stopwatch"),
    "ClockStopWatchRunning": taps("Clock", "Stopwatch", "Start"),
    "ClockTimerEntry": _timer,
    "AudioRecorderRecordAudio": taps("Audio Recorder", "Record", "Stop", "Save"),
    "AudioRecorderRecordAudioWithFileName": _record_as,
}
