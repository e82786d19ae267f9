"""What one can be asked to do on a phone: goals, what is wanted next, and when it is done.

Each template is three functions of plain parameters: `draw` picks them for a phone, `want` says from the phone's state
(and what was answered) what should happen next, `done` checks the state. Memory templates are those where the screen
does not show what was done or read before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envs.pocket.expert import Want
from envs.pocket.phone import Phone, State
from envs.pocket.ui import Op
from envs.pocket.words import TIMES, TOGGLES

Params = Mapping[str, str]
Answers = Sequence[str]


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


def _pick(attribute: str, *names: str) -> Callable[[random.Random, State], dict[str, str]]:
    """Draw distinct members of one of the phone's lists."""

    def draw(rng: random.Random, state: State) -> dict[str, str]:
        return dict(zip(names, rng.sample(sorted(getattr(state, attribute)), len(names)), strict=True))

    return draw


def _already(done: Sequence[str]) -> str:
    return f"done {' '.join(done)} now" if done else ""


# ---------------------------------------------------------------------------------------------------------- Settings


def _toggle_draw(*names: str) -> Callable[[random.Random, State], dict[str, str]]:
    """Toggles with the state they should get: always the opposite of what they are."""

    def draw(rng: random.Random, state: State) -> dict[str, str]:
        params = _pick("toggles", *names)(rng, state)
        for name in names:
            space, key = TOGGLES[params[name]]
            params[f"{name}_to"] = "off" if state.settings[space][key] != "0" else "on"
        return params

    return draw


def _toggles_left(phone: Phone, p: Params) -> list[str]:
    return [p[n] for n in ("a", "b") if n in p and phone.is_on(p[n]) != (p[f"{n}_to"] == "on")]


def _toggle_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    left = _toggles_left(phone, p)
    return Want("Settings", ops=(("settings.toggle", left[0]),)) if left else None


def _toggle_done(phone: Phone, p: Params, _: Answers) -> bool:
    return not _toggles_left(phone, p)


def _ring_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if phone.state.settings["system"].get("ringtone") == p["a"]:
        return None
    return Want("Settings", (("sound", ""),), (("settings.ring", p["a"]),), use_open=True)


def _ring_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice([r for r in state.ringtones if r != state.settings["system"]["ringtone"]])}


# ------------------------------------------------------------------------------------------- Contacts and Messages


def _calls_left(phone: Phone, p: Params) -> tuple[list[str], list[str], list[str]]:
    """(still to call, called by mistake, called)"""
    wanted = [p[n] for n in ("a", "b") if n in p]
    extra = [c for k, c in enumerate(phone.state.calls) if c not in wanted or c in phone.state.calls[:k]]
    return [w for w in wanted if w not in phone.state.calls], extra, [w for w in wanted if w in phone.state.calls]


def _call_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    left, extra, called = _calls_left(phone, p)
    if extra:
        return Want("Contacts", (("calls", ""),), (("contacts.forget", extra[0]),), say="undo")
    if not left:
        return None
    target = _one_in_front(phone, left)
    return Want("Contacts", (("person", target),), (("contacts.call", target),), say=_already(called))


def _one_in_front(phone: Phone, names: Sequence[str]) -> str:
    """Of several possible orders take the one that starts where we are."""
    here = phone.screen.arg if phone.screen else ""
    return here if here in names else names[0]


def _call_done(phone: Phone, p: Params, _: Answers) -> bool:
    left, extra, _called = _calls_left(phone, p)
    return not left and not extra


def _star_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    extra = [s for s in phone.state.stars if s != p["a"]]
    if extra:
        return Want("Contacts", (("person", extra[0]),), (("contacts.star", extra[0]),), say="undo", use_open=True)
    if p["a"] in phone.state.stars:
        return None
    return Want("Contacts", (("person", p["a"]),), (("contacts.star", p["a"]),), use_open=True)


def _compose(to: str, text: str, say: str = "") -> Want:
    return Want("Messages", (("chat", to),), (("focus", "text"), ("messages.send", to)), text=text, say=say)


def _message_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice(sorted(state.people)), "t": rng.choice(sorted(state.goods))}


def _message_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    return None if (p["a"], p["t"]) in phone.state.sent else _compose(p["a"], p["t"])


def _read(name: str) -> Want:
    return Want("Messages", (("chat", name),), (("read", name),))


def _share_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    code = phone.state.codes[p["a"]]
    if (p["b"], code) in phone.state.sent:
        return None
    return _compose(p["b"], code, f"code is {code}") if p["a"] in phone.state.read else _read(p["a"])


def _ask_want(phone: Phone, p: Params, answers: Answers) -> Want | None:
    code = phone.state.codes[p["a"]]
    if code in answers:
        return None
    if p["a"] not in phone.state.read:
        return _read(p["a"])
    return Want("Messages", (("chat", p["a"]),), answer=code, say=f"code is {code}")


# -------------------------------------------------------------------------------------------------------------- Notes


