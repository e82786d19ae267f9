"""What each app shows, and what its cells do: functions of the phone's state."""

from __future__ import annotations

from collections.abc import Callable

from guiderail.envs.pocket import aosp
from guiderail.envs.pocket.state import DECOYS, Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, NOTHING, Cell, Line, Op, Page

ICONS = ("Settings", "Contacts", "Messages", "Notes", "Clock", "Shop", "Music", *DECOYS)


def view(state: State) -> Page:
    """The page in front."""
    front = state.front
    if front is None:
        cells = [Cell(a, ("launch", a), "icon", icon=_icon(a)) for a in state.apps]
        lines = tuple(tuple(cells[k : k + 2]) for k in range(0, len(cells), 2))
        return Page("", lines, tall=True)
    if state.aosp:
        return aosp.view(state, front)
    return _VIEWS.get((front.app, front.page), _nothing)(state, front)


def _icon(app: str) -> int:
    return ICONS.index(app) if app in ICONS else len(app) % len(ICONS)


def perform(state: State, op: Op) -> None:
    """Do what a cell says. Verbs are `app.verb`."""
    _VERBS[op[0]](state, *op[1:])


def _row(text: str, op: Op = NOTHING, hold: Op = NOTHING) -> Line:
    return (Cell(text, op, "row", hold=hold),)


def _text(text: str) -> Line:
    return (Cell(text),)


def _go(text: str, page: str, arg: str = "") -> Cell:
    return Cell(text, ("go", page, arg), "button")


def _toggle(text: str, op: Op, on: bool, hold: Op = NOTHING) -> Line:
    return (Cell(text, op, "toggle", on, hold),)


def _field(front: OpenPage, name: str, hint: str) -> Line:
    text = front.fields.get(name, "")
    return (Cell(text or hint, ("focus", name), "field", focused=front.focus == name, checked=bool(text)),)


def _nothing(state: State, front: OpenPage) -> Page:
    return Page(front.app, (_text("Nothing here"),))


# ---------------------------------------------------------------------------------------------------------- Settings


def _settings(state: State, front: OpenPage) -> Page:
    toggles = [_toggle(t, ("settings.toggle", t), state.is_on(t)) for t in state.toggles]
    return Page(
        "Settings", tuple(toggles), footer=(_go("Sound", "sound"), Cell("Update", ("settings.update",), "button"))
    )


def _sound(state: State, front: OpenPage) -> Page:
    now = state.settings["system"].get("ringtone", "")
    return Page(
        "Sound",
        tuple((Cell(r, ("settings.ring", r), "check", checked=r == now),) for r in state.ringtones),
    )


def _update(state: State) -> None:
    state.dialog = Dialog("Please wait", [], until=state.clock + 2.5, then=("settings.updated",))


def _updated(state: State) -> None:
    state.updates += 1
    state.dialog = Dialog("Up to date", [("OK", DISMISS)])


def _ring(state: State, tone: str) -> None:
    state.settings["system"]["ringtone"] = tone


# ------------------------------------------------------------------------------------------- Contacts and Messages


def _contacts(state: State, front: OpenPage) -> Page:
    rows = tuple(_row(p, ("go", "person", p)) for p in state.people)
    return Page("Contacts", rows, footer=(_go("Calls", "calls"),))


def _person(state: State, front: OpenPage) -> Page:
    name, ops = front.arg, {"Call": "contacts.call", "Message": "contacts.message", "Star": "contacts.star"}
    lines: list[Line] = []
    for label in state.person_buttons:
        if label == "Star":
            lines.append(_toggle(label, (ops[label], name), name in state.stars))
        else:
            lines.append((Cell(label, (ops[label], name), "button"),))
    return Page(name, tuple(lines))


def _calls(state: State, front: OpenPage) -> Page:
    """The calls that were made. A tap deletes one."""
    calls = state.calls
    return Page("Calls", tuple(_row(c, ("contacts.forget", c)) for c in calls) or (_text("No calls"),))


def _message(state: State, name: str) -> None:
    state.stack = [OpenPage("Messages")]
    state.go("chat", name)


