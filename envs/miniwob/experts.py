"""Scripts that solve pages of MiniWoB++ by clicks, text and swipes alone. They read the page's nodes, not its pixels.

An expert is a generator of moves; between two moves the world goes on, so each looks again after what it did. One that
does not know how to go on ends, and its task then counts as given up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agent.types import Action, Box, Click, Key, Swipe, SystemButton, Terminate, Type, Wait
from envs.miniwob.browser import Browser
from envs.miniwob.page import Node, Page, fraction


@dataclass(frozen=True, slots=True)
class Move:
    """box: what the action is aimed at, as screen fractions."""

    action: Action
    thought: str
    box: Box | None = None


Moves = Iterator[Move]
Expert = Callable[[Browser], Moves]
GIVE_UP = Move(Terminate("failure"), "I cannot find what I need")

# --------------------------------------------------------------------------------------------------- small moves


def click(on: Browser, node: Node, thought: str = "", left: float | None = None) -> Move:
    """left: pixels from the node's left edge instead of a point the mouse reaches."""
    where = on.reach(node.ref) if left is None else (node.left + left, node.top + node.height / 2)
    if where is None:
        return GIVE_UP
    return Move(Click(fraction(*where)), thought or f"click {node.text or node.value or node.id or node.tag}", node.box)


def type_into(on: Browser, node: Node, text: str) -> Moves:
    yield click(on, node, f"go to the field for {text}")
    yield Move(Type(text), f"write {text}", node.box)


def named(page: Page, text: str, tag: str = "") -> Node:
    """The first node with exactly this text."""
    return first(page, lambda n: n.text.strip() == text and n.tag.startswith(tag))


def first(page: Page, test: Callable[[Node], bool]) -> Node:
    return the(filter(test, page.nodes))


def the(found: Iterable[Node]) -> Node:
    """The first of them. Raises LookupError where there is none."""
    for node in found:
        return node
    raise LookupError("no such node")


def fields(page: Page) -> list[Node]:
    return page.all(
        lambda n: n.tag.startswith("input_") and n.tag[6:] in ("text", "password", "number", "date", "time")
    )


def submit(on: Browser) -> Move:
    page = on.look()
    wanted = ("submit", "login", "search", "ok")
    buttons = page.all(lambda n: n.id in ("subbtn", "submit") or n.tag == "button" or n.has("final"))
    for button in buttons:
        if button.id in ("subbtn", "submit") or page.words(button).strip().lower() in wanted:
            return click(on, button, "that is all, submit")
    raise LookupError("no submit button")


def safe(script: Expert) -> Expert:
    """Where a script looks for something that is not there, it has come to its end."""

    def run(on: Browser) -> Moves:
        try:
            yield from script(on)
        except (LookupError, ValueError):
            return

    return run


# --------------------------------------------------------------------------------------------------------- clicking


def click_only_button(on: Browser) -> Moves:
    yield click(on, first(on.look(), lambda n: n.tag == "button"))


def click_target_button(on: Browser) -> Moves:
    page = on.look()
    yield click(on, named(page, page.fields["target"], "button"))


def click_dialog(on: Browser) -> Moves:
    yield click(on, first(on.look(), lambda n: n.has("ui-dialog-titlebar-close")), "close the dialog")


def click_dialog_2(on: Browser) -> Moves:
    page = on.look()
    target = page.fields["target"]
    if target.lower() == "x":
        yield from click_dialog(on)
    else:
        yield click(on, named(page, target, "button"))


def click_link(on: Browser) -> Moves:
    page = on.look()
    yield click(on, first(page, lambda n: n.has("alink") and n.text == page.fields["target"]))


def tick(on: Browser, page: Page, label: str) -> Move:
    """Click the box or radio button beside a label."""
    row = first(page, lambda n: n.tag == "label" and page.words(n).strip() == label)
    box = the(n for n in page.under(row) if n.tag in ("input_checkbox", "input_radio"))
    return click(on, box, f"choose {label}")


def click_option(on: Browser) -> Moves:
    page = on.look()
    yield tick(on, page, page.fields["target"])
    yield submit(on)


def click_checkboxes(on: Browser) -> Moves:
    page = on.look()
    for key, target in page.fields.items():
        if key.startswith("target"):
            yield tick(on, page, target)
    yield submit(on)


def click_collapsible(on: Browser) -> Moves:
    yield click(on, first(on.look(), lambda n: n.tag == "h3"), "open the section")
    yield Move(Wait(1.0), "wait until it is open")
    yield submit(on)