def _note_draw(rng: random.Random, state: State) -> dict[str, str]:
    from envs.pocket.words import EASY

    return {"a": rng.choice([t for t in EASY.titles if t not in state.notes])}


def _write(title: str, say: str = "") -> Want:
    return Want("Notes", (("new", ""),), (("focus", "title"), ("notes.save",)), text=title, say=say)


def _note_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    return None if p["a"] in phone.state.notes else _write(p["a"])


def _code_note_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    code = phone.state.codes[p["a"]]
    if code in phone.state.notes:
        return None
    return _write(code, f"code is {code}") if p["a"] in phone.state.read else _read(p["a"])


def _del_note_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if p["a"] not in phone.state.notes:
        return None
    return Want("Notes", (("note", p["a"]),), (("notes.delete", p["a"]),), menu=True)


def _drop_note_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if p["a"] not in phone.state.notes:
        return None
    return Want("Notes", (), (("notes.ask", p["a"]), ("notes.delete", p["a"])), hold=True)


# -------------------------------------------------------------------------------------------------------------- Clock


def _new_time(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice([t for t in TIMES if t not in state.alarms])}


def _alarm_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if p["a"] not in phone.state.alarms:
        return Want("Clock", (("add", ""),), (("clock.add", p["a"]),))
    return None if phone.state.alarms[p["a"]] else Want("Clock", ops=(("clock.toggle", p["a"]),))


def _alarm_flip_draw(rng: random.Random, state: State) -> dict[str, str]:
    time = rng.choice(sorted(state.alarms))
    return {"a": time, "a_to": "off" if state.alarms[time] else "on"}


def _alarm_flip_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if p["a"] not in phone.state.alarms:
        return Want("Clock", (("add", ""),), (("clock.add", p["a"]),))
    if phone.state.alarms[p["a"]] == (p["a_to"] == "on"):
        return None
    return Want("Clock", ops=(("clock.toggle", p["a"]),))


def _alarm_drop_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if p["a"] not in phone.state.alarms:
        return None
    return Want("Clock", (), (("clock.ask", p["a"]), ("clock.remove", p["a"])), hold=True)


# --------------------------------------------------------------------------------------------------------------- Shop


def _basket_wish(p: Params) -> dict[str, int]:
    return {p[n]: int(p.get("count", "1")) for n in ("a", "b", "c") if n in p}


def _add_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    """Any order; what is too much is taken out again."""
    wish, basket = _basket_wish(p), phone.state.basket
    extra = [g for g, n in basket.items() if n > wish.get(g, 0)]
    if extra:
        return Want("Shop", (("basket", ""),), (("shop.drop", extra[0]),), say="too much")
    left = [g for g, n in wish.items() if basket.get(g, 0) < n]
    if not left:
        return None
    if "count" in p:
        say = f"{basket.get(left[0], 0)} done" if basket.get(left[0]) else ""
    else:
        say = _already([g for g in wish if g in basket])
    return Want("Shop", ops=(("shop.add", left[0]),), say=say)


def _add_done(phone: Phone, p: Params, _: Answers) -> bool:
    return phone.state.basket == _basket_wish(p)


def _quantity_draw(rng: random.Random, state: State) -> dict[str, str]:
    count = rng.choice([2, 3])
    return {**_pick("goods", "a")(rng, state), "count": str(count), "times": {2: "twice", 3: "three times"}[count]}


def _buy_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if phone.state.bought == {p["a"]: 1}:
        return None
    before = _add_want(phone, p, ())
    return before or Want("Shop", (("basket", ""),), (("shop.ask",), ("shop.pay",)))


def _search_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if phone.state.searches[-1:] == [p["a"]]:
        return None
    op: Op = ("focus", "query")
    return Want("Shop", (("find", ""),), (op,), text=p["a"], enter=True, use_open=True)


# ---------------------------------------------------------------------------------------------------- held-out: Music


def _play_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    if phone.state.playing == p["a"]:
        return None
    return Want("Music", (("song", p["a"]),), (("music.play", p["a"]),))


def _queue_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    wanted, queue = [p["a"], p["b"]], phone.state.queue
    extra = [q for k, q in enumerate(queue) if q not in wanted or q in queue[:k]]
    if extra:
        return Want("Music", (("queue", ""),), (("music.drop", extra[0]),), say="undo")
    left = [w for w in wanted if w not in queue]
    if not left:
        return None
    target = _one_in_front(phone, left)
    return Want(
        "Music", (("song", target),), (("music.queue", target),), say=_already([w for w in wanted if w in queue])
    )


def _like_want(phone: Phone, p: Params, _: Answers) -> Want | None:
    extra = [s for s in phone.state.liked if s != p["a"]]
    target = extra[0] if extra else p["a"]
    if not extra and p["a"] in phone.state.liked:
        return None
    return Want("Music", (("song", target),), (("music.like", target),), say="undo" if extra else "")


def _gone(attribute: str) -> Callable[[Phone, Params, Answers], bool]:
    return lambda phone, p, _: p["a"] not in getattr(phone.state, attribute)