def _star(state: State, name: str) -> None:
    stars = state.stars
    (stars.remove if name in stars else stars.append)(name)


def _messages(state: State, front: OpenPage) -> Page:
    return Page("Messages", tuple(_row(p, ("go", "chat", p)) for p in state.people))


def _chat(state: State, front: OpenPage) -> Page:
    name = front.arg
    mine = [_row(f"me {text}", hold=("messages.ask", name, text)) for to, text in state.sent if to == name]
    lines = (_text(f"code {state.codes[name]}"), *mine[-2:], _field(front, "text", "write"))
    return Page(name, lines, footer=(Cell("Send", ("messages.send", name), "button"),), enter=("messages.send", name))


def _send(state: State, name: str) -> None:
    front = state.front
    if front and front.fields.get("text"):
        state.sent.append((name, front.fields.pop("text")))
        front.focus, front.fresh = "", False


def _ask_unsend(state: State, name: str, text: str) -> None:
    state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("messages.unsend", name, text))])


# -------------------------------------------------------------------------------------------------------------- Notes


def _notes(state: State, front: OpenPage) -> Page:
    rows = tuple(_row(t, ("go", "note", t), hold=("notes.ask", t)) for t in state.notes)
    return Page("Notes", rows, footer=(_go("New", "new"),))


def _note(state: State, front: OpenPage) -> Page:
    title = front.arg
    return Page(title, (_text(state.notes.get(title, "")),), menu=(("Delete", ("notes.delete", title)),))


def _new_note(state: State, front: OpenPage) -> Page:
    save = Cell("Save", ("notes.save",), "button")
    return Page("New", (_field(front, "title", "title"), _field(front, "text", "text")), footer=(save,))


def _save_note(state: State) -> None:
    front = state.front
    if front and (front.fields.get("title") or front.fields.get("text")):
        state.notes[front.fields.get("title") or "note"] = front.fields.get("text", "")
        state.back()


def _ask_delete(state: State, title: str) -> None:
    state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("notes.delete", title))])


def _delete_note(state: State, title: str) -> None:
    state.notes.pop(title, None)
    if state.front and state.front.key == ("note", title):
        state.back()


# -------------------------------------------------------------------------------------------------------------- Clock


def _clock(state: State, front: OpenPage) -> Page:
    alarms = state.alarms.items()
    rows = tuple(_toggle(t, ("clock.toggle", t), on, hold=("clock.ask", t)) for t, on in alarms)
    return Page("Clock", rows, footer=(_go("Add", "add"),))


def _add_alarm(state: State, front: OpenPage) -> Page:
    return Page("Add", tuple(_row(t, ("clock.add", t)) for t in state.times))


def _alarm_toggle(state: State, time: str) -> None:
    state.alarms[time] = not state.alarms.get(time, False)


def _alarm_add(state: State, time: str) -> None:
    state.alarms[time] = True
    state.back()


def _alarm_ask(state: State, time: str) -> None:
    state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("clock.remove", time))])


# --------------------------------------------------------------------------------------------------------------- Shop


def _shop(state: State, front: OpenPage) -> Page:
    """A tap puts one into the basket and shows nothing, so the user has to remember it."""
    rows = tuple(_row(g, ("shop.add", g)) for g in state.goods)
    return Page("Shop", rows, footer=(_go("Find", "find"), _go("Basket", "basket")))


def _basket(state: State, front: OpenPage) -> Page:
    """A tap takes one out of the basket."""
    rows = tuple(_row(f"{n} {g}", ("shop.drop", g)) for g, n in state.basket.items())
    return Page("Basket", rows or (_text("Empty"),), footer=(Cell("Pay", ("shop.ask",), "button"),))


def _find(state: State, front: OpenPage) -> Page:
    found = front.fields.get("found", "")
    rows = tuple(_row(g, ("shop.add", g)) for g in state.goods if found and found in g)
    lines = (_field(front, "query", "search"), *(rows or ((_text("No results"),) if found else ())))
    return Page("Find", lines, enter=("shop.find",))