def click_collapsible_2(on: Browser) -> Moves:
    target = on.look().fields["target"]
    for number in range(len(on.look().all(lambda n: n.tag == "h3"))):
        page = on.look()
        links = page.all(lambda n: n.has("alink") and n.text == target)
        if links and on.reach(links[0].ref):
            break
        yield click(on, page.all(lambda n: n.tag == "h3")[number], "look into this section")
        yield Move(Wait(1.0), "wait until it is open")
    page = on.look()
    yield click(on, first(page, lambda n: n.has("alink") and n.text == target))


def click_tab(on: Browser) -> Moves:
    page = on.look()
    yield click(on, named(page, f"Tab #{page.fields['target']}", "a"))


def click_tab_2(on: Browser) -> Moves:
    target = on.look().fields["target"]
    for number in range(6):
        page = on.look()
        links = page.all(lambda n: n.has("alink") and n.text == target)
        if links:
            yield click(on, links[0], f"there is {target}")
            return
        tabs = page.all(lambda n: n.has("ui-tabs-anchor"))
        yield click(on, tabs[min(number + 1, len(tabs) - 1)], "it is not here, try the next tab")


COLORS = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "aqua": (0, 255, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "pink": (255, 192, 203),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "gray": (128, 128, 128),
    "brown": (165, 42, 42),
    "olive": (128, 128, 0),
    "navy": (0, 0, 128),
    "teal": (0, 128, 128),
}


def click_color(on: Browser) -> Moves:
    page = on.look()
    wanted = COLORS[page.fields["target"]]

    def distance(node: Node) -> int:
        parts = [int(part) for part in re.findall(r"\d+", node.background)[:3]]
        return sum((a - b) ** 2 for a, b in zip(parts, wanted, strict=True))

    yield click(on, min(page.all(lambda n: n.has("color")), key=distance), f"the {page.fields['target']} one")


def click_widget(on: Browser) -> Moves:
    page = on.look()
    tag = {"button": "button", "textarea": "textarea"}.get(page.fields["target"], f"input_{page.fields['target']}")
    yield click(on, first(page, lambda n: n.tag == tag))


def click_button_sequence(on: Browser) -> Moves:
    for name in ("ONE", "TWO"):
        yield click(on, named(on.look(), name, "button"))


def grid_coordinate(on: Browser) -> Moves:
    page = on.look()
    yield click(on, first(page, lambda n: n.id == f"({page.fields['x']},{page.fields['y']})"), "this point")


def ascending_numbers(on: Browser) -> Moves:
    """After the first one they are hidden by squares, which stay in order."""
    yield click(on, named(on.look(), "1", "text"))
    while squares := on.look().all(lambda n: n.tag == "rect"):
        yield click(on, squares[0], "the next number was here")


def navigate_tree(on: Browser) -> Moves:
    target = on.look().fields["target"]
    for _ in range(12):
        page = on.look()
        found = page.all(lambda n: n.tag == "span" and n.text == target and n.has("file", "folder"))
        if found:
            yield click(on, found[0], f"there is {target}")
            return
        folder = the(n for n in page.nodes if n.has("folder") and closed(page, n))
        yield click(on, folder, f"look into {folder.text}")
        yield Move(Wait(0.5), "wait until it is open")


def closed(page: Page, node: Node) -> bool:
    parent = page.parent(node)
    return parent is not None and parent.has("expandable", "lastExpandable")


def odd_or_even(on: Browser) -> Moves:
    page = on.look()
    for row in page.all(lambda n: n.has("row")):
        number = int(the(n for n in page.under(row) if n.has("display-number")).text)
        side = "even" if number % 2 == 0 else "odd"
        yield click(on, the(n for n in page.under(row) if n.has(side) and n.tag == "button"), f"{number} is {side}")
    yield submit(on)


def phone_book(on: Browser) -> Moves:
    goal = on.look().fields
    for _ in range(20):
        page = on.look()
        if page.all(lambda n: n.has("name") and n.text == goal["name"]):
            yield click(on, first(page, lambda n: n.tag == "a" and n.has(goal["target"].split()[0])), goal["target"])
            return
        yield click(on, first(page, lambda n: n.tag == "a" and n.text == ">"), "not here, next page")


def email_delete(on: Browser) -> Moves:
    page = on.look()
    thread = the(
        t
        for t in page.all(lambda n: n.has("email-thread"))
        if any(n.has("email-sender") and n.text == page.fields["by"] for n in page.under(t))
    )
    yield click(on, the(n for n in page.under(thread) if n.has("trash")), "to the bin")


