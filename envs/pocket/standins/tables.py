"""Any app that is a list of a database's rows, with a search field, a page per row, and a form for new rows.

An app is described by `TableApp`; nothing here knows which. The search keeps the rows that hold each of its words in some
column, as search does in these apps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guiderail.envs.pocket.standins import store
from guiderail.envs.pocket.standins.store import Row
from guiderail.envs.pocket.standins.widgets import attempt, button, field, grid, of, row, tell, words, written
from guiderail.envs.pocket.state import Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, Cell, Line, Op, Page

SEARCH = "Search"
SHORT = 8
"""Most letters of a choice of which three stand side by side."""


@dataclass(frozen=True, slots=True)
class Input:
    """One field of a form; with `choices` it is a group of tick boxes instead. value: what stands there at first."""

    label: str
    choices: tuple[str, ...] = ()
    value: Callable[[float], str] = lambda now: ""


@dataclass(frozen=True, slots=True)
class TableApp:
    """query: finds all rows, in the order of the list. line: a row in the list. details: (label, text) on a row's page.

    form and made: the fields of a new row, and the row that they make at a time in seconds; ValueError says what is wrong
    with them. first: which rows show while nothing is searched for.
    """

    name: str
    path: str
    table: str
    key: str
    query: str
    line: Callable[[Row], str]
    details: Callable[[Row], tuple[tuple[str, str], ...]]
    form: tuple[Input, ...] = ()
    made: Callable[[Mapping[str, str], float], Row] = lambda fields, now: {}
    first: Callable[[Row, float], bool] = lambda row, now: True


def shown(app: TableApp, state: State, front: OpenPage) -> list[Row]:
    """The rows that the list shows."""
    every = store.rows(state, app.path, app.query)
    asked = front.fields.get(SEARCH, "").casefold().split()
    if not asked:
        return [one for one in every if app.first(one, state.now)]
    return [one for one in every if all(word in _searched(app, one) for word in asked)]


def _searched(app: TableApp, one: Row) -> str:
    return " ".join((app.line(one), *(text for _, text in app.details(one)))).casefold()


def views(app: TableApp) -> dict[tuple[str, str], Callable[[State, OpenPage], Page]]:
    """What the app's pages show, by (app, page)."""

    def main(state: State, front: OpenPage) -> Page:
        lines = [_entry(app, one) for one in shown(app, state, front)]
        footer: Line = (button("Add", "table.new", app.name),) if app.form else ()
        return Page(app.name, ((field(front, SEARCH),), *(lines or [(Cell("Nothing found"),)])), footer=footer)

    def details(state: State, front: OpenPage) -> Page:
        one = _one(app, state, front.arg)
        lines: list[Line] = []
        for label, text in app.details(one) if one else ():
            lines += [(Cell(f"{label}:"),), *words(text)] if text else []
        return Page(app.name, tuple(lines), footer=(button("Delete", "table.ask", app.name, front.arg),))

    def form(state: State, front: OpenPage) -> Page:
        lines: list[Line] = []
        for one in app.form:
            lines += _choices(front, one) if one.choices else [(field(front, one.label),)]
        return Page(f"New in {app.name}", tuple(lines), footer=(button("Save", "table.save", app.name),))

    return {(app.name, "main"): main, (app.name, "row"): details, (app.name, "form"): form}


def _entry(app: TableApp, one: Row) -> Line:
    key = str(one[app.key])
    return row(app.line(one), ("go", "row", key), ("table.ask", app.name, key))


def _choices(front: OpenPage, one: Input) -> tuple[Line, ...]:
    now, width = front.fields.get(one.label, ""), 2 if any(len(choice) > SHORT for choice in one.choices) else 3
    return grid((Cell(c, ("table.choose", one.label, c), "check", checked=c == now) for c in one.choices), width)


def _one(app: TableApp, state: State, key: str) -> Row | None:
    return next((one for one in store.rows(state, app.path, app.query) if str(one[app.key]) == key), None)


def verbs(apps: Mapping[str, TableApp]) -> dict[str, Callable[..., None]]:
    """What the cells of these apps do."""

    def new(state: State, name: str) -> None:
        state.go("form")
        if state.front:
            state.front.fields = {one.label: one.value(state.now) for one in apps[name].form}
            state.focus(apps[name].form[0].label)

    def ask(state: State, name: str, key: str) -> None:
        one = _one(apps[name], state, key)
        delete: Op = ("table.delete", name, key)
        state.dialog = Dialog(apps[name].line(one) if one else name, [("Delete", delete), ("Close", DISMISS)])

    def delete(state: State, name: str, key: str) -> None:
        app = apps[name]
        one = _one(app, state, key)
        gone = one and attempt(state, lambda: store.remove(state, app.path, app.table, app.key, one[app.key]))
        if gone and state.front and state.front.key == ("row", key):
            state.back()

    def save(state: State, name: str) -> None:
        app = apps[name]
        try:
            made = app.made({one.label: written(state, one.label) for one in app.form}, state.now)
        except (ValueError, OverflowError) as error:  # a day after the last that Python has
            tell(state, str(error))
            return
        if attempt(state, lambda: store.insert(state, app.path, app.table, made)):
            state.back()

    return {"table.new": new, "table.ask": ask, "table.delete": delete, "table.save": save, "table.choose": _choose}


def _choose(state: State, label: str, choice: str) -> None:
    of(state)
    if state.front:
        state.front.fields[label] = choice
        state.blur()
