"""Experts of pages on which text is typed."""

from __future__ import annotations

import re

from guiderail.agent.types import Key, SystemButton, Type, Wait
from guiderail.envs.miniwob.browser import Browser
from guiderail.envs.miniwob.moves import Move, Moves, click, fields, first, named, submit, type_into
from guiderail.envs.miniwob.page import Page


def focus_text(on: Browser) -> Moves:
    page = on.look()
    yield click(on, fields(page)[int(page.fields.get("target", "1")) - 1], "into the field")


def enter_text(on: Browser) -> Moves:
    page = on.look()
    yield from type_into(on, fields(page)[0], page.fields["target"])
    yield submit(on)


def enter_text_2(on: Browser) -> Moves:
    page = on.look()
    text = page.fields["text"]
    yield from type_into(on, fields(page)[0], text.upper() if page.fields["case"] == "upper" else text.lower())
    yield submit(on)


def enter_password(on: Browser) -> Moves:
    page = on.look()
    for field in fields(page):
        yield from type_into(on, field, page.fields["target"])
    yield submit(on)


def login_user(on: Browser) -> Moves:
    page = on.look()
    for field, key in zip(fields(page), ("username", "password"), strict=True):
        yield from type_into(on, field, page.fields[key])
    yield submit(on)


def login_user_popup(on: Browser) -> Moves:
    """A pop-up may come between any two moves; it is cancelled, and the fields are filled again where needed."""
    goal = on.look().fields
    for _ in range(12):
        page = on.look()
        popup = page.all(lambda n: n.id == "cancel" or (n.tag == "button" and n.text == "Cancel"))
        wrong = [
            (field, goal[key])
            for field, key in zip(fields(page), ("username", "password"), strict=True)
            if field.value != goal[key]
        ]
        if popup:
            yield click(on, popup[0], "cancel the pop-up")
        elif not wrong:
            yield submit(on)
        elif not wrong[0][0].focused:
            yield click(on, wrong[0][0], "into the field")
        else:
            yield Move(Type(wrong[0][1]), f"write {wrong[0][1]}", wrong[0][0].box)


def enter_date(on: Browser) -> Moves:
    page = on.look()
    digits = "".join(re.findall(r"\d+", page.goal))
    yield click(on, fields(page)[0], "to the month", left=6)
    yield Move(Type(digits), f"write {page.goal}", fields(page)[0].box)
    yield submit(on)


def enter_time(on: Browser) -> Moves:
    page = on.look()
    found = re.search(r"(\d+):(\d+) ([AP])M", page.goal)
    if found:
        yield click(on, fields(page)[0], "to the hour", left=6)
        yield Move(Type(f"{int(found[1]):02d}{found[2]}{found[3]}"), f"write {found[0]}", fields(page)[0].box)
        yield submit(on)


def copy_paste(on: Browser) -> Moves:
    page = on.look()
    source = page.all(lambda n: n.tag == "textarea")
    ordinal = re.search(r"(\d)(?:st|nd|rd|th) text area", page.goal)
    text = str(source[int(ordinal[1]) - 1 if ordinal else 0].value)
    yield from type_into(on, fields(page)[0], text)
    yield submit(on)


def arithmetic(on: Browser) -> Moves:
    page = on.look()
    found = re.match(r"(-?\d+)\s*([-+x*])\s*(-?\d+)", first(page, lambda n: n.id == "math-problem").text)
    if found is None:
        return
    a, sign, b = int(found[1]), found[2], int(found[3])
    result = {"+": a + b, "-": a - b}.get(sign, a * b)
    yield from type_into(on, fields(page)[0], str(result))
    yield submit(on)


def algebra(on: Browser) -> Moves:
    page = on.look()
    problem = first(page, lambda n: n.id == "math-problem").text
    found = re.match(r"(x|-?\d+)\s*([-+])\s*(x|-?\d+)\s*=\s*(-?\d+)", problem)
    if found is None:
        return
    left, sign, right, total = found.groups()
    if left == "x":
        x = int(total) - int(right) if sign == "+" else int(total) + int(right)
    else:
        x = int(total) - int(left) if sign == "+" else int(left) - int(total)
    yield from type_into(on, fields(page)[0], str(x))
    yield submit(on)


