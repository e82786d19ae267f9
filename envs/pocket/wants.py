"""What is wanted next on a phone, for each kind of task, from the phone's state alone.

A `*_want` returns None when nothing is left to do; mistakes that can be undone are undone first. A `*_draw` picks the
parameters of a task for a phone. `say` holds what the screen will not show: what is done, what was read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from guiderail.envs.pocket.expert import Want
from guiderail.envs.pocket.state import State
from guiderail.envs.pocket.ui import Op
from guiderail.envs.pocket.words import EASY, TIMES, TOGGLES

Params = Mapping[str, str]
Answers = Sequence[str]


def pick(attribute: str, *names: str) -> Callable[[random.Random, State], dict[str, str]]:
    """Draw distinct members of one of the phone's lists."""

    def draw(rng: random.Random, state: State) -> dict[str, str]:
        return dict(zip(names, rng.sample(sorted(getattr(state, attribute)), len(names)), strict=True))

    return draw


def _already(done: Sequence[str]) -> str:
    return f"done {' '.join(done)} now" if done else ""


# ---------------------------------------------------------------------------------------------------------- Settings


def toggle_draw(*names: str) -> Callable[[random.Random, State], dict[str, str]]:
    """Toggles and the state they should get: the opposite of their present one."""

    def draw(rng: random.Random, state: State) -> dict[str, str]:
        params = pick("toggles", *names)(rng, state)
        for name in names:
            space, key = TOGGLES[params[name]]
            params[f"{name}_to"] = "off" if state.settings[space][key] != "0" else "on"
        return params

    return draw


def _toggles_left(state: State, p: Params) -> list[str]:
    return [p[n] for n in ("a", "b") if n in p and state.is_on(p[n]) != (p[f"{n}_to"] == "on")]


def toggle_want(state: State, p: Params, _: Answers) -> Want | None:
    left = _toggles_left(state, p)
    return Want("Settings", ops=(("settings.toggle", left[0]),)) if left else None


def toggle_done(state: State, p: Params, _: Answers) -> bool:
    return not _toggles_left(state, p)


def ring_want(state: State, p: Params, _: Answers) -> Want | None:
    if state.settings["system"].get("ringtone") == p["a"]:
        return None
    return Want("Settings", (("sound", ""),), (("settings.ring", p["a"]),), use_open=True)


def ring_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice([r for r in state.ringtones if r != state.settings["system"]["ringtone"]])}


# ------------------------------------------------------------------------------------------- Contacts and Messages


def _calls_left(state: State, p: Params) -> tuple[list[str], list[str], list[str]]:
    """(still to call, called by mistake, called)"""
    wanted = [p[n] for n in ("a", "b") if n in p]
    extra = [c for k, c in enumerate(state.calls) if c not in wanted or c in state.calls[:k]]
    return [w for w in wanted if w not in state.calls], extra, [w for w in wanted if w in state.calls]


def call_want(state: State, p: Params, _: Answers) -> Want | None:
    left, extra, called = _calls_left(state, p)
    if extra:
        return Want("Contacts", (("calls", ""),), (("contacts.forget", extra[0]),), say="undo")
    if not left:
        return None
    target = _one_in_front(state, left)
    return Want("Contacts", (("person", target),), (("contacts.call", target),), say=_already(called))


def _one_in_front(state: State, names: Sequence[str]) -> str:
    """The name whose page is open, or else the first: either order leads to the goal."""
    here = state.front.arg if state.front else ""
    return here if here in names else names[0]


def call_done(state: State, p: Params, _: Answers) -> bool:
    left, extra, _called = _calls_left(state, p)
    return not left and not extra


def star_want(state: State, p: Params, _: Answers) -> Want | None:
    extra = [s for s in state.stars if s != p["a"]]
    if extra:
        return Want("Contacts", (("person", extra[0]),), (("contacts.star", extra[0]),), say="undo", use_open=True)
    if p["a"] in state.stars:
        return None
    return Want("Contacts", (("person", p["a"]),), (("contacts.star", p["a"]),), use_open=True)


def _compose(to: str, text: str, say: str = "") -> Want:
    return Want("Messages", (("chat", to),), (("focus", "text"), ("messages.send", to)), text=text, say=say)


def message_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice(sorted(state.people)), "t": rng.choice(sorted(state.goods))}


def message_want(state: State, p: Params, _: Answers) -> Want | None:
    return None if (p["a"], p["t"]) in state.sent else _compose(p["a"], p["t"])


def _read(name: str) -> Want:
    return Want("Messages", (("chat", name),), (("read", name),))


def share_want(state: State, p: Params, _: Answers) -> Want | None:
    code = state.codes[p["a"]]
    if (p["b"], code) in state.sent:
        return None
    return _compose(p["b"], code, f"code is {code}") if p["a"] in state.read else _read(p["a"])


def ask_want(state: State, p: Params, answers: Answers) -> Want | None:
    code = state.codes[p["a"]]
    if list(answers)[-1:] == [code]:
        return None
    if p["a"] not in state.read:
        return _read(p["a"])
    return Want("Messages", (("chat", p["a"]),), answer=code, say=f"code is {code}")


# -------------------------------------------------------------------------------------------------------------- Notes


def note_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice([t for t in EASY.titles if t not in state.notes])}


def _write(title: str, say: str = "") -> Want:
    return Want("Notes", (("new", ""),), (("focus", "title"), ("notes.save",)), text=title, say=say)


def note_want(state: State, p: Params, _: Answers) -> Want | None:
    return None if p["a"] in state.notes else _write(p["a"])


def code_note_want(state: State, p: Params, _: Answers) -> Want | None:
    code = state.codes[p["a"]]
    if code in state.notes:
        return None
    return _write(code, f"code is {code}") if p["a"] in state.read else _read(p["a"])


