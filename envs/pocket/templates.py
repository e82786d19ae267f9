"""What one can be asked to do on a phone: the table of templates.

Memory templates are those where the screen does not show what was done or read before, so that the next right action
depends on what the agent itself did or noted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from envs.pocket.expert import Want
from envs.pocket.phone import Phone
from envs.pocket.state import State
from envs.pocket.wants import (
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
    """goal is a format string over the parameters. app: where it happens (start noise prefers another one)."""

    name: str
    app: str
    goal: str
    draw: Callable[[random.Random, State], dict[str, str]]
    want: Callable[[Phone, Params, Answers], Want | None]
    done: Callable[[Phone, Params, Answers], bool]
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
        lambda phone, p, _: phone.state.settings["system"].get("ringtone") == p["a"],
    ),
    Template(
        "update",
        "Settings",
        "Check for an update.",
        lambda rng, state: {},
        lambda phone, p, _: None if phone.state.updates else Want("Settings", ops=(("settings.update",),)),
        lambda phone, p, _: phone.state.updates > 0,
    ),
    Template("call", "Contacts", "Call {a}.", pick("people", "a"), call_want, call_done),
    Template("call_two", "Contacts", "Call {a} and {b}.", pick("people", "a", "b"), call_want, call_done, memory=True),
    Template(
        "star",
        "Contacts",
        "Open Contacts and star {a}.",
        pick("people", "a"),
        star_want,
        lambda phone, p, _: phone.state.stars == [p["a"]],
    ),
    Template(
        "message",
        "Messages",
        "Send {t} to {a}.",
        message_draw,
        message_want,
        lambda phone, p, _: (p["a"], p["t"]) in phone.state.sent,
    ),
    Template(
        "message_two",
        "Messages",
        "Send {t} to {a} and {b}.",
        message_two_draw,
        message_two_want,
        lambda phone, p, _: all((p[n], p["t"]) in phone.state.sent for n in ("a", "b")),
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
        lambda phone, p, _: (p["b"], phone.state.codes[p["a"]]) in phone.state.sent,
        memory=True,
    ),
    Template(
        "tell_code",
        "Messages",
        "What is the code of {a}?",
        pick("people", "a"),
        ask_want,
        lambda phone, p, answers: list(answers)[-1:] == [phone.state.codes[p["a"]]],
    ),
    Template(
        "note",
        "Notes",
        "Write a note with the title {a}.",
        note_draw,
        note_want,
        lambda phone, p, _: p["a"] in phone.state.notes,
    ),
    Template(
        "code_note",
        "Notes",
        "Write the code of {a} as a note title.",
        pick("people", "a"),
        code_note_want,
        lambda phone, p, _: phone.state.codes[p["a"]] in phone.state.notes,
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
        lambda phone, p, _: phone.state.alarms.get(p["a"]) is True,
    ),
    Template(
        "flip_alarm",
        "Clock",
        "Turn {a_to} the alarm at {a}.",
        alarm_flip_draw,
        alarm_flip_want,
        lambda phone, p, _: phone.state.alarms.get(p["a"]) is (p["a_to"] == "on"),
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
    Template(
        "buy", "Shop", "Buy {a}.", pick("goods", "a"), buy_want, lambda phone, p, _: phone.state.bought == {p["a"]: 1}
    ),
    Template(
        "search",
        "Shop",
        "Open Shop and search for {a}.",
        pick("goods", "a"),
        search_want,
        lambda phone, p, _: phone.state.searches[-1:] == [p["a"]],
    ),
    Template(
        "play",
        "Music",
        "Play {a}.",
        pick("songs", "a"),
        play_want,
        lambda phone, p, _: phone.state.playing == p["a"],
        held_out=True,
    ),
    Template(
        "queue_two",
        "Music",
        "Put {a} and {b} into the queue.",
        pick("songs", "a", "b"),
        queue_want,
        lambda phone, p, _: sorted(phone.state.queue) == sorted([p["a"], p["b"]]),
        memory=True,
        held_out=True,
    ),
    Template(
        "like",
        "Music",
        "Like {a}.",
        pick("songs", "a"),
        like_want,
        lambda phone, p, _: phone.state.liked == [p["a"]],
        held_out=True,
    ),
)
