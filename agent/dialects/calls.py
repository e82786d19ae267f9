"""Reads function calls that a model wrote, such as `click(start_box='(12,34)')` or `pyautogui.write(message='hi')`.

The text is never run and never parsed as Python: models forget to escape, and an apostrophe or a parenthesis inside an
argument must not lose the action (method audit, B22). Every pattern here reads its input in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guiderail.agent.errors import UnreadableAction

_HEAD = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]{0,60})\s*\(")
_WORD = re.compile(r"\s*([A-Za-z_]\w{0,30})\s*=\s*+")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*+)'|\"((?:[^\"\\]|\\.)*+)\"", re.DOTALL)
_PLAIN = re.compile(r"\[[^\]]*+\]|\([^)]*+\)|[^,'\"\[(]++")
_NEXT = re.compile(r"\s*+(?:,|$)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_AROUND = re.compile(r"<\|?/?(?:box_start|box_end|point|bbox)\|?>|[()\[\],]")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_PLAIN_OF = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Call:
    """A function call. name: dotted. args: values as text, quotes and escapes resolved."""

    name: str
    args: dict[str, str]


def read_call(text: str, free: tuple[str, ...] = (), order: Mapping[str, tuple[str, ...]] = {}) -> Call:
    """The call at the start of `text`, which ends at its last closing parenthesis.

    order: function -> names of its arguments where they are given by position. free: names of arguments with free text. Where the arguments are not well formed and the first one is free, its value is
    everything between its opening quote and the last closing one. Raises UnreadableAction.
    """
    head = _HEAD.match(text)
    if head is None:
        raise UnreadableAction(f"no call such as click(...) in {text[:60]!r}")
    end = text.rfind(")")
    if end < head.end():
        raise UnreadableAction(f"the call {head[1]}( is never closed")
    body = text[head.end() : end].strip()
    args = _arguments(body, order.get(head[1], ()))
    if args is None:
        args = _free_argument(body, free)
    if args is None:
        raise UnreadableAction(f"the arguments of {head[1]} are not of the form key='value'")
    return Call(head[1], args)


def _arguments(body: str, names: Sequence[str]) -> dict[str, str] | None:
    """Comma-separated key=value, or values in the order of `names`; None when the text is not of this form."""
    args: dict[str, str] = {}
    unnamed = iter(names)
    at = 0
    while at < len(body):
        word = _WORD.match(body, at)
        if word:
            unnamed = iter(())  # none after a named one, as in Python
        name = word[1] if word else next(unnamed, None)
        start = word.end() if word else at
        quoted = _QUOTED.match(body, start)
        value = quoted or _PLAIN.match(body, start)
        after = _NEXT.match(body, value.end()) if value else None
        if name is None or value is None or after is None:
            return None
        args[name] = unescape(quoted[1] or quoted[2] or "") if quoted else value[0].strip()
        at = after.end()
    return args


def _free_argument(body: str, free: tuple[str, ...]) -> dict[str, str] | None:
    word = _WORD.match(body)
    if word is None or word[1] not in free:
        return None
    value = body[word.end() :].rstrip(", \n")
    if len(value) < 2 or value[0] not in "'\"" or value[-1] != value[0]:
        return None
    return {word[1]: unescape(value[1:-1])}


def unescape(text: str) -> str:
    r"""Resolve \n \t \r \' \" and \\; a backslash before anything else stays."""
    return _ESCAPE.sub(lambda match: _PLAIN_OF.get(match[1], match[0]), text)


def quote(text: str) -> str:
    """The inverse of `unescape`, in single quotes and on one line."""
    for plain, written in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, written)
    return f"'{text}'"


def numbers(text: str) -> list[float]:
    """The numbers of a point or box without the brackets or tokens around them; empty when there is anything else."""
    words = _AROUND.sub(" ", text[:400]).split()
    return [float(word) for word in words] if all(_NUMBER.fullmatch(word) for word in words) else []


def point(text: str | None, what: str) -> list[float]:
    """[x, y] of an argument; of a box [x1, y1, x2, y2], its centre. what: its name for the message. Raises
    UnreadableAction."""
    found = numbers(text or "")
    if len(found) == 4:
        return [(found[0] + found[2]) / 2, (found[1] + found[3]) / 2]
    if len(found) != 2:
        raise UnreadableAction(f"{what} is {(text or '')[:60]!r}, expected a point x, y")
    return found
