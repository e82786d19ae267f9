"""guiderail run: one goal, one agent, one device; watched in the terminal, and stopped by a key."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Screenshot
from guiderail.launch import show
from guiderail.launch.agents import AgentSpec
from guiderail.launch.before import check_out
from guiderail.launch.console.actors import build_actor
from guiderail.launch.console.attended import Attended
from guiderail.launch.console.devices import DeviceSpec, open_place
from guiderail.launch.console.keep import Keeper
from guiderail.launch.console.standing import Options
from guiderail.launch.console.view import turn_view, view
from guiderail.launch.going_on import STOPPED, after_scoring
from guiderail.launch.options import Out, Seed, Temperature, spread
from guiderail.rl.runs.log import holds_results

FAILED = 1
"""Exit code where the goal was checked and not reached, or the agent ran out of steps."""

CLOSING = 5.0
"""Seconds that the device has to be given back. A thread that still runs when the program ends can abort it."""

Device = Annotated[
    str,
    typer.Option(
        help="pocket, pocket:TEMPLATE, pocket-phone, pocket-adb, miniwob:PAGE, mobilegym:TASK, an adb serial or HOST:PORT, a "
        "world of your own"
    ),
]


@spread
def run(
    who: AgentSpec,
    goal: Annotated[
        str, typer.Argument(help="what to do; leave it out where the device has its own", metavar="GOAL")
    ] = "",
    device: Device = "pocket",
    max_steps: Annotated[int | None, typer.Option(help="most steps; default: the task's own, else 30", min=1)] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm", help="ask before touches that send, call, pay, delete, ...; default: on phones"
        ),
    ] = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    apps: Annotated[Path | None, typer.Option(help='for adb: JSON object {"app name": "package/activity"}')] = None,
    settle: Annotated[float, typer.Option(help="for adb: seconds the screen needs after an action")] = 1.0,
    picture: Annotated[
        bool, typer.Option("--picture", help="show each screen in the terminal, in half blocks")
    ] = False,
    out: Out = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object per line: each step, then the result")
    ] = False,
) -> None:
    """Let an agent do one thing on a device. Ctrl-C stops it at once."""
    _check_out(out)
    spec = DeviceSpec(device, goal, seed, apps, settle)
    woken = threading.Event()
    attempt = Attended(
        partial(open_place, spec), partial(build_actor, who, temperature, seed), Options(max_steps, confirm), woken.set
    )
    attempt.run()
    with _interrupts() as ctrl_c:
        try:
            _watch(attempt, woken, as_json, picture, ctrl_c)
        except KeyboardInterrupt:
            attempt.stop()
    keeper = Keeper(out) if out else None
    try:
        kept = keeper is not None and keeper.keep(attempt)
    finally:
        if keeper:
            keeper.close()
        attempt.close()
    try:
        if attempt.note:
            raise SetupError(attempt.note)
        _tell(attempt, as_json, out if kept else None)
    finally:
        attempt.join(CLOSING)


def _check_out(out: Path | None) -> None:
    """Raises SetupError where the attempt could not be kept. There is no --resume: an attempt is one piece."""
    check_out(out, None)
    if out is not None and holds_results(out):
        raise SetupError(f"{out} already holds a run; give another --out")


@dataclass
class _CtrlC:
    """pressed: the attempt is to be stopped. raises: nothing is held that an exception could leave locked."""

    pressed: bool = False
    raises: bool = False


@contextmanager
def _interrupts() -> Iterator[_CtrlC]:
    """Ctrl-C leaves a mark. As an exception it could come while this thread holds the lock of an `Event`, and then whoever
    sets that event waits for ever. The second one is an exception."""
    ctrl_c = _CtrlC()

    def heard(*_: object) -> None:
        if ctrl_c.raises or ctrl_c.pressed:
            raise KeyboardInterrupt
        ctrl_c.pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield ctrl_c
        return
    before = signal.signal(signal.SIGINT, heard)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(attempt: Attended, woken: threading.Event, as_json: bool, picture: bool, ctrl_c: _CtrlC) -> None:
    """Print each step once it is known, until the attempt ends."""
    shown, started = 0, False
    while True:
        woken.wait(0.2)
        woken.clear()
        if ctrl_c.pressed:
            attempt.stop()
        with attempt.lock:
            turns, question, over = list(attempt.turns), attempt.question, attempt.phase == "over"
            given_up = attempt.phase == "ready" and not attempt.running  # the agent cannot go on, or was not allowed to
        if not started and turns and not as_json:
            started = True
            show.out.print(Text(f"{attempt.goal}", style="bold"))
        for turn in turns[shown:]:
            if as_json:
                _line({"step": turn.index, **turn_view(turn, attempt)})
            else:
                if picture:
                    show.out.print(half_blocks(turn.screen.screenshot))
                show.out.print(step_text(turn_view(turn, attempt)))
        shown = len(turns)
        if given_up:
            attempt.stop("it was not allowed to go on")
        if over or given_up:
            return
        if question:
            ctrl_c.raises = True
            allowed = _asked(question, as_json)
            ctrl_c.raises = False
            attempt.answer(allowed)
            while attempt.question and attempt.phase == "asking":
                woken.wait(0.05)
                woken.clear()


def step_text(turn: dict[str, Any]) -> Text:
    """Number, thought and action of a step, on one or two lines."""
    action = turn["action"]["label"] if turn["action"] else f"nothing: {turn['note']}"
    at = turn["action"].get("at") if turn["action"] else None
    place = f"  ({at[0]:.0%} from the left, {at[1]:.0%} from the top)" if at else ""
    text = Text()
    if turn["thought"]:
        text.append(f"{turn['index']:3}  {' '.join(turn['thought'].split())}\n", style="dim")
    text.append("     " if turn["thought"] else f"{turn['index']:3}  ")
    text.append(action, style="bold")
    text.append(place, style="dim")
    return text


def half_blocks(screenshot: Screenshot, columns: int = 32) -> Text:
    """The screen in the terminal: each character shows two pixels, one above the other."""
    image = screenshot.image()
    rows = max(1, round(columns * image.height / image.width / 2))
    pixels = np.asarray(image.resize((columns, 2 * rows)))
    text = Text()
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style=f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})")
        text.append("\n")
    return text


def _asked(question: str, as_json: bool) -> bool:
    """The person's answer; no where nobody can be asked."""
    if as_json:
        _line({"question": question})
    if not sys.stdin.isatty():
        show.err.print(f"{question} Nobody can answer here, so no; --no-confirm allows everything.")
        return False
    show.err.print(f"{question} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _line(value: dict[str, Any]) -> None:
    show.result(value, True, Text())
    sys.stdout.flush()


def _tell(attempt: Attended, as_json: bool, kept: Path | None) -> None:
    found = view(attempt)
    result = {name: found[name] for name in ("unit", "goal", "agent", "ended", "success", "reason")}
    result |= {"steps": len(found["turns"]), "run": str(kept) if kept else None}
    if as_json:
        _line({"result": result})
    else:
        checked = {True: "the goal is reached", False: "the goal is not reached", None: "nobody has checked the goal"}
        ended = str(found["ended"]).replace("_", " ")
        reason = f": {found['reason']}" if found["reason"] else ""
        show.out.print(Text(f"{ended}{reason}; {checked[found['success']]}", style="bold"))
    if kept is not None:
        after_scoring({"n": 1, "unscored": 0}, kept)
    if found["ended"] == "stopped":
        raise typer.Exit(STOPPED)
    if found["ended"] == "crashed":
        raise typer.Exit(2)
    if found["success"] is False:
        raise typer.Exit(FAILED)
