"""The apps that are lists with forms, as data: what a row shows, what a form asks, and the row that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from guiderail.envs.pocket.standins import schemas
from guiderail.envs.pocket.standins.store import Row
from guiderail.envs.pocket.standins.tables import Input, TableApp

DAY, CLOCK = "%Y-%m-%d", "%H:%M"
CATEGORIES = (
    "Others",
    "Income",
    "Food",
    "Housing",
    "Social",
    "Entertainment",
    "Transportation",
    "Clothes",
    "Health Care",
    "Education",
    "Donation",
)
"""Of expenses; the first has number 1."""
REPEATS = {"Once": 0, "Daily": 86400, "Weekly": 7 * 86400}
PRIORITIES = ("high", "medium", "low", "none")


def when(seconds: float, form: str = f"{DAY} {CLOCK}") -> str:
    """A time as the apps show it, in UTC as AndroidWorld sets the phone."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def joined(*parts: str) -> str:
    return " | ".join(part for part in parts if part)


def moment(day: str, clock: str) -> datetime:
    """Raises ValueError with a text for the user."""
    try:
        return datetime.strptime(f"{day.strip()} {clock.strip()}", f"{DAY} {CLOCK}").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("Not a date and time") from None


# ----------------------------------------------------------------------------------------------------------- calendar


def _event(fields: Mapping[str, str], now: float) -> Row:
    start, end = (moment(fields["Date"], fields[name]) for name in ("Start", "End"))
    end += timedelta(days=end < start)
    repeat = fields["Repeat"]
    text = {"title": fields["Title"], "location": fields["Location"], "description": fields["Description"]}
    reminders = {f"reminder_{k}_minutes": -1 for k in (1, 2, 3)}
    rule = {"repeat_interval": REPEATS[repeat], "repeat_rule": 1 << start.weekday() if repeat == "Weekly" else 0}
    times = {"start_ts": int(start.timestamp()), "end_ts": int(end.timestamp()), "last_updated": int(now * 1000)}
    rest = {"repetition_exceptions": "[]", "attendees": "", "import_id": "", "source": "simple-calendar"}
    return {**text, **times, **reminders, **rule, **rest, "time_zone": "UTC", "event_type": 1}


CALENDAR = TableApp(
    "Simple Calendar Pro",
    schemas.CALENDAR,
    "events",
    "id",
    "SELECT * FROM events ORDER BY start_ts, id",
    lambda e: joined(when(e["start_ts"]), e["title"]),
    lambda e: (
        ("Title", e["title"]),
        ("Location", e["location"] or ""),
        ("Start", when(e["start_ts"])),
        ("End", when(e["end_ts"])),
        ("Description", e["description"] or ""),
    ),
    (
        Input("Title"),
        Input("Location"),
        Input("Description"),
        Input("Date", value=lambda now: when(now, DAY)),
        Input("Start", value=lambda now: "08:00"),
        Input("End", value=lambda now: "09:00"),
        Input("Repeat", tuple(REPEATS), lambda now: "Once"),
    ),
    _event,
    first=lambda e, now: e["end_ts"] > now - now % 86400,
)

# ------------------------------------------------------------------------------------------------------------ recipes

_RECIPE = {
    "Title": "title",
    "Description": "description",
    "Servings": "servings",
    "Preparation time": "preparationTime",
    "Ingredients": "ingredients",
    "Directions": "directions",
}

RECIPES = TableApp(
    "Broccoli",
    schemas.RECIPES,
    "recipes",
    "recipeId",
    "SELECT * FROM recipes ORDER BY title COLLATE NOCASE, recipeId",
    lambda r: r["title"],
    lambda r: tuple((label, r[column] or "") for label, column in _RECIPE.items()),
    tuple(Input(label) for label in _RECIPE),
    lambda fields, now: {
        **{column: fields[label] for label, column in _RECIPE.items()},
        "source": "",
        "imageName": "",
        "favorite": 0,
    },
)

# ----------------------------------------------------------------------------------------------------------- expenses


def _expense(fields: Mapping[str, str], now: float) -> Row:
    try:
        cents = round(float(fields["Amount"].removeprefix("$")) * 100)
    except (ValueError, OverflowError):
        raise ValueError("Not an amount") from None
    text = {"name": fields["Name"], "note": fields["Note"], "category": CATEGORIES.index(fields["Category"]) + 1}
    return {**text, "amount": cents, "created_date": int(now * 1000), "modified_date": int(now * 1000)}


def _category(number: int) -> str:
    return CATEGORIES[number - 1] if 0 < number <= len(CATEGORIES) else ""


EXPENSES = TableApp(
    "Pro Expense",
    schemas.EXPENSES,
    "expense",
    "expense_id",
    "SELECT * FROM expense ORDER BY modified_date DESC, expense_id DESC",
    lambda e: joined(e["name"], f"${e['amount'] / 100:.2f}", when(e["created_date"] / 1000)),
    lambda e: (
        ("Name", e["name"]),
        ("Amount", f"${e['amount'] / 100:.2f}"),
        ("Category", _category(e["category"])),
        ("Date", when(e["created_date"] / 1000)),
        ("Note", e["note"] or ""),
    ),
    (Input("Name"), Input("Amount"), Input("Category", CATEGORIES, lambda now: "Others"), Input("Note")),
    _expense,
)

# -------------------------------------------------------------------------------------- tasks, sports, notes: read only


def _task(task: Row) -> str:
    due = f"due {when(task['dueDate'] / 1000)}" if task["dueDate"] else ""
    done = "done" if task["completed"] else ""
    return joined(task["title"], due, PRIORITIES[min(max(task["importance"], 0), 3)], done)


TASKS = TableApp(
    "Tasks",
    schemas.TASKS,
    "tasks",
    "_id",
    "SELECT * FROM tasks WHERE deleted = 0 ORDER BY dueDate, _id",
    _task,
    lambda t: (
        ("Title", t["title"]),
        ("State", _task(t)),
        ("Completed", when(t["completed"] / 1000) if t["completed"] else ""),
        ("Notes", t["notes"] or ""),
    ),
)
TRACKS = TableApp(
    "OpenTracks",
    schemas.TRACKS,
    "tracks",
    "_id",
    "SELECT * FROM tracks ORDER BY starttime DESC, _id",
    lambda t: joined(
        when(t["starttime"] / 1000),
        t["category"],
        f"{t['totaldistance']:.0f} m",
        f"{t['totaltime'] / 60000:.0f} min",
        t["name"],
    ),
    lambda t: (
        ("Name", t["name"]),
        ("Type", t["category"]),
        ("Description", t["description"] or ""),
        ("Up and down", f"{t['elevationgain']:.0f} m, {t['elevationloss']:.0f} m"),
    ),
)
NOTES = TableApp(
    "Joplin",
    schemas.NOTES,
    "notes",
    "id",
    "SELECT notes.*, folders.title AS folder FROM notes LEFT JOIN folders ON folders.id = notes.parent_id "
    "ORDER BY notes.updated_time DESC, notes.title, notes.id",
    lambda n: joined(n["title"], n["folder"] or "", "to-do" if n["is_todo"] else ""),
    lambda n: (("Notebook", n["folder"] or ""), ("To-do", "yes" if n["is_todo"] else "no"), ("Text", n["body"] or "")),
)

APPS: Mapping[str, TableApp] = {a.name: a for a in (CALENDAR, RECIPES, EXPENSES, TASKS, TRACKS, NOTES)}