def _search(state: State) -> None:
    front = state.front
    if front and front.fields.get("query"):
        front.fields["found"] = front.fields["query"]
        state.searches.append(front.fields["query"])
        front.focus, front.fresh = "", False


def _shop_add(state: State, good: str) -> None:
    state.basket[good] = state.basket.get(good, 0) + 1


def _shop_drop(state: State, good: str) -> None:
    left = state.basket.get(good, 0) - 1
    state.basket[good] = left
    if left <= 0:
        del state.basket[good]


def _shop_ask(state: State) -> None:
    if state.basket:
        state.dialog = Dialog("Pay now", [("Cancel", DISMISS), ("Pay", ("shop.pay",))])


def _pay(state: State) -> None:
    for good, n in state.basket.items():
        state.bought[good] = state.bought.get(good, 0) + n
    state.basket.clear()


# -------------------------------------------------------------------------------------------------------------- Music


def _music(state: State, front: OpenPage) -> Page:
    return Page("Music", tuple(_row(s, ("go", "song", s)) for s in state.songs), footer=(_go("Queue", "queue"),))


def _song(state: State, front: OpenPage) -> Page:
    name = front.arg
    playing = _toggle("Play", ("music.play", name), state.playing == name)
    liked = _toggle("Like", ("music.like", name), name in state.liked)
    return Page(name, (playing, (Cell("Queue", ("music.queue", name), "button"),), liked))


def _queue(state: State, front: OpenPage) -> Page:
    rows = tuple(_row(s, ("music.drop", s)) for s in state.queue)
    return Page("Queue", rows or (_text("Empty"),))


def _play(state: State, song: str) -> None:
    state.playing = "" if state.playing == song else song


def _like(state: State, song: str) -> None:
    liked = state.liked
    (liked.remove if song in liked else liked.append)(song)


def _remove(items: list[str], item: str) -> None:
    if item in items:
        items.remove(item)


_VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    ("Settings", "main"): _settings,
    ("Settings", "sound"): _sound,
    ("Contacts", "main"): _contacts,
    ("Contacts", "person"): _person,
    ("Contacts", "calls"): _calls,
    ("Messages", "main"): _messages,
    ("Messages", "chat"): _chat,
    ("Notes", "main"): _notes,
    ("Notes", "note"): _note,
    ("Notes", "new"): _new_note,
    ("Clock", "main"): _clock,
    ("Clock", "add"): _add_alarm,
    ("Shop", "main"): _shop,
    ("Shop", "basket"): _basket,
    ("Shop", "find"): _find,
    ("Music", "main"): _music,
    ("Music", "song"): _song,
    ("Music", "queue"): _queue,
}

_VERBS: dict[str, Callable[..., None]] = {
    **aosp.VERBS,
    "settings.toggle": lambda state, name: state.switch(name, not state.is_on(name)),
    "settings.update": _update,
    "settings.updated": _updated,
    "settings.ring": _ring,
    "contacts.call": lambda state, name: state.calls.append(name),
    "contacts.forget": lambda state, name: _remove(state.calls, name),
    "contacts.message": _message,
    "contacts.star": _star,
    "messages.send": _send,
    "messages.ask": _ask_unsend,
    "messages.unsend": lambda state, name, text: (
        state.sent.remove((name, text)) if (name, text) in state.sent else None
    ),
    "notes.save": _save_note,
    "notes.ask": _ask_delete,
    "notes.delete": _delete_note,
    "clock.toggle": _alarm_toggle,
    "clock.add": _alarm_add,
    "clock.ask": _alarm_ask,
    "clock.remove": lambda state, time: state.alarms.pop(time, None),
    "shop.add": _shop_add,
    "shop.drop": _shop_drop,
    "shop.find": _search,
    "shop.ask": _shop_ask,
    "shop.pay": _pay,
    "music.play": _play,
    "music.like": _like,
    "music.queue": lambda state, song: state.queue.append(song),
    "music.drop": lambda state, song: _remove(state.queue, song),
}
