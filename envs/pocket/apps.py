"""What each app shows, and what its cells do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from envs.pocket import aosp
from envs.pocket.state import DECOYS, Dialog, Screen
from envs.pocket.ui import DISMISS, NOTHING, Cell, Line, Op, Page

if TYPE_CHECKING:
    from envs.pocket.phone import Phone

ICONS = ("Settings", "Contacts", "Messages", "Notes", "Clock", "Shop", "Music", *DECOYS)


def view(phone: Phone) -> Page:
    """The page in front."""
    screen = phone.screen
    if screen is None:
        cells = [Cell(a, ("launch", a), "icon", icon=_icon(a)) for a in phone.state.apps]
        lines = tuple(tuple(cells[k : k + 2]) for k in range(0, len(cells), 2))
        return Page("", lines, tall=True)
    if phone.state.aosp:
        return aosp.view(phone, screen)
    return _VIEWS.get((screen.app, screen.page), _nothing)(phone, screen)


def _icon(app: str) -> int:
    return ICONS.index(app) if app in ICONS else len(app) % len(ICONS)


def perform(phone: Phone, op: Op) -> None:
    """Do what a cell says. Verbs are `app.verb`."""
    _VERBS[op[0]](phone, *op[1:])


def _row(text: str, op: Op = NOTHING, hold: Op = NOTHING) -> Line:
    return (Cell(text, op, "row", hold=hold),)


def _text(text: str) -> Line:
    return (Cell(text),)


def _go(text: str, page: str, arg: str = "") -> Cell:
    return Cell(text, ("go", page, arg), "button")


def _toggle(text: str, op: Op, on: bool, hold: Op = NOTHING) -> Line:
    return (Cell(text, op, "toggle", on, hold),)


def _field(screen: Screen, name: str, hint: str) -> Line:
    text = screen.fields.get(name, "")
    return (Cell(text or hint, ("focus", name), "field", focused=screen.focus == name, checked=bool(text)),)


def _nothing(phone: Phone, screen: Screen) -> Page:
    return Page(screen.app, (_text("Nothing here"),))


# ---------------------------------------------------------------------------------------------------------- Settings


def _settings(phone: Phone, screen: Screen) -> Page:
    toggles = [_toggle(t, ("settings.toggle", t), phone.is_on(t)) for t in phone.state.toggles]
    return Page(
        "Settings", tuple(toggles), footer=(_go("Sound", "sound"), Cell("Update", ("settings.update",), "button"))
    )


def _sound(phone: Phone, screen: Screen) -> Page:
    now = phone.state.settings["system"].get("ringtone", "")
    return Page(
        "Sound",
        tuple((Cell(r, ("settings.ring", r), "check", checked=r == now),) for r in phone.state.ringtones),
    )


def _update(phone: Phone) -> None:
    phone.state.dialog = Dialog("Please wait", [], until=phone.state.clock + 2.5, then=("settings.updated",))


def _updated(phone: Phone) -> None:
    phone.state.updates += 1
    phone.state.dialog = Dialog("Up to date", [("OK", DISMISS)])


def _ring(phone: Phone, tone: str) -> None:
    phone.state.settings["system"]["ringtone"] = tone


# ------------------------------------------------------------------------------------------- Contacts and Messages


def _contacts(phone: Phone, screen: Screen) -> Page:
    rows = tuple(_row(p, ("go", "person", p)) for p in phone.state.people)
    return Page("Contacts", rows, footer=(_go("Calls", "calls"),))


def _person(phone: Phone, screen: Screen) -> Page:
    name, ops = screen.arg, {"Call": "contacts.call", "Message": "contacts.message", "Star": "contacts.star"}
    lines: list[Line] = []
    for label in phone.state.person_buttons:
        if label == "Star":
            lines.append(_toggle(label, (ops[label], name), name in phone.state.stars))
        else:
            lines.append((Cell(label, (ops[label], name), "button"),))
    return Page(name, tuple(lines))


def _calls(phone: Phone, screen: Screen) -> Page:
    """What was called; a tap forgets a call."""
    calls = phone.state.calls
    return Page("Calls", tuple(_row(c, ("contacts.forget", c)) for c in calls) or (_text("No calls"),))


def _message(phone: Phone, name: str) -> None:
    phone.state.stack = [Screen("Messages")]
    phone.do(("go", "chat", name))


def _star(phone: Phone, name: str) -> None:
    stars = phone.state.stars
    (stars.remove if name in stars else stars.append)(name)


def _messages(phone: Phone, screen: Screen) -> Page:
    return Page("Messages", tuple(_row(p, ("go", "chat", p)) for p in phone.state.people))


def _chat(phone: Phone, screen: Screen) -> Page:
    name = screen.arg
    mine = [_row(f"me {text}", hold=("messages.ask", name, text)) for to, text in phone.state.sent if to == name]
    lines = (_text(f"code {phone.state.codes[name]}"), *mine[-2:], _field(screen, "text", "write"))
    return Page(name, lines, footer=(Cell("Send", ("messages.send", name), "button"),), enter=("messages.send", name))


def _send(phone: Phone, name: str) -> None:
    screen = phone.screen
    if screen and screen.fields.get("text"):
        phone.state.sent.append((name, screen.fields.pop("text")))
        screen.focus, screen.fresh = "", False


def _ask_unsend(phone: Phone, name: str, text: str) -> None:
    phone.state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("messages.unsend", name, text))])


# -------------------------------------------------------------------------------------------------------------- Notes


def _notes(phone: Phone, screen: Screen) -> Page:
    rows = tuple(_row(t, ("go", "note", t), hold=("notes.ask", t)) for t in phone.state.notes)
    return Page("Notes", rows, footer=(_go("New", "new"),))


def _note(phone: Phone, screen: Screen) -> Page:
    title = screen.arg
    return Page(title, (_text(phone.state.notes.get(title, "")),), menu=(("Delete", ("notes.delete", title)),))


def _new_note(phone: Phone, screen: Screen) -> Page:
    save = Cell("Save", ("notes.save",), "button")
    return Page("New", (_field(screen, "title", "title"), _field(screen, "text", "text")), footer=(save,))


def _save_note(phone: Phone) -> None:
    screen = phone.screen
    if screen and (screen.fields.get("title") or screen.fields.get("text")):
        phone.state.notes[screen.fields.get("title") or "note"] = screen.fields.get("text", "")
        phone.back()


def _ask_delete(phone: Phone, title: str) -> None:
    phone.state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("notes.delete", title))])


def _delete_note(phone: Phone, title: str) -> None:
    phone.state.notes.pop(title, None)
    if phone.screen and phone.screen.key == ("note", title):
        phone.back()


# -------------------------------------------------------------------------------------------------------------- Clock


def _clock(phone: Phone, screen: Screen) -> Page:
    alarms = phone.state.alarms.items()
    rows = tuple(_toggle(t, ("clock.toggle", t), on, hold=("clock.ask", t)) for t, on in alarms)
    return Page("Clock", rows, footer=(_go("Add", "add"),))


def _add_alarm(phone: Phone, screen: Screen) -> Page:
    return Page("Add", tuple(_row(t, ("clock.add", t)) for t in phone.state.times))


def _alarm_toggle(phone: Phone, time: str) -> None:
    phone.state.alarms[time] = not phone.state.alarms.get(time, False)


def _alarm_add(phone: Phone, time: str) -> None:
    phone.state.alarms[time] = True
    phone.back()


def _alarm_ask(phone: Phone, time: str) -> None:
    phone.state.dialog = Dialog("Delete it", [("Cancel", DISMISS), ("Delete", ("clock.remove", time))])


# --------------------------------------------------------------------------------------------------------------- Shop


def _shop(phone: Phone, screen: Screen) -> Page:
    """A tap puts one into the basket and shows nothing: what was done must be remembered."""
    rows = tuple(_row(g, ("shop.add", g)) for g in phone.state.goods)
    return Page("Shop", rows, footer=(_go("Find", "find"), _go("Basket", "basket")))


def _basket(phone: Phone, screen: Screen) -> Page:
    """A tap takes one out again."""
    rows = tuple(_row(f"{n} {g}", ("shop.drop", g)) for g, n in phone.state.basket.items())
    return Page("Basket", rows or (_text("Empty"),), footer=(Cell("Pay", ("shop.ask",), "button"),))


def _find(phone: Phone, screen: Screen) -> Page:
    found = screen.fields.get("found", "")
    rows = tuple(_row(g, ("shop.add", g)) for g in phone.state.goods if found and found in g)
    lines = (_field(screen, "query", "search"), *(rows or ((_text("No results"),) if found else ())))
    return Page("Find", lines, enter=("shop.find",))


def _search(phone: Phone) -> None:
    screen = phone.screen
    if screen and screen.fields.get("query"):
        screen.fields["found"] = screen.fields["query"]
        phone.state.searches.append(screen.fields["query"])
        screen.focus, screen.fresh = "", False


def _shop_add(phone: Phone, good: str) -> None:
    phone.state.basket[good] = phone.state.basket.get(good, 0) + 1


def _shop_drop(phone: Phone, good: str) -> None:
    left = phone.state.basket.get(good, 0) - 1
    phone.state.basket[good] = left
    if left <= 0:
        del phone.state.basket[good]


def _shop_ask(phone: Phone) -> None:
    if phone.state.basket:
        phone.state.dialog = Dialog("Pay now", [("Cancel", DISMISS), ("Pay", ("shop.pay",))])


def _pay(phone: Phone) -> None:
    for good, n in phone.state.basket.items():
        phone.state.bought[good] = phone.state.bought.get(good, 0) + n
    phone.state.basket.clear()


# -------------------------------------------------------------------------------------------------------------- Music


def _music(phone: Phone, screen: Screen) -> Page:
    return Page("Music", tuple(_row(s, ("go", "song", s)) for s in phone.state.songs), footer=(_go("Queue", "queue"),))


def _song(phone: Phone, screen: Screen) -> Page:
    name = screen.arg
    playing = _toggle("Play", ("music.play", name), phone.state.playing == name)
    liked = _toggle("Like", ("music.like", name), name in phone.state.liked)
    return Page(name, (playing, (Cell("Queue", ("music.queue", name), "button"),), liked))


def _queue(phone: Phone, screen: Screen) -> Page:
    rows = tuple(_row(s, ("music.drop", s)) for s in phone.state.queue)
    return Page("Queue", rows or (_text("Empty"),))


def _play(phone: Phone, song: str) -> None:
    phone.state.playing = "" if phone.state.playing == song else song


def _like(phone: Phone, song: str) -> None:
    liked = phone.state.liked
    (liked.remove if song in liked else liked.append)(song)


def _remove(items: list[str], item: str) -> None:
    if item in items:
        items.remove(item)


_VIEWS: dict[tuple[str, str], Callable[[Phone, Screen], Page]] = {
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
    "settings.toggle": lambda phone, name: phone.switch(name, not phone.is_on(name)),
    "settings.update": _update,
    "settings.updated": _updated,
    "settings.ring": _ring,
    "contacts.call": lambda phone, name: phone.state.calls.append(name),
    "contacts.forget": lambda phone, name: _remove(phone.state.calls, name),
    "contacts.message": _message,
    "contacts.star": _star,
    "messages.send": _send,
    "messages.ask": _ask_unsend,
    "messages.unsend": lambda phone, name, text: (
        phone.state.sent.remove((name, text)) if (name, text) in phone.state.sent else None
    ),
    "notes.save": _save_note,
    "notes.ask": _ask_delete,
    "notes.delete": _delete_note,
    "clock.toggle": _alarm_toggle,
    "clock.add": _alarm_add,
    "clock.ask": _alarm_ask,
    "clock.remove": lambda phone, time: phone.state.alarms.pop(time, None),
    "shop.add": _shop_add,
    "shop.drop": _shop_drop,
    "shop.find": _search,
    "shop.ask": _shop_ask,
    "shop.pay": _pay,
    "music.play": _play,
    "music.like": _like,
    "music.queue": lambda phone, song: phone.state.queue.append(song),
    "music.drop": lambda phone, song: _remove(phone.state.queue, song),
}
