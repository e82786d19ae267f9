"""The ways through the list apps, messages, media and maps: what the phone's databases and files hold afterwards."""

import io
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from guiderail.agent.types import Click, Terminate
from guiderail.envs.android_world.expert import UNSEEN, WAYS, WITHOUT, Expert
from guiderail.envs.android_world.ways import questions
from guiderail.envs.pocket.adb.shell import run_line
from guiderail.envs.pocket.aosp import aosp_state
from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.standins import catalogue, maps, people, schemas, store
from guiderail.envs.pocket.standins.catalogue import CALENDAR, EXPENSES, RECIPES


@pytest.fixture
def hand():
    return PhoneInHand(Phone(aosp_state(0), 270, 600))


def go(hand, task, steps=60, **params):
    """Let the expert do the task, in fewer actions than `steps`."""
    expert = Expert(task, params)
    for _ in range(steps):
        action = expert.act(hand.elements())
        if isinstance(action, Terminate):
            assert action.status == "success", (task, [e.text for e in hand.elements()])
            return
        hand.act(action)
    raise AssertionError(f"{task} takes more than {steps} steps")


def rows(hand, app):
    return store.rows(hand.phone.state, app.path, f"SELECT * FROM {app.table} ORDER BY {app.key}")


def put(hand, app, *made):
    for one in made:
        store.insert(hand.phone.state, app.path, app.table, one)
    return rows(hand, app)


def at(*when):
    return int(datetime(2023, *when, tzinfo=UTC).timestamp())


def event(title, *when, minutes=30, **other):
    start = at(*when)
    return {
        "title": title,
        "start_ts": start,
        "end_ts": start + 60 * minutes,
        "location": "",
        "description": "",
        **other,
    }


def test_every_task_of_a_way_has_one_and_tables_do_not_overlap():
    assert len(WAYS) == 113
    assert not set(WAYS) & set(WITHOUT)
    assert set(UNSEEN) < set(WAYS)


def test_an_event_is_made_with_times_and_repetition(hand):
    wanted = event("Call with Ann", 10, 29, 23, minutes=90, location="Room 2", description="We plan. Bring tea.")
    go(hand, "SimpleCalendarAddRepeatingEvent", row_objects=[wanted | {"repeat_interval": 604800}])
    (made,) = rows(hand, CALENDAR)
    assert wanted.items() <= made.items()  # across midnight
    assert (made["repeat_interval"], made["repeat_rule"], made["time_zone"]) == (604800, 1 << 6, "UTC")  # a Sunday