def table(page: Page) -> dict[str, str]:
    rows = [[n.text for n in page.under(row) if n.tag == "td"] for row in page.all(lambda n: n.tag == "tr")]
    return {row[0]: row[1] for row in rows}


def read_table(on: Browser) -> Moves:
    page = on.look()
    yield from type_into(on, fields(page)[0], table(page)[page.fields["target"]])
    yield submit(on)


def read_table_2(on: Browser) -> Moves:
    page = on.look()
    labels = page.all(lambda n: n.tag == "label")
    for label, field in zip(labels, fields(page), strict=True):
        yield from type_into(on, field, table(page)[label.text.rstrip(":")])
    yield submit(on)


def text_transform(on: Browser) -> Moves:
    page = on.look()
    captcha = first(page, lambda n: n.id == "captcha")
    text = "".join(n.text for n in page.under(captcha)) or captcha.text
    yield from type_into(on, fields(page)[0], text)
    yield submit(on)


def find_word(on: Browser) -> Moves:
    page = on.look()
    words = re.findall(r"[\w']+", page.words(first(page, lambda n: n.tag == "p")))
    yield from type_into(on, fields(page)[0], words[int(page.fields["target"]) - 1])
    yield submit(on)


def use_autocomplete(on: Browser) -> Moves:
    page = on.look()
    start, end = page.fields["start"], page.fields.get("end", "")
    yield from type_into(on, fields(page)[0], start)
    yield Move(Wait(1.0), "wait for the list")
    page = on.look()
    fitting = page.all(
        lambda n: n.has("ui-menu-item-wrapper") and n.text.startswith(start) and n.text.endswith(end) and n.leaf
    )
    yield click(on, fitting[0])
    yield submit(on)


def search_engine(on: Browser) -> Moves:
    page = on.look()
    rank = int(page.fields["rank"])
    yield from type_into(on, fields(page)[0], page.fields["query"])
    yield click(on, first(page, lambda n: n.id == "search"), "search")
    for _ in range((rank - 1) // 3):
        yield click(on, named(on.look(), ">", "a"), "next page")
    yield click(on, on.look().all(lambda n: n.tag == "a" and not n.has("page-link"))[(rank - 1) % 3])


def choose_list(on: Browser) -> Moves:
    page = on.look()
    box = first(page, lambda n: n.tag == "select")
    yield click(on, box, "open the list")
    yield Move(Type(page.fields["target"]), f"write {page.fields['target']}", box.box)
    yield Move(SystemButton("Enter"), "take it")
    yield submit(on)


def search_movies(on: Browser) -> Moves:
    """One label per field, before or after it, in any order and layout."""
    page = on.look()
    words = {"genre": "genre", "director": "director", "year": "year", "date": "year"}
    labels = [key for node in page.nodes for word, key in words.items() if word in node.text.lower()]
    for label, field in zip(labels, fields(page), strict=True):
        yield from type_into(on, field, page.fields[label])
    yield click(on, first(page, lambda n: n.tag == "button" or n.has("final", "ui-submit")), "search")


def form_sequence_2(on: Browser) -> Moves:
    page = on.look()
    kind = "checkbox" if "checkbox target" in page.fields else "radio"
    boxes = page.all(lambda n: n.tag == f"input_{kind}")
    yield click(on, boxes[int(page.fields[f"{kind} target"]) - 1], f"choose this {kind}")
    yield from type_into(on, fields(page)[int(page.fields["textbox target"]) - 1], page.fields["textbox text"])
    yield submit(on)


def guess_number(on: Browser) -> Moves:
    low, high = 0, 9
    while low <= high:
        page, guess = on.look(), (low + high) // 2
        field = fields(page)[0]
        yield click(on, field, "into the field", left=8)
        if field.value:
            yield Move(Key("DELETE"), "clear it", field.box)
            yield Move(Key("BACKSPACE"), "clear it", field.box)
        yield Move(Type(str(guess)), f"try {guess}", field.box)
        yield submit(on)
        feedback = " ".join(n.text.lower() for n in on.look().nodes)
        low, high = (guess + 1, high) if "higher" in feedback else (low, guess - 1)
