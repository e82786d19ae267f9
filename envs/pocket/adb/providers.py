"""`content` and `sqlite3`: what the phone's databases say over adb."""

from __future__ import annotations

import re

from guiderail.envs.pocket.adb.intents import option
from guiderail.envs.pocket.adb.script import Result
from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.standins import people, store
from guiderail.envs.pocket.standins.store import Row

NOTHING_FOUND = "No result found.\n"
_KINDS = {"content://sms": None, "content://sms/inbox": people.INBOX, "content://sms/sent": people.SENT}


def content(phone: Phone, args: list[str]) -> Result:
    """Queries of the contacts and of the text messages. Deleting elsewhere changes nothing here and is no error."""
    address = option(args, "--uri").rstrip("/")
    if args[:1] != ["query"] or not phone.state.aosp:
        return 0, NOTHING_FOUND
    if address.startswith("content://contacts/phones"):
        rows: list[Row] = [
            {"display_name": one["display_name"], "number": one["number"]} for one in people.contacts(phone.state)
        ]
    elif address in _KINDS:
        rows = people.messages(phone.state, _KINDS[address])
    else:
        return 0, NOTHING_FOUND
    lines = [f"Row: {k} {', '.join(f'{n}={_said(v)}' for n, v in one.items())}\n" for k, one in enumerate(rows)]
    return 0, "".join(lines) or NOTHING_FOUND


def _said(value: object) -> str:
    return "NULL" if value is None else str(value)


def sqlite3(phone: Phone, args: list[str]) -> Result:
    """PATH and one statement."""
    match [a for a in args if not a.startswith("-")]:
        case [path, statement] if not re.search(r"\b(attach|detach|vacuum|pragma)\b", statement, re.IGNORECASE):
            try:
                rows = store.run(phone.state, path, statement)
            except FileError as error:
                return 1, f"Error: {error}\n"
            return 0, "".join("|".join("" if v is None else str(v) for v in row.values()) + "\n" for row in rows)
    return 1, "Error: usage: sqlite3 FILE STATEMENT\n"
