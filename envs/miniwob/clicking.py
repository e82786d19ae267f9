"""Experts of pages that need clicks and waiting."""

from __future__ import annotations

import re
from calendar import month_name

from guiderail.agent.types import Wait
from guiderail.envs.miniwob.browser import Browser
from guiderail.envs.miniwob.moves import Move, Moves, click, first, named, submit, the
from guiderail.envs.miniwob.page import Node, Page


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
    yield click(on, _in_thread(on, "trash"), "to the bin")


def email_important(on: Browser) -> Moves:
    yield click(on, _in_thread(on, "star"), "mark it")


def _in_thread(on: Browser, name: str) -> Node:
    """That part of the summary of the email that is asked for."""
    page = on.look()
    thread = the(
        t
        for t in page.all(lambda n: n.has("email-thread"))
        if any(n.has("email-sender") and n.text == page.fields["by"] for n in page.under(t))
    )
    return the(n for n in page.under(thread) if n.has(name))


def choose_date(on: Browser) -> Moves:
    yield from _choose_date(on, [Move(Wait(1.0), "wait for the calendar")])


def choose_date_at_once(on: Browser) -> Moves:
    """The calendar opens and closes without an animation."""
    yield from _choose_date(on, [])


def _choose_date(on: Browser, pause: list[Move]) -> Moves:
    """The calendar opens at the last month; earlier ones are a click each away."""
    found = re.search(r"(\d+)/(\d+)/\d+", on.look().goal)
    if found is None:
        return
    yield click(on, first(on.look(), lambda n: n.id == "datepicker"), "open the calendar")
    yield from pause
    for _ in range(12):
        page = on.look()
        if first(page, lambda n: n.has("ui-datepicker-month")).text == month_name[int(found[1])]:
            yield click(on, named(page, str(int(found[2])), "a"))
            break
        yield click(on, first(page, lambda n: n.has("ui-datepicker-prev")), "a month back")
    yield from pause
    yield submit(on)


def identify_shape(on: Browser) -> Moves:
    page = on.look()
    shape = the(n for n in page.nodes if n.tag in ("text", "circle", "rect", "polygon"))
    letter = "Number" if shape.text.isdigit() else "Letter"
    name = {"circle": "Circle", "rect": "Rectangle", "polygon": "Triangle"}.get(shape.tag, letter)
    yield click(on, named(page, name, "button"))


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
