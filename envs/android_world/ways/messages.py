"""Contacts and text messages."""

from __future__ import annotations

from collections.abc import Callable

from guiderail.agent.types import Click, LongPress, Open, Type
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways, field, rows, tap, write
from guiderail.envs.android_world.ways.storage import create_note

APP = "Simple SMS Messenger"


def _add_contact(seen: Seen, p: Params) -> Way:
    seen = yield from _contact(seen, *p["name"].split(" ", 1), p["number"])
    return (yield from tap(seen, "Save"))


def _contact(seen: Seen, first: str, *others: str) -> Way:
    *last, number = others
    seen = yield Open("Contacts")
    seen = yield from tap(seen, "Add")
    return (yield from write(seen, first, last[0] if last else None, number))


def _draft(seen: Seen, p: Params) -> Way:
    seen = yield from _contact(seen, p["first"], p["last"], p["phone"])
    return (yield from tap(seen, "Mobile", p["phone_label"]))


def _new(seen: Seen, number: str) -> Way:
    """A conversation opens with the cursor in the message."""
    seen = yield from tap(seen, "New")
    yield Type(number)
    return (yield from tap(seen, "OK"))


def _send(seen: Seen, p: Params) -> Way:
    seen = yield Open(APP)
    seen = yield from _new(seen, p["number"])
    seen = yield Type(p["message"])
    return (yield from tap(seen, "SMS"))


def _paste(seen: Seen, p: Params) -> Way:
    seen = yield Open(APP)
    seen = yield from _new(seen, p["number"])
    seen = yield LongPress(field(seen, 0), 1.0)
    return (yield from tap(seen, "Paste", "SMS"))


def _reply(whom: Callable[[Seen, Params], str]) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(APP)
        seen = yield from tap(seen, whom(seen, p))
        seen = yield Type(p["message"])
        return (yield from tap(seen, "SMS"))

    return way


def _resend(seen: Seen, p: Params) -> Way:
    seen = yield Open(APP)
    seen = yield from tap(seen, p["name"])
    lines = [e.text for e in seen if e.kind == "text"]
    mine = next(k for k, line in enumerate(lines) if line.startswith("me: "))
    yield Type(" ".join(lines[mine:]).removeprefix("me: "))
    return (yield from tap(seen, "SMS"))


def _forward(seen: Seen, p: Params) -> Way:
    seen = yield Open(APP)
    seen = yield from tap(seen, p["name2"])
    address = " ".join(e.text for e in seen if e.kind == "text" and e.text != p["name2"])
    seen = yield Open(APP)
    seen = yield from tap(seen, "New")
    seen = yield Type(p["name1"])
    yield Click(next(e.box.center for e in seen if e.kind == "row" and e.text == p["name1"]))
    seen = yield Type(address)
    return (yield from tap(seen, "SMS"))


def _note_and_message(seen: Seen, p: Params) -> Way:
    seen = yield from create_note(seen, p)
    return (yield from _send(seen, {"number": p["number"], "message": p["text"]}))


WAYS: Ways = {
    "ContactsAddContact": _add_contact,
    "ContactsNewContactDraft": _draft,
    "SimpleSmsSend": _send,
    "SimpleSmsSendClipboardContent": _paste,
    "SimpleSmsReply": _reply(lambda seen, p: str(p["number"])),
    "SimpleSmsReplyMostRecent": _reply(lambda seen, p: rows(seen)[0]),
    "SimpleSmsResend": _resend,
    "SimpleSmsSendReceivedAddress": _forward,
    "MarkorCreateNoteAndSms": _note_and_message,
}
