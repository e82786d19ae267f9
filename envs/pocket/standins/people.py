"""Contacts and text messages, in the databases of the phone's providers."""

from __future__ import annotations

import re
from collections.abc import Callable

from guiderail.envs.pocket.standins import store
from guiderail.envs.pocket.standins.schemas import CONTACTS, SMS
from guiderail.envs.pocket.standins.store import Row
from guiderail.envs.pocket.standins.widgets import attempt, button, field, row, words, written
from guiderail.envs.pocket.state import Dialog, OpenPage, State
from guiderail.envs.pocket.ui import Cell, Line, Op, Page

LABELS = ("Mobile", "Home", "Work")
INBOX, SENT = 1, 2
MESSAGES = "Simple SMS Messenger"
TEXT = "Type a message"


def contacts(state: State) -> list[Row]:
    return store.rows(state, CONTACTS, "SELECT * FROM contacts ORDER BY display_name, _id")


def _contacts(state: State, front: OpenPage) -> Page:
    rows = tuple(row(one["display_name"]) for one in contacts(state))
    return Page("Contacts", rows or ((Cell("Empty"),),), footer=(button("Add", "go", "add", ""),))


def _add_contact(state: State, front: OpenPage) -> Page:
    fields = tuple((field(front, name),) for name in ("First name", "Last name", "Phone"))
    label = row(front.fields.get("label", LABELS[0]), ("contact.label",))
    return Page("Add", (*fields, label), footer=(button("Save", "contact.save"),))


def _label(state: State) -> None:
    options: list[tuple[str, Op]] = [(label, ("contact.labelled", label)) for label in LABELS]
    state.dialog = Dialog("Label", options)


def _labelled(state: State, label: str) -> None:
    if state.front:
        state.front.fields["label"] = label


def _save_contact(state: State) -> None:
    name = " ".join(part for k in ("First name", "Last name") if (part := written(state, k)))
    made = {"display_name": name, "number": written(state, "Phone"), "label": written(state, "label") or LABELS[0]}
    if name and attempt(state, lambda: store.insert(state, CONTACTS, "contacts", made)):
        state.back()


def insert_contact(state: State, name: str, number: str) -> None:
    """The intent to add a contact: the form opens with these in it."""
    first, _, last = name.partition(" ")
    state.stack = [OpenPage("Contacts"), OpenPage("Contacts", "add")]
    state.stack[-1].fields = {"First name": first, "Last name": last, "Phone": number}


# ----------------------------------------------------------------------------------------------------------- messages


def plain(number: str) -> str:
    return re.sub(r"[^0-9+]", "", number)


def messages(state: State, kind: int | None = None) -> list[Row]:
    """The newest first. kind: INBOX, SENT, or None for all."""
    every = store.rows(state, SMS, "SELECT * FROM sms ORDER BY date DESC, _id DESC")
    return [one for one in every if kind in (None, one["type"])]


def record(state: State, number: str, text: str, kind: int) -> None:
    """A message that came or went now. Raises FileError."""
    now = int(state.now * 1000)
    known = store.rows(state, SMS, "SELECT _id FROM threads WHERE recipient_ids = ?", number)
    if not known:
        store.insert(state, SMS, "threads", {"date": now, "recipient_ids": number, "snippet": text, "message_count": 0})
        known = store.rows(state, SMS, "SELECT _id FROM threads WHERE recipient_ids = ?", number)
    thread = known[0]["_id"]
    store.run(
        state,
        SMS,
        "UPDATE threads SET date = ?, snippet = ?, message_count = message_count + 1 WHERE _id = ?",
        now,
        text,
        thread,
    )
    row = {"thread_id": thread, "address": number, "date": now, "date_sent": now, "read": 1, "status": -1, "type": kind}
    store.insert(state, SMS, "sms", {**row, "body": text, "service_center": ""})


def receive(state: State, number: str, text: str) -> None:
    """A text message comes in. Raises FileError."""
    record(state, number, text, INBOX)


def _named(state: State, number: str) -> str:
    return next((one["display_name"] for one in contacts(state) if plain(one["number"] or "") == number), number)


def _threads(state: State, front: OpenPage) -> Page:
    numbers = list(dict.fromkeys(one["address"] for one in messages(state)))
    rows = tuple(row(_named(state, n), ("aosp.open", "thread", n, TEXT)) for n in numbers)
    return Page(
        MESSAGES, rows or ((Cell("Empty"),),), footer=(button("New", "aosp.open", "new", "", "Number or name"),)
    )


def _new(state: State, front: OpenPage) -> Page:
    asked = front.fields.get("Number or name", "").casefold()
    found = [one for one in contacts(state) if asked and asked in one["display_name"].casefold()]
    rows = tuple(row(one["display_name"], ("sms.to", plain(one["number"]))) for one in found)
    return Page("New message", ((field(front, "Number or name"),), *rows), footer=(button("OK", "sms.to", ""),))


def _to(state: State, number: str) -> None:
    """Begin a conversation with a number, or with the one that was typed."""
    number = number or plain(written(state, "Number or name"))
    if number:
        state.back()
        open_thread(state, number)


def open_thread(state: State, number: str, text: str = "") -> None:
    state.go("thread", number)
    state.focus(TEXT)
    if state.front and text:
        state.front.fields[TEXT] = text


def _thread(state: State, front: OpenPage) -> Page:
    """The newest message first."""
    lines: list[Line] = []
    for one in messages(state):
        if one["address"] == front.arg:
            lines += words(f"{'me: ' if one['type'] == SENT else ''}{one['body']}")
    footer = (field(front, TEXT), button("SMS", "sms.send", front.arg))
    return Page(_named(state, front.arg), tuple(lines), footer=footer)


def _send(state: State, number: str) -> None:
    text = written(state, TEXT)
    if text and attempt(state, lambda: record(state, number, text, SENT)) and state.front:
        state.front.fields.pop(TEXT, None)
        state.blur()


VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    ("Contacts", "main"): _contacts,
    ("Contacts", "add"): _add_contact,
    (MESSAGES, "main"): _threads,
    (MESSAGES, "new"): _new,
    (MESSAGES, "thread"): _thread,
}
VERBS: dict[str, Callable[..., None]] = {
    "contact.label": _label,
    "contact.labelled": _labelled,
    "contact.save": _save_contact,
    "sms.to": _to,
    "sms.send": _send,
}