def identify_shape(on: Browser) -> Moves:
    page = on.look()
    shape = the(n for n in page.nodes if n.tag in ("text", "circle", "rect", "polygon"))
    letter = "Number" if shape.text.isdigit() else "Letter"
    name = {"circle": "Circle", "rect": "Rectangle", "polygon": "Triangle"}.get(shape.tag, letter)
    yield click(on, named(page, name, "button"))


# ----------------------------------------------------------------------------------------------------------- typing


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
    """A pop-up may come between any two moves; it is cancelled and the fields are filled again where needed."""
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


def drag(node: Node, right: float, down: float) -> Move:
    """Pixels of the page."""
    x, y = node.left + node.width / 2, node.top + node.height / 2
    return Move(Swipe(fraction(x, y), fraction(x + right, y + down)), "drag it there", node.box)


def drag_box(on: Browser) -> Moves:
    page = on.look()
    small, large = first(page, lambda n: n.id == "draggableSmall"), first(page, lambda n: n.id == "draggableLarge")
    across = large.left + large.width / 2 - small.left - small.width / 2
    yield drag(small, across, large.top + large.height / 2 - small.top - small.height / 2)
    yield submit(on)


def drag_shape(on: Browser) -> Moves:
    page = on.look()
    shape = first(page, lambda n: n.tag in ("circle", "rect", "polygon", "text"))
    right, down = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[page.fields["target"]]
    yield drag(shape, 30 * right, 30 * down)
    yield submit(on)


def generate_number(on: Browser) -> Moves:
    page = on.look()
    kind = page.fields.get("criterion", "")
    for _ in range(14):
        shown = first(on.look(), lambda n: n.id == "display-number").text
        if shown.lstrip("-").isdigit() and _fits(int(shown), kind, page.fields.get("number", "0")):
            yield submit(on)
            return
        yield click(on, first(page, lambda n: n.id == "generate"), "try another number")


def _fits(number: int, kind: str, limit: str) -> bool:
    return {
        "less than": number < int(limit),
        "greater than": number > int(limit),
        "even": number % 2 == 0,
        "odd": number % 2 == 1,
    }.get(kind, False)


EXPERTS: dict[str, Expert] = {
    name: safe(script)
    for name, script in {
        "ascending-numbers": ascending_numbers,
        "choose-list": choose_list,
        "click-button": click_target_button,
        "click-button-sequence": click_button_sequence,
        "click-checkboxes": click_checkboxes,
        "click-checkboxes-large": click_checkboxes,
        "click-checkboxes-transfer": click_checkboxes,
        "click-collapsible": click_collapsible,
        "click-collapsible-nodelay": click_collapsible,
        "click-collapsible-2": click_collapsible_2,
        "click-collapsible-2-nodelay": click_collapsible_2,
        "click-color": click_color,
        "click-dialog": click_dialog,
        "click-dialog-2": click_dialog_2,
        "click-link": click_link,
        "click-option": click_option,
        "click-tab": click_tab,
        "click-tab-2": click_tab_2,
        "click-tab-2-easy": click_tab_2,
        "click-tab-2-medium": click_tab_2,
        "click-test": click_only_button,
        "click-test-2": click_target_button,
        "click-test-transfer": click_target_button,
        "click-widget": click_widget,
        "copy-paste": copy_paste,
        "copy-paste-2": copy_paste,
        "drag-box": drag_box,
        "drag-circle": drag_shape,
        "drag-single-shape": drag_shape,
        "email-inbox-delete": email_delete,
        "enter-date": enter_date,
        "enter-password": enter_password,
        "enter-text": enter_text,
        "enter-text-2": enter_text_2,
        "enter-text-dynamic": enter_text,
        "enter-time": enter_time,
        "find-word": find_word,
        "focus-text": focus_text,
        "focus-text-2": focus_text,
        "form-sequence-2": form_sequence_2,
        "generate-number": generate_number,
        "grid-coordinate": grid_coordinate,
        "guess-number": guess_number,
        "identify-shape": identify_shape,
        "login-user": login_user,
        "login-user-popup": login_user_popup,
        "multi-layouts": search_movies,
        "multi-orderings": search_movies,
        "navigate-tree": navigate_tree,
        "odd-or-even": odd_or_even,
        "phone-book": phone_book,
        "read-table": read_table,
        "read-table-2": read_table_2,
        "search-engine": search_engine,
        "simple-algebra": algebra,
        "simple-arithmetic": arithmetic,
        "text-transform": text_transform,
        "unicode-test": click_target_button,
        "use-autocomplete": use_autocomplete,
        "use-autocomplete-nodelay": use_autocomplete,
    }.items()
}