def test_only_the_wanted_events_go(hand):
    old = put(hand, CALENDAR, *(event(f"E{k}", 10, 1 + k, 9) for k in range(25)), event("E8", 10, 9, 11))
    go(
        hand,
        "SimpleCalendarDeleteEvents",
        row_objects=[one for one in old if one["start_ts"] // 86400 == at(10, 9) // 86400],
    )
    assert rows(hand, CALENDAR) == [one for one in old if one["start_ts"] // 86400 != at(10, 9) // 86400]


def test_recipes_and_expenses_are_added_as_written(hand):
    recipe = dict.fromkeys(
        ("title", "description", "servings", "preparationTime", "ingredients", "directions"), "x, 1/2"
    )
    recipe["directions"] = "Mix it well. " * 30
    go(hand, "RecipeAddMultipleRecipes", row_objects=[recipe, recipe | {"title": "Other"}])
    made = rows(hand, RECIPES)
    assert [one["title"] for one in made] == ["x, 1/2", "Other"]
    assert made[0]["directions"] == recipe["directions"]
    go(hand, "ExpenseAddSingle", 12, row_objects=[{"name": "Tea", "amount": 1205, "category": 9, "note": "Urgent"}])
    (one,) = rows(hand, EXPENSES)
    assert (one["name"], one["amount"], one["category"], one["note"]) == ("Tea", 1205, 9, "Urgent")
    assert one["created_date"] == pytest.approx(1000 * hand.phone.state.now, abs=10_000)


def test_of_equal_rows_one_goes_and_of_alike_rows_the_right_one(hand):
    same = {
        "name": "Tea",
        "amount": 100,
        "category": 3,
        "note": "",
        "created_date": 1000 * at(10, 2),
        "modified_date": 0,
    }
    old = put(hand, EXPENSES, same, same, same | {"amount": 101})
    go(hand, "ExpenseDeleteDuplicates2", 18, row_objects=[old[0], old[1]])
    assert [one["amount"] for one in rows(hand, EXPENSES)] == [100, 101]
    alike = {"title": "Soup", "description": "d", "servings": "1", "preparationTime": "5 mins", "ingredients": "salt"}
    old = put(hand, RECIPES, *(alike | {"directions": f"Use {what}."} for what in ("milk", "oat milk", "cream")))
    go(hand, "RecipeDeleteMultipleRecipesWithConstraint", row_objects=[old[2]])
    assert [one["directions"] for one in rows(hand, RECIPES)] == ["Use milk.", "Use oat milk."]


def test_questions_about_events_are_answered_from_the_screen(hand):
    put(
        hand,
        CALENDAR,
        *(event(f"Old {k}", 10, 1 + k, 9) for k in range(14)),
        event("Gone", 10, 15, 9),
        event("Team lunch", 10, 15, 16),
        event("Game night", 10, 17, 19, location="City Park, north gate of the old town"),
        event("Drinks with Ava", 10, 28, 15, 15),
        *(event(f"Late {k}", 10, 23 + k % 5, 8) for k in range(12)),
    )
    asked = {
        "SimpleCalendarEventsOnDate": ({"date": "this Tuesday"}, "Game night"),
        "SimpleCalendarEventsInTimeRange": ({"date": "October 17", "start_time": "5:20pm"}, "Game night"),
        "SimpleCalendarFirstEventAfterStartTime": ({"date": "October 17 2023", "time": "7pm"}, "Game night"),
        "SimpleCalendarNextEvent": ({}, "Team lunch"),
        "SimpleCalendarEventsInNextWeek": ({}, "Game night"),
        "SimpleCalendarNextMeetingWithPerson": ({"person": "Ava"}, "October 28 2023 15:15"),
        "SimpleCalendarLocationOfEvent": ({"title": "Game night"}, "City Park, north gate of the old town"),
    }
    for task, (params, answer) in asked.items():
        go(hand, task, 10, **params)
        assert hand.answers[-1] == answer, task


def test_questions_about_tasks_sports_and_notes(hand):
    task = {"importance": 2, "completed": 0, "deleted": 0}
    due = [{**task, "title": f"T{k}", "dueDate": 1000 * at(10, 10 + k % 16, 8)} for k in range(40)]
    due[6] |= {"importance": 0}
    due[7] |= {"completed": 1000 * at(10, 12)}
    put(hand, catalogue.TASKS, *due)
    track = {"name": "n", "elevationgain": 0, "elevationloss": 0}
    spans = ((9, "running", 1200, 30), (15, "running", 500, 12), (8, "running", 9000, 90), (12, "trail running", 7, 1))
    for day, kind, meters, minutes in spans:
        times = {"starttime": 1000 * at(10, day, 7), "totaltime": 60000 * minutes}
        put(hand, catalogue.TRACKS, {**track, **times, "category": kind, "totaldistance": float(meters)})
    store.insert(hand.phone.state, schemas.NOTES, "folders", {"id": "f", "title": "Work"})
    body = "Notes:\n" + "- milestones\n" * 20 + "- 25 people were present\n- 1/2 cup goji berries\n"
    for k, todo in enumerate((1, 1, 0)):
        put(hand, catalogue.NOTES, {"id": str(k), "parent_id": "f", "title": f"N{k}", "body": body, "is_todo": todo})
    asked = {
        "TasksHighPriorityTasks": ({}, "T6"),
        "TasksHighPriorityTasksDueOnDate": ({"date": "tomorrow"}, "T6"),
        "TasksCompletedTasksForDate": ({"date": "October 17"}, "T7"),
        "TasksDueNextWeek": ({}, "16"),
        "SportsTrackerActivitiesCountForWeek": ({"category": "running"}, "2"),
        "SportsTrackerLongestDistanceActivity": ({"category": "running"}, "1200"),
        "SportsTrackerTotalDurationForCategoryThisWeek": ({"category": "running"}, "42"),
        "SportsTrackerActivityDuration": ({"category": "running", "date": "Sunday"}, "90"),
        "NotesTodoItemCount": ({"folder": "Work"}, "2"),
        "NotesIsTodo": ({"title": "N2"}, "False"),
        "NotesMeetingAttendeeCount": ({"title": "N1"}, "25"),
        "NotesRecipeIngredientCount": ({"title": "N1", "ingredient": "goji berries"}, "1/2 cup"),
    }
    for name, (params, answer) in asked.items():
        go(hand, name, 12, **params)
        assert hand.answers[-1] == answer, name


def test_days_as_tasks_say_them():
    assert [questions.day(d) for d in ("today", "October 24", "October 24 2023", "Sunday", "this Monday")] == [
        "2023-10-15",
        "2023-10-24",
        "2023-10-24",
        "2023-10-22",
        "2023-10-16",
    ]
    assert questions.day("the Monday after next") == "2023-10-23"
    assert [questions.day(d, past=True) for d in ("Sunday", "Saturday", "yesterday")] == [
        "2023-10-08",
        *["2023-10-14"] * 2,
    ]
    assert [questions.clock(t) for t in ("9:45am", "12pm", "12am", "21:45")] == ["09:45", "12:00", "00:00", "21:45"]
    for bad in (questions.day, questions.clock):
        with pytest.raises(ValueError, match="not a"):
            bad("someday")


def test_messages_are_sent_and_read(hand):
    state = hand.phone.state
    contact = "android.intent.action.INSERT -t vnd.android.cursor.dir/contact"
    run_line(hand.phone, f"am start -a {contact} -e name 'Ann Lee' -e phone +1555")
    click(hand, "Save")
    assert people.contacts(state)[0].items() >= {"display_name": "Ann Lee", "number": "+1555"}.items()
    run_line(hand.phone, 'am start -a android.intent.action.SENDTO -d sms:+1555 --es sms_body "It\'s due"')
    click(hand, "SMS")
    people.receive(state, "+1777", "12 Main St Girdwood, AK, 99587, second floor")
    store.insert(state, schemas.CONTACTS, "contacts", {"display_name": "Bob Ray", "number": "+1-777"})
    go(hand, "SimpleSmsSendReceivedAddress", 18, name1="Ann Lee", name2="Bob Ray")
    people.receive(state, "+1888", "Hello")
    go(hand, "SimpleSmsReplyMostRecent", 12, message="On my way")
    go(hand, "SimpleSmsReply", 12, number="+1888", message="Soon")
    go(hand, "SimpleSmsSend", 12, number="+1 (999)", message="To a new number")
    assert [(one["address"], one["body"]) for one in people.messages(state, people.SENT)] == [
        ("+1999", "To a new number"),
        ("+1888", "Soon"),
        ("+1888", "On my way"),
        ("+1555", "12 Main St Girdwood, AK, 99587, second floor"),
        ("+1555", "It's due"),
    ]
    listed = run_line(hand.phone, "content query --uri content://sms/sent").splitlines()
    assert "address=+1555, body=It's due, service_center=" in listed[4]
    assert run_line(hand.phone, "content query --uri content://sms/inbox").count("Row: ") == 2


def test_the_message_just_sent_is_sent_again(hand):
    state = hand.phone.state
    store.insert(state, schemas.CONTACTS, "contacts", {"display_name": "Ann Lee", "number": "+1555"})
    people.record(state, "+1555", "Do come to the meeting at the old town hall", people.SENT)
    people.receive(state, "+1555", "What was it?")
    go(hand, "SimpleSmsResend", 12, name="Ann Lee")
    sent = [one["body"] for one in people.messages(state, people.SENT)]
    assert sent == ["Do come to the meeting at the old town hall"] * 2


def test_a_draft_is_shown_and_not_saved(hand):
    go(hand, "ContactsNewContactDraft", 12, first="Grace", last="Lee", phone="799-802", phone_label="Work")
    assert [e.text for e in hand.elements()] == ["Add", "Grace", "Lee", "799-802", "Work", "Save"]
    assert people.contacts(hand.phone.state) == []


def click(hand, text):
    hand.act(Click(next(e for e in hand.elements() if e.text == text).box.center))


def silent_mp3(title, seconds):
    """ID3v2.4 tags and one frame of 128 kbit/s whose Xing header counts the frames."""
    text = b"\x03" + title.encode()
    tags = b"TIT2" + len(text).to_bytes(4, "big") + bytes(2) + text
    frames = round(seconds * 44100 / 1152)
    audio = b"\xff\xfb\x90\x00" + bytes(32) + b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big") + bytes(300)
    return b"ID3\x04\x00\x00" + len(tags).to_bytes(4, "big") + tags + audio


def test_playlists_keep_their_order(hand):
    state = hand.phone.state
    for k in range(15):
        state.files.write(f"{SHARED}/Music/{k}.mp3", silent_mp3(f"Song {k:02d}", 200 + k), 0.0)
        state.files.write(f"{SHARED}/VLCVideos/v{k:02d}.mp4", b"video", 0.0)
    names = ["Song 13", "Song 00", "Song 07"]
    go(hand, "RetroSavePlaylist", 50, playlist_name="Mix 1", files=[f"{one}.mp3" for one in names])
    songs = store.rows(state, schemas.PLAYLISTS, "SELECT title, duration FROM SongEntity ORDER BY song_key")
    assert [one["title"] for one in songs] == names
    assert songs[0]["duration"] == pytest.approx(213_000, abs=20)
    assert state.files[f"{SHARED}/Download/Mix 1.m3u"].splitlines()[1] == f"{SHARED}/Music/13.mp3".encode()
    go(hand, "RetroPlayingQueue", 32, files=[f"{one}.mp3" for one in names])
    queue = store.rows(state, schemas.PLAYBACK, "SELECT title FROM playing_queue")
    assert [one["title"] for one in queue] == names
    two = {"playlist_name1": "A", "files1": ["v14.mp4", "v02.mp4"], "playlist_name2": "B", "files2": ["v05.mp4"]}
    go(hand, "VlcCreateTwoPlaylists", 48, **two)
    made = store.rows(
        state,
        schemas.MEDIA,
        "SELECT name, filename, position FROM PlaylistMediaRelation JOIN Playlist ON id_playlist = playlist_id "
        "JOIN Media ON id_media = media_id ORDER BY name, position",
    )
    assert [tuple(one.values()) for one in made] == [("A", "v14.mp4", 0), ("A", "v02.mp4", 1), ("B", "v05.mp4", 0)]


def test_places_go_into_gpx_files_and_the_markers(hand):
    state = hand.phone.state
    for location in ("Planken, Liechtenstein", "47.1303814, 9.5930117"):
        go(hand, "OsmAndFavorite", 13, location=location)
    points = ElementTree.parse(io.BytesIO(state.files[maps.FAVORITES])).getroot().findall(f"{{{maps.GPX}}}wpt")
    assert [(one.get("lat"), one.get("lon")) for one in points] == [
        ("47.1858882", "9.5452201"),
        ("47.1303814", "9.5930117"),
    ]
    go(hand, "OsmAndMarker", 20, location="Schönberg, Liechtenstein")
    (marker,) = store.rows(state, schemas.MARKERS, "SELECT * FROM map_markers")
    assert (marker["marker_lat"], marker["marker_lon"]) == (47.1303814, 9.5930117)
    go(hand, "OsmAndTrack", waypoints=["Schaan, Liechtenstein", "Malbun, Liechtenstein"], track_name="a to b")
    track = ElementTree.fromstring(state.files[f"{maps.TRACKS}/a to b.gpx"])
    assert [float(p.get("lat")) for p in track.iter(f"{{{maps.GPX}}}trkpt")] == [47.1663432, 47.1026191]


def test_notes_get_lines_and_a_drawing_is_a_picture(hand):
    files = hand.phone.state.files
    for k in range(20):
        files.write(f"{SHARED}/Documents/Markor/n{k:02d}.md", f"text {k}\n".encode(), 0.0)
    go(hand, "MarkorAddNoteHeader", 12, original_name="n17.md", new_name="new.md", header="Head")
    assert files[f"{SHARED}/Documents/Markor/new.md"] == b"Head\n\ntext 17\n"
    go(hand, "MarkorMergeNotes", 78, new_file_name="all", file1_name="n01.md", file2_name="n19.md", file3_name="n02.md")
    assert files[f"{SHARED}/Documents/Markor/all"] == b"text 1\n\ntext 19\n\ntext 2"
    go(hand, "SimpleDrawProCreateDrawing", 18, file_name="a.png")
    assert files[f"{SHARED}/Pictures/a.png"].startswith(b"\x89PNG")
    files.write(f"{SHARED}/DCIM/r.jpg", b"jpg", 0.0)
    go(hand, "SaveCopyOfReceiptTaskEval", 16, file_name="r.jpg")
    assert (files[f"{SHARED}/Download/r.jpg"], files[f"{SHARED}/DCIM/r.jpg"]) == (b"jpg", b"jpg")


def test_an_expert_that_does_not_get_on_gives_up(hand):
    assert Expert("SimpleCalendarEventsOnDate", {"date": "someday"}).act(hand.elements()) == Terminate("failure")
