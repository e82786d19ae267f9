"""Rows of the list apps: a form filled for each new one, a search and a long press for each that goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from guiderail.agent.types import Click, Open, Type
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways, field, hold, tap
from guiderail.envs.pocket.standins.catalogue import CALENDAR, CATEGORIES, CLOCK, DAY, EXPENSES, RECIPES, REPEATS, when
from guiderail.envs.pocket.standins.store import Row
from guiderail.envs.pocket.standins.tables import Input, TableApp


def search(seen: Seen, words: str) -> Way:
    """A tap selects the old words."""
    yield Click(field(seen, 0))
    return (yield Type(words))


def fill(seen: Seen, form: tuple[Input, ...], values: Mapping[str, str]) -> Way:
    """What a form asks and does not say already. It opens with the cursor in its first field."""
    texts = [one.label for one in form if not one.choices]
    for one in form:
        value = values.get(one.label, "")
        if one.choices and value:
            seen = yield from tap(seen, value)
        elif value:
            if one is not form[0]:
                yield Click(field(seen, texts.index(one.label)))
            seen = yield Type(value)
    return (yield from tap(seen, "Save"))


def _add(app: TableApp, values: Callable[[Row], Mapping[str, str]]) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app.name)
        for row in p["row_objects"]:
            seen = yield from tap(seen, "Add")
            seen = yield from fill(seen, app.form, values(row))
        return seen

    return way


def _recipe(row: Row) -> Mapping[str, str]:
    return dict(RECIPES.details(row))


def _expense(row: Row) -> Mapping[str, str]:
    cents = f"{row['amount'] / 100:.2f}"
    return {"Name": row["name"], "Amount": cents, "Category": CATEGORIES[row["category"] - 1], "Note": row["note"]}


def _event(row: Row) -> Mapping[str, str]:
    repeat = next(name for name, seconds in REPEATS.items() if seconds == row["repeat_interval"])
    texts = {"Title": row["title"], "Location": row["location"], "Description": row["description"]}
    times = {
        "Date": when(row["start_ts"], DAY),
        "Start": when(row["start_ts"], CLOCK),
        "End": when(row["end_ts"], CLOCK),
    }
    return {**texts, **times, "Repeat": repeat if repeat != "Once" else ""}


def _delete(app: TableApp, words: Callable[[Row], str]) -> Callable[[Seen, Params], Way]:
    """Search for each row, hold it, delete it. Of equal rows it is the first that goes."""

    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app.name)
        asked = ""
        for row in p["row_objects"]:
            if words(row) != asked:
                asked = words(row)
                seen = yield from search(seen, asked)
            seen = yield from hold(seen, app.line(row), "Delete")
        return seen

    return way


def _one_of_two(way: Callable[[Seen, Params], Way]) -> Callable[[Seen, Params], Way]:
    """The first of two equal rows."""
    return lambda seen, p: way(seen, {**p, "row_objects": p["row_objects"][:1]})


def _everything(row: Row) -> str:
    """All that a recipe says, so that others of the same title are not shown."""
    return " ".join(dict.fromkeys(" ".join(text for _, text in RECIPES.details(row)).split()))


_events = _delete(CALENDAR, lambda row: when(row["start_ts"], DAY))
_recipes, _alike = _delete(RECIPES, lambda row: str(row["title"])), _delete(RECIPES, _everything)
_expenses = _delete(EXPENSES, lambda row: str(row["name"]))

WAYS: Ways = {
    **{
        f"SimpleCalendarAdd{kind}": _add(CALENDAR, _event)
        for kind in (
            "OneEvent",
            "OneEventInTwoWeeks",
            "OneEventRelativeDay",
            "OneEventTomorrow",
            "RepeatingEvent",
        )
    },
    **{f"SimpleCalendarDelete{kind}": _events for kind in ("Events", "EventsOnRelativeDay", "OneEvent")},
    **{
        f"Recipe{kind}": _add(RECIPES, _recipe)
        for kind in (
            "AddMultipleRecipes",
            "AddMultipleRecipesFromImage",
            "AddMultipleRecipesFromMarkor",
            "AddMultipleRecipesFromMarkor2",
            "AddSingleRecipe",
        )
    },
    "RecipeDeleteDuplicateRecipes": _one_of_two(_recipes),
    "RecipeDeleteDuplicateRecipes2": _one_of_two(_alike),
    "RecipeDeleteDuplicateRecipes3": _one_of_two(_alike),
    "RecipeDeleteMultipleRecipes": _recipes,
    "RecipeDeleteMultipleRecipesWithConstraint": _alike,
    "RecipeDeleteMultipleRecipesWithNoise": _recipes,
    "RecipeDeleteSingleRecipe": _recipes,
    "RecipeDeleteSingleWithRecipeWithNoise": _recipes,
    **{
        f"Expense{kind}": _add(EXPENSES, _expense)
        for kind in ("AddMultiple", "AddMultipleFromGallery", "AddMultipleFromMarkor", "AddSingle")
    },
    "ExpenseDeleteDuplicates": _one_of_two(_expenses),
    "ExpenseDeleteDuplicates2": _one_of_two(_expenses),
    **{f"ExpenseDelete{kind}": _expenses for kind in ("Multiple", "Multiple2", "Single")},
}
