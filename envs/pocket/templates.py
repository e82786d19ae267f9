"""The table of templates: what can be asked for on a phone.

Memory templates are those where the screen does not show what was done or read before, so that the next right action
depends on what the agent itself did or noted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from guiderail.envs.pocket.expert import Want
from guiderail.envs.pocket.state import State
from guiderail.envs.pocket.wants import (
    Answers,
    Params,
    add_done,
    add_want,
    alarm_drop_want,
    alarm_flip_draw,
    alarm_flip_want,
    alarm_want,
    ask_want,
    buy_want,
    call_and_add_done,
    call_and_add_draw,
    call_and_add_want,
    call_done,
    call_want,
    code_note_want,
    del_note_want,
    drop_note_want,
    gone,
    like_want,
    message_draw,
    message_two_draw,
    message_two_want,
    message_want,
    new_time,
    note_draw,
    note_want,
    pick,
    play_want,
    quantity_draw,
    queue_want,
    ring_draw,
    ring_want,
    search_want,
    share_want,
    star_want,
    toggle_done,
    toggle_draw,
    toggle_want,
)


@dataclass(frozen=True)
class Template:
    """goal: a format string over the parameters. app: where it happens; a disturbed start opens another one."""

    name: str
    app: str
    goal: str
    draw: Callable[[random.Random, State], dict[str, str]]
    want: Callable[[State, Params, Answers], Want | None]
    done: Callable[[State, Params, Answers], bool]
    memory: bool = False
    held_out: bool = False


TEMPLATES: tuple[Template, ...] = (
    Template("toggle", "Settings", "Turn {a_to} {a}.", toggle_draw("a"), toggle_want, toggle_done),
    Template(
        "toggle_two",
        "Settings",
        "Turn {a_to} {a} and turn {b_to} {b}.",
        toggle_draw("a", "b"),
        toggle_want,
        toggle_done,
    ),
    Template(
        "ringtone",
        "Settings",
        "Open Settings and set the ringtone to {a}.",
        ring_draw,
        ring_want,
        lambda state, p, _: state.settings["system"].get("ringtone") == p["a"],
    ),
    Template(
        "update",
        "Settings",
        "Check for an update.",
        lambda rng, state: {},
        lambda state, p, _: None if state.updates else Want("Settings", ops=(("settings.update",),)),
        lambda state, p, _: state.updates > 0,
    ),
    Template("call", "Contacts", "Call {a}.", pick("people", "a"), call_want, call_done),
    Template("call_two", "Contacts", "Call {a} and {b}.", pick("people", "a", "b"), call_want, call_done, memory=True),
    Template(
        "star",
        "Contacts",
        "Open Contacts and star {a}.",
        pick("people", "a"),
        star_want,
        lambda state, p, _: state.stars == [p["a"]],
    ),
    Template(
        "message",
        "Messages",
        "Send {t} to {a}.",
        message_draw,
        message_want,
        lambda state, p, _: (p["a"], p["t"]) in state.sent,
    ),
    Template(
        "message_two",
        "Messages",
        "Send {t} to {a} and {b}.",
        message_two_draw,
        message_two_want,
        lambda state, p, _: all((p[n], p["t"]) in state.sent for n in ("a", "b")),
        memory=True,
    ),
    Template(
        "call_and_add",
        "Contacts",
        "Call {a} and add {t} to the basket.",
        call_and_add_draw,
        call_and_add_want,
        call_and_add_done,
        memory=True,
    ),
    Template(
        "share_code",
        "Messages",
        "Send the code of {a} to {b}.",
        pick("people", "a", "b"),
        share_want,
        lambda state, p, _: (p["b"], state.codes[p["a"]]) in state.sent,
        memory=True,
    ),
    Template(
        "tell_code",
        "Messages",
        "What is the code of {a}?",
        pick("people", "a"),
        ask_want,
        lambda state, p, answers: list(answers)[-1:] == [state.codes[p["a"]]],
    ),
    Template(
        "note",
        "Notes",
        "Write a note with the title {a}.",
        note_draw,
        note_want,
        lambda state, p, _: p["a"] in state.notes,
    ),
    Template(
        "code_note",
        "Notes",
        "Write the code of {a} as a note title.",
        pick("people", "a"),
        code_note_want,
        lambda state, p, _: state.codes[p["a"]] in state.notes,
        memory=True,
    ),
    Template(
        "delete_note", "Notes", "Open the note {a} and delete it.", pick("notes", "a"), del_note_want, gone("notes")
    ),
    Template(
        "drop_note", "Notes", "Hold the note {a} and delete it.", pick("notes", "a"), drop_note_want, gone("notes")
    ),
    Template(
        "alarm",
        "Clock",
        "Set an alarm at {a}.",
        new_time,
        alarm_want,
        lambda state, p, _: state.alarms.get(p["a"]) is True,
    ),
    Template(
        "flip_alarm",
        "Clock",
        "Turn {a_to} the alarm at {a}.",
        alarm_flip_draw,
        alarm_flip_want,
        lambda state, p, _: state.alarms.get(p["a"]) is (p["a_to"] == "on"),
    ),
    Template("drop_alarm", "Clock", "Delete the alarm at {a}.", pick("alarms", "a"), alarm_drop_want, gone("alarms")),
    Template("add", "Shop", "Add {a} to the basket.", pick("goods", "a"), add_want, add_done),
    Template(
        "add_two", "Shop", "Add {a} and {b} to the basket.", pick("goods", "a", "b"), add_want, add_done, memory=True
    ),
    Template(
        "add_three",
        "Shop",
        "Add {a} and {b} and {c} to the basket.",
        pick("goods", "a", "b", "c"),
        add_want,
        add_done,
        memory=True,
    ),
    Template("quantity", "Shop", "Add {a} to the basket {times}.", quantity_draw, add_want, add_done, memory=True),
    Template("buy", "Shop", "Buy {a}.", pick("goods", "a"), buy_want, lambda state, p, _: state.bought == {p["a"]: 1}),
    Template(
        "search",
        "Shop",
        "Open Shop and search for {a}.",
        pick("goods", "a"),
        search_want,
        lambda state, p, _: state.searches[-1:] == [p["a"]],
    ),
    Template(
        "play",
        "Music",
        "Play {a}.",
        pick("songs", "a"),
        play_want,
        lambda state, p, _: state.playing == p["a"],
        held_out=True,
    ),
    Template(
        "queue_two",
        "Music",
        "Put {a} and {b} into the queue.",
        pick("songs", "a", "b"),
        queue_want,
        lambda state, p, _: sorted(state.queue) == sorted([p["a"], p["b"]]),
        memory=True,
        held_out=True,
    ),
    Template(
        "like",
        "Music",
        "Like {a}.",
        pick("songs", "a"),
        like_want,
        lambda state, p, _: state.liked == [p["a"]],
        held_out=True,
    ),
)