def del_note_want(state: State, p: Params, _: Answers) -> Want | None:
    if p["a"] not in state.notes:
        return None
    return Want("Notes", (("note", p["a"]),), (("notes.delete", p["a"]),), menu=True)


def drop_note_want(state: State, p: Params, _: Answers) -> Want | None:
    if p["a"] not in state.notes:
        return None
    return Want("Notes", (), (("notes.ask", p["a"]), ("notes.delete", p["a"])), hold=True)


# -------------------------------------------------------------------------------------------------------------- Clock


def new_time(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice([t for t in TIMES if t not in state.alarms])}


def alarm_want(state: State, p: Params, _: Answers) -> Want | None:
    if p["a"] not in state.alarms:
        return Want("Clock", (("add", ""),), (("clock.add", p["a"]),))
    return None if state.alarms[p["a"]] else Want("Clock", ops=(("clock.toggle", p["a"]),))


def alarm_flip_draw(rng: random.Random, state: State) -> dict[str, str]:
    time = rng.choice(sorted(state.alarms))
    return {"a": time, "a_to": "off" if state.alarms[time] else "on"}


def alarm_flip_want(state: State, p: Params, _: Answers) -> Want | None:
    if p["a"] not in state.alarms:
        return Want("Clock", (("add", ""),), (("clock.add", p["a"]),))
    if state.alarms[p["a"]] == (p["a_to"] == "on"):
        return None
    return Want("Clock", ops=(("clock.toggle", p["a"]),))


def alarm_drop_want(state: State, p: Params, _: Answers) -> Want | None:
    if p["a"] not in state.alarms:
        return None
    return Want("Clock", (), (("clock.ask", p["a"]), ("clock.remove", p["a"])), hold=True)


# --------------------------------------------------------------------------------------------------------------- Shop


def _basket_wish(p: Params) -> dict[str, int]:
    return {p[n]: int(p.get("count", "1")) for n in ("a", "b", "c") if n in p}


def add_want(state: State, p: Params, _: Answers) -> Want | None:
    """Any order. What is too much is taken out again."""
    wish, basket = _basket_wish(p), state.basket
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


def add_done(state: State, p: Params, _: Answers) -> bool:
    return state.basket == _basket_wish(p)


def quantity_draw(rng: random.Random, state: State) -> dict[str, str]:
    count = rng.choice([2, 3])
    return {**pick("goods", "a")(rng, state), "count": str(count), "times": {2: "twice", 3: "three times"}[count]}


def buy_want(state: State, p: Params, _: Answers) -> Want | None:
    if state.bought == {p["a"]: 1}:
        return None
    before = add_want(state, p, ())
    return before or Want("Shop", (("basket", ""),), (("shop.ask",), ("shop.pay",)))


def search_want(state: State, p: Params, _: Answers) -> Want | None:
    if state.searches[-1:] == [p["a"]]:
        return None
    op: Op = ("focus", "query")
    return Want("Shop", (("find", ""),), (op,), text=p["a"], enter=True, use_open=True)


# ---------------------------------------------------------------------------------------------------- held-out: Music


def play_want(state: State, p: Params, _: Answers) -> Want | None:
    if state.playing == p["a"]:
        return None
    return Want("Music", (("song", p["a"]),), (("music.play", p["a"]),))


def queue_want(state: State, p: Params, _: Answers) -> Want | None:
    wanted, queue = [p["a"], p["b"]], state.queue
    extra = [q for k, q in enumerate(queue) if q not in wanted or q in queue[:k]]
    if extra:
        return Want("Music", (("queue", ""),), (("music.drop", extra[0]),), say="undo")
    left = [w for w in wanted if w not in queue]
    if not left:
        return None
    target = _one_in_front(state, left)
    return Want(
        "Music", (("song", target),), (("music.queue", target),), say=_already([w for w in wanted if w in queue])
    )


def like_want(state: State, p: Params, _: Answers) -> Want | None:
    extra = [s for s in state.liked if s != p["a"]]
    target = extra[0] if extra else p["a"]
    if not extra and p["a"] in state.liked:
        return None
    return Want("Music", (("song", target),), (("music.like", target),), say="undo" if extra else "")


def message_two_want(state: State, p: Params, _: Answers) -> Want | None:
    """Either order. The list of chats does not show who got the message already."""
    left = [p[n] for n in ("a", "b") if (p[n], p["t"]) not in state.sent]
    if not left:
        return None
    target = _one_in_front(state, left)
    return _compose(target, p["t"], _already([p[n] for n in ("a", "b") if p[n] not in left]))


def message_two_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {**pick("people", "a", "b")(rng, state), "t": rng.choice(sorted(state.goods))}


def call_and_add_want(state: State, p: Params, _: Answers) -> Want | None:
    """Two apps, in either order. Neither the home screen nor one app shows what was done in the other."""
    shop = add_want(state, {"a": p["t"]}, ())
    call = call_want(state, {"a": p["a"]}, ())
    in_shop = state.front is not None and state.front.app == "Shop"
    first, second = (shop, call) if in_shop else (call, shop)
    want = first or second
    if want and not want.say and (call is None) != (shop is None):
        return replace(want, say=f"done {p['t'] if shop is None else p['a']} now")
    return want


def call_and_add_draw(rng: random.Random, state: State) -> dict[str, str]:
    return {"a": rng.choice(sorted(state.people)), "t": rng.choice(sorted(state.goods))}


def call_and_add_done(state: State, p: Params, _: Answers) -> bool:
    return state.calls == [p["a"]] and state.basket == {p["t"]: 1}


def gone(attribute: str) -> Callable[[State, Params, Answers], bool]:
    return lambda state, p, _: p["a"] not in getattr(state, attribute)
