"""Questions about what the list apps show: search, read the rows, answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from datetime import date, datetime, timedelta

from guiderail.agent.types import Action, Open
from guiderail.envs.android_world.ways.steps import FURTHER, Params, Seen, Way, Ways, answered, read, tap
from guiderail.envs.android_world.ways.tables import search
from guiderail.envs.live.device import Element

TODAY, NOW = date(2023, 10, 15), "2023-10-15 15:34"
"""When every task of AndroidWorld begins."""
THIS_WEEK, NEXT_WEEK = ("2023-10-09", "2023-10-15"), ("2023-10-16", "2023-10-22")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def day(words: str, past: bool = False) -> str:
    """YYYY-MM-DD of a day as the tasks say it: "October 24", "this Monday", "the Friday after next". A weekday alone is
    within a week from today, before it if past. Raises ValueError."""
    text = words.strip().casefold()
    near = {"today": 0, "tomorrow": 1, "yesterday": -1}
    if text in near:
        return str(TODAY + timedelta(days=near[text]))
    weekday = text.removeprefix("this ").removeprefix("the ").removesuffix(" after next")
    if weekday in DAYS:
        ahead = (DAYS.index(weekday) - TODAY.weekday() - 1) % 7 + 1
        if text.endswith(" after next"):
            return str(TODAY + timedelta(days=ahead + 7))
        back = past and not text.startswith("this ")
        return str(TODAY - timedelta(days=(TODAY.weekday() - DAYS.index(weekday) - 1) % 7 + 1 if back else -ahead))
    for form in ("%B %d %Y", "%B %d"):
        try:
            return str(datetime.strptime(words.strip(), form).date().replace(year=TODAY.year))
        except ValueError:
            continue
    raise ValueError(f"not a day: {words!r}")


def clock(words: str) -> str:
    """HH:MM of a time such as 9:45am, 12pm or 21:45. Raises ValueError."""
    for form in ("%H:%M", "%I:%M%p", "%I%p"):
        try:
            return f"{datetime.strptime(words, form):%H:%M}"
        except ValueError:
            continue
    raise ValueError(f"not a time: {words!r}")


Cells = list[str]
"""What a row shows, part by part."""
Listed = Generator[Action, Seen, list[Cells]]


def listed(seen: Seen, app: str, words: str = "", enough: Callable[[list[str]], bool] = lambda texts: False) -> Listed:
    """The rows of an app, of those that a search keeps."""
    seen = yield Open(app)
    if words:
        seen = yield from search(seen, words)
    texts = yield from read(seen, enough)
    return [text.split(" | ") for text in texts]


# ----------------------------------------------------------------------------------------------------------- calendar


def _events(keep: Callable[[Params, str], bool], only_first: bool = False) -> Callable[[Seen, Params], Way]:
    """Titles of the events on a day whose times are wanted."""

    def way(seen: Seen, p: Params) -> Way:
        events = yield from listed(seen, "Simple Calendar Pro", day(p["date"]))
        titles = [one[1] for one in events if one[0].startswith(day(p["date"])) and keep(p, one[0][-5:])]
        return (yield from answered(*(titles[:1] if only_first else titles)))

    return way


def _next_event(seen: Seen, p: Params) -> Way:
    events = yield from listed(
        seen, "Simple Calendar Pro", enough=lambda texts: any(one[: len(NOW)] >= NOW for one in texts)
    )
    return (yield from answered(next(one[1] for one in events if one[0] >= NOW)))


def _next_week(seen: Seen, p: Params) -> Way:
    first, last = NEXT_WEEK
    events = yield from listed(
        seen, "Simple Calendar Pro", enough=lambda texts: any(one[: len(last)] > last for one in texts)
    )
    return (yield from answered(*(one[1] for one in events if first <= one[0][: len(last)] <= last)))


def _next_with(seen: Seen, p: Params) -> Way:
    events = yield from listed(seen, "Simple Calendar Pro", p["person"])
    times = [one[0] for one in events if p["person"] in one[1]]
    found = datetime.strptime(next((one for one in times if one >= NOW), times[-1]), "%Y-%m-%d %H:%M")
    return (yield from answered(f"{found:%B %d %Y %H:%M}"))


def _location(seen: Seen, p: Params) -> Way:
    seen = yield Open("Simple Calendar Pro")
    seen = yield from search(seen, p["title"])
    row = next(e.text for e in seen if e.kind == "row" and e.text.endswith(f" | {p['title']}"))
    seen = yield from tap(seen, row)
    texts = [e.text for e in seen]
    start = texts.index("Location:") + 1
    return (yield from answered(" ".join(texts[start : texts.index("Start:")])))


# -------------------------------------------------------------------------------------------------------------- tasks


def _tasks(words: Callable[[Params], str], keep: Callable[[Params, Cells], bool]) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        tasks = yield from listed(seen, "Tasks", words(p))
        return (yield from answered(*(one[0] for one in tasks if keep(p, one))))

    return way


def _due(task: Cells) -> str:
    return next((part[4:14] for part in task if part.startswith("due ")), "")


def _due_next_week(seen: Seen, p: Params) -> Way:
    first, last = NEXT_WEEK
    tasks = yield from listed(seen, "Tasks", enough=lambda texts: any(_due(one.split(" | ")) > last for one in texts))
    return (yield from answered(str(sum(first <= _due(one) <= last for one in tasks))))


# ------------------------------------------------------------------------------------------------------------- sports


def _sports(
    count: Callable[[list[Cells]], str], span: Callable[[Params], tuple[str, str]]
) -> Callable[[Seen, Params], Way]:
    """Activities of one category from a day to another."""

    def way(seen: Seen, p: Params) -> Way:
        first, last = span(p)
        rows = yield from listed(seen, "OpenTracks", p["category"])
        kept = [one for one in rows if one[1] == p["category"] and first <= one[0][: len(last)] <= last]
        return (yield from answered(count(kept)))

    return way


def _types(seen: Seen, p: Params) -> Way:
    rows = yield from listed(seen, "OpenTracks", day(p["date"], past=True))
    return (yield from answered(*(one[1] for one in rows if one[0].startswith(day(p["date"], past=True)))))


def _meters(row: Cells) -> int:
    return int(row[2].removesuffix(" m"))


def _minutes(row: Cells) -> int:
    return int(row[3].removesuffix(" min"))


def _on(p: Params) -> tuple[str, str]:
    return day(p["date"], past=True), day(p["date"], past=True)


# -------------------------------------------------------------------------------------------------------------- notes


def _note(seen: Seen, title: str) -> Generator[Action, Seen, str]:
    """What the page of a note says, from top to bottom."""
    seen = yield Open("Joplin")
    seen = yield from search(seen, title)
    seen = yield from tap(seen, next(e.text for e in seen if e.kind == "row" and e.text.split(" | ")[0] == title))
    words = ""
    before: list[Element] = []
    while [*seen] != before:
        before = [*seen]
        words += " ".join(e.text for e in seen if e.kind == "text") + " "
        seen = yield FURTHER
    return words


def _ingredient(seen: Seen, p: Params) -> Way:
    words = yield from _note(seen, p["title"])
    found = re.search(rf"- ([\d/ ]+ \w+) {re.escape(p['ingredient'])}", words)
    return (yield from answered(found.group(1) if found else ""))


def _attendees(seen: Seen, p: Params) -> Way:
    words = yield from _note(seen, p["title"])
    people = r"(\d+) (?:attendees|participants|people|individuals)"
    found = re.search(people, words)
    return (yield from answered(found.group(1) if found else ""))


def _is_todo(seen: Seen, p: Params) -> Way:
    notes = yield from listed(seen, "Joplin", p["title"])
    return (yield from answered(str(any(one[0] == p["title"] and one[-1] == "to-do" for one in notes))))


def _todos(seen: Seen, p: Params) -> Way:
    notes = yield from listed(seen, "Joplin", f"{p['folder']} to-do")
    return (yield from answered(str(sum(one[1:] == [p["folder"], "to-do"] for one in notes))))


WAYS: Ways = {
    "SimpleCalendarEventsOnDate": _events(lambda p, time: True),
    "SimpleCalendarAnyEventsOnDate": _events(lambda p, time: True),
    "SimpleCalendarEventOnDateAtTime": _events(lambda p, time: time == clock(p["time"])),
    "SimpleCalendarEventsInTimeRange": _events(lambda p, time: clock(p["start_time"]) <= time <= "20:00"),
    "SimpleCalendarFirstEventAfterStartTime": _events(lambda p, time: time >= clock(p["time"]), only_first=True),
    "SimpleCalendarNextEvent": _next_event,
    "SimpleCalendarEventsInNextWeek": _next_week,
    "SimpleCalendarNextMeetingWithPerson": _next_with,
    "SimpleCalendarLocationOfEvent": _location,
    "TasksDueOnDate": _tasks(lambda p: f"due {day(p['date'])}", lambda p, one: _due(one) == day(p["date"])),
    "TasksHighPriorityTasks": _tasks(lambda p: "high", lambda p, one: "high" in one),
    "TasksHighPriorityTasksDueOnDate": _tasks(
        lambda p: f"due {day(p['date'])} high", lambda p, one: _due(one) == day(p["date"]) and "high" in one
    ),
    "TasksDueNextWeek": _due_next_week,
    "TasksCompletedTasksForDate": _tasks(
        lambda p: f"due {day(p['date'], past=True)} done",
        lambda p, one: _due(one) == day(p["date"], past=True) and "done" in one,
    ),
    "TasksIncompleteTasksOnDate": _tasks(
        lambda p: "", lambda p, one: "" < _due(one) <= day(p["date"]) and "done" not in one
    ),
    "SportsTrackerActivitiesOnDate": _types,
    "SportsTrackerActivitiesCountForWeek": _sports(lambda rows: str(len(rows)), lambda p: THIS_WEEK),
    "SportsTrackerActivityDuration": _sports(lambda rows: str(_minutes(rows[0])), _on),
    "SportsTrackerLongestDistanceActivity": _sports(lambda rows: str(max(map(_meters, rows))), lambda p: THIS_WEEK),
    "SportsTrackerTotalDurationForCategoryThisWeek": _sports(
        lambda rows: str(sum(map(_minutes, rows))), lambda p: THIS_WEEK
    ),
    "SportsTrackerTotalDistanceForCategoryOverInterval": _sports(
        lambda rows: str(sum(map(_meters, rows))),
        lambda p: (day(p["start_date"], past=True), day(p["end_date"], past=True)),
    ),
    "NotesRecipeIngredientCount": _ingredient,
    "NotesMeetingAttendeeCount": _attendees,
    "NotesIsTodo": _is_todo,
    "NotesTodoItemCount": _todos,
}