TEMPLATES: tuple[Template, ...] = (
    Template("toggle", "Settings", "Turn {a_to} {a}.", _toggle_draw("a"), _toggle_want, _toggle_done),
    Template(
        "toggle_two",
        "Settings",
        "Turn {a_to} {a} and turn {b_to} {b}.",
        _toggle_draw("a", "b"),
        _toggle_want,
        _toggle_done,
    ),
    Template(
        "ringtone",
        "Settings",
        "Open Settings and set the ringtone to {a}.",
        _ring_draw,
        _ring_want,
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
    Template("call", "Contacts", "Call {a}.", _pick("people", "a"), _call_want, _call_done),
    Template(
        "call_two", "Contacts", "Call {a} and {b}.", _pick("people", "a", "b"), _call_want, _call_done, memory=True
    ),
    Template(
        "star",
        "Contacts",
        "Open Contacts and star {a}.",
        _pick("people", "a"),
        _star_want,
        lambda phone, p, _: phone.state.stars == [p["a"]],
    ),
    Template(
        "message",
        "Messages",
        "Send {t} to {a}.",
        _message_draw,
        _message_want,
        lambda phone, p, _: (p["a"], p["t"]) in phone.state.sent,
    ),
    Template(
        "share_code",
        "Messages",
        "Send the code of {a} to {b}.",
        _pick("people", "a", "b"),
        _share_want,
        lambda phone, p, _: (p["b"], phone.state.codes[p["a"]]) in phone.state.sent,
        memory=True,
    ),
    Template(
        "tell_code",
        "Messages",
        "What is the code of {a}?",
        _pick("people", "a"),
        _ask_want,
        lambda phone, p, answers: list(answers)[-1:] == [phone.state.codes[p["a"]]],
    ),
    Template(
        "note",
        "Notes",
        "Write a note with the title {a}.",
        _note_draw,
        _note_want,
        lambda phone, p, _: p["a"] in phone.state.notes,
    ),
    Template(
        "code_note",
        "Notes",
        "Write the code of {a} as a note title.",
        _pick("people", "a"),
        _code_note_want,
        lambda phone, p, _: phone.state.codes[p["a"]] in phone.state.notes,
        memory=True,
    ),
    Template(
        "delete_note", "Notes", "Open the note {a} and delete it.", _pick("notes", "a"), _del_note_want, _gone("notes")
    ),
    Template(
        "drop_note", "Notes", "Hold the note {a} and delete it.", _pick("notes", "a"), _drop_note_want, _gone("notes")
    ),
    Template(
        "alarm",
        "Clock",
        "Set an alarm at {a}.",
        _new_time,
        _alarm_want,
        lambda phone, p, _: phone.state.alarms.get(p["a"]) is True,
    ),
    Template(
        "flip_alarm",
        "Clock",
        "Turn {a_to} the alarm at {a}.",
        _alarm_flip_draw,
        _alarm_flip_want,
        lambda phone, p, _: phone.state.alarms.get(p["a"]) is (p["a_to"] == "on"),
    ),
    Template(
        "drop_alarm", "Clock", "Remove the alarm at {a}.", _pick("alarms", "a"), _alarm_drop_want, _gone("alarms")
    ),
    Template("add", "Shop", "Add {a} to the basket.", _pick("goods", "a"), _add_want, _add_done),
    Template(
        "add_two", "Shop", "Add {a} and {b} to the basket.", _pick("goods", "a", "b"), _add_want, _add_done, memory=True
    ),
    Template(
        "add_three",
        "Shop",
        "Add {a} and {b} and {c} to the basket.",
        _pick("goods", "a", "b", "c"),
        _add_want,
        _add_done,
        memory=True,
    ),
    Template("quantity", "Shop", "Add {a} to the basket {times}.", _quantity_draw, _add_want, _add_done, memory=True),
    Template(
        "buy", "Shop", "Buy {a}.", _pick("goods", "a"), _buy_want, lambda phone, p, _: phone.state.bought == {p["a"]: 1}
    ),
    Template(
        "search",
        "Shop",
        "Open Shop and search for {a}.",
        _pick("goods", "a"),
        _search_want,
        lambda phone, p, _: phone.state.searches[-1:] == [p["a"]],
    ),
    Template(
        "play",
        "Music",
        "Play {a}.",
        _pick("songs", "a"),
        _play_want,
        lambda phone, p, _: phone.state.playing == p["a"],
        held_out=True,
    ),
    Template(
        "queue_two",
        "Music",
        "Put {a} and {b} into the queue.",
        _pick("songs", "a", "b"),
        _queue_want,
        lambda phone, p, _: sorted(phone.state.queue) == sorted([p["a"], p["b"]]),
        memory=True,
        held_out=True,
    ),
    Template(
        "like",
        "Music",
        "Like {a}.",
        _pick("songs", "a"),
        _like_want,
        lambda phone, p, _: phone.state.liked == [p["a"]],
        held_out=True,
    ),
)
