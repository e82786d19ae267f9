"""AndroidWorld's stand-ins: databases that adb can pull, replace and spoil, forms that say what is wrong, many resets."""

import gc
import sqlite3
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.types import Click, LongPress, Open, Point, Swipe, SystemButton, Type
from guiderail.envs.android.adb import read_window
from guiderail.envs.pocket.adb.shell import execute, run_line
from guiderail.envs.pocket.aosp import COMPONENTS, aosp_state
from guiderail.envs.pocket.files import SHARED, FileError
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.standins import schemas, store
from guiderail.envs.pocket.standins.mp3 import Song, read_song
from guiderail.envs.pocket.tree import window_xml


@pytest.fixture
def hand():
    return PhoneInHand(Phone(aosp_state(0), 270, 600))


def tap(hand, text):
    hand.act(Click(next(e for e in hand.elements() if e.text == text).box.center))


def texts(hand):
    return [e.text for e in hand.elements()]


def test_each_database_is_a_file_that_sqlite_opens_with_the_columns_it_says(hand, tmp_path):
    for path, tables in schemas.DATABASES.items():
        (tmp_path / "base").write_bytes(hand.phone.state.files[path])
        base = sqlite3.connect(tmp_path / "base")
        for table, (key, numbers, words) in tables.items():
            wanted = {key.split()[0], *numbers.replace("~", "").split(), *words.split()}
            assert {row[1] for row in base.execute(f"PRAGMA table_info({table})")} == wanted
        base.close()


def test_what_adb_puts_there_is_what_the_app_shows(hand, tmp_path):
    file = tmp_path / "recipes"
    file.write_bytes(hand.phone.state.files[schemas.RECIPES])
    with sqlite3.connect(file) as base:
        base.execute("INSERT INTO recipes (title, directions) VALUES ('Soup', 'Boil it')")
    base.close()
    hand.phone.state.files.write(schemas.RECIPES, file.read_bytes(), 0.0)
    hand.act(Open("Broccoli"))
    assert "Soup" in texts(hand)
    for spoilt in (b"", b"no database", file.read_bytes()[:3000], bytes(5000)):
        hand.phone.state.files.write(schemas.RECIPES, spoilt, 0.0)
        assert texts(hand) == ["Broccoli", "Search", "Nothing found", "Add"]
        tap(hand, "Add")
        tap(hand, "Save")
        assert texts(hand)[-1] == "OK"  # the app says what SQLite says
        tap(hand, "OK")
        hand.act(Open("Broccoli"))


def test_a_missing_database_is_made_anew_when_its_app_starts_or_stops(hand):
    hand.shell(["rm", "-r", "/data/data/code.name.monkey.retromusic/databases"])
    with pytest.raises(FileError):
        store.run(hand.phone.state, schemas.PLAYBACK, "SELECT * FROM playing_queue")
    hand.shell(["am", "force-stop", "code.name.monkey.retromusic"])
    assert store.run(hand.phone.state, schemas.PLAYBACK, "SELECT * FROM playing_queue") == []


def test_sqlite3_over_adb(hand):
    said = "sqlite3 /data/data/com.arduia.expense/databases/accounting.db"
    assert run_line(hand.phone, f"{said} \"INSERT INTO expense (name, amount) VALUES ('Tea', 5);\"") == ""
    assert run_line(hand.phone, f'{said} "SELECT name, amount, note FROM expense"') == "Tea|5|\n"
    for bad in ("SELECT * FROM nothing", "ATTACH 'x' AS y", "VACUUM INTO '/tmp/x'", "PRAGMA journal_mode=WAL"):
        status, answer = execute(hand.phone, f'{said} "{bad}"')
        assert (status, answer[:6]) == (1, b"Error:")


def test_forms_say_what_is_wrong(hand):
    hand.act(Open("Pro Expense"))
    tap(hand, "Add")
    hand.act(Type("Tea"))
    tap(hand, "Save")
    assert "Not an amount" in texts(hand)
    tap(hand, "OK")
    hand.act(Open("Simple Calendar Pro"))
    tap(hand, "Add")
    tap(hand, "2023-10-15")
    hand.act(Type("tomorrow"))
    tap(hand, "Save")
    assert "Not a date and time" in texts(hand)


def test_numbers_and_days_that_nothing_can_hold(hand):
    hand.act(Open("Pro Expense"))
    tap(hand, "Add")
    hand.act(Type("Tea"))
    tap(hand, "Amount")
    hand.act(Type("100000000000000000"))
    tap(hand, "Save")
    assert any("too large" in text for text in texts(hand))
    tap(hand, "OK")
    hand.act(Open("Simple Calendar Pro"))
    tap(hand, "Add")
    tap(hand, "2023-10-15")
    hand.act(Type("9999-12-31"))
    tap(hand, "08:00")
    hand.act(Type("23:00"))
    tap(hand, "Save")
    assert any("out of range" in text for text in texts(hand))


def test_a_row_is_searched_opened_and_deleted(hand):
    for k in range(30):
        row = {"title": f"Soup {k}", "directions": "with salt" if k == 7 else "plain"}
        store.insert(hand.phone.state, schemas.RECIPES, "recipes", row)
    hand.act(Open("Broccoli"))
    tap(hand, "Search")
    hand.act(Type("SALT soup"))
    assert [e.text for e in hand.elements() if e.kind == "row"] == ["Soup 7"]
    tap(hand, "Soup 7")
    assert "with salt" in texts(hand)
    tap(hand, "Delete")
    hand.act(SystemButton("Back"))  # the question is not answered
    tap(hand, "Delete")
    tap(hand, "Delete")
    assert "Nothing found" in texts(hand)
    assert len(store.rows(hand.phone.state, schemas.RECIPES, "SELECT * FROM recipes")) == 29


def test_the_dump_tells_what_scrolls_holds_and_hints(hand):
    hand.act(Open("Broccoli"))
    assert 'scrollable="true"' not in window_xml(hand.phone)
    assert 'hint="Search"' in window_xml(hand.phone)
    for k in range(30):
        store.insert(hand.phone.state, schemas.RECIPES, "recipes", {"title": f"R{k:02d}"})
    xml = window_xml(hand.phone)
    assert xml.count('scrollable="true"') == 1
    shown = [e.text for e in read_window(xml, 270, 600) if e.kind == "row"]
    assert xml.count('long-clickable="true"') == len(shown) + 1  # each row, and the field, which offers the clipboard
    assert [e.text for e in hand.elements() if e.kind == "row"] == shown


def test_what_a_song_says_of_itself_and_what_is_no_song():
    assert read_song(b"", "name") == Song("name", "", 0)
    assert read_song(b"\xff\xfb\x90\x00" + bytes(16000), "name").milliseconds == pytest.approx(1000, abs=2)
    title = b"\x01" + "Ä".encode("utf-16")
    tag = b"TIT2" + len(title).to_bytes(4, "big") + bytes(2) + title
    assert read_song(b"ID3\x03\x00\x00" + len(tag).to_bytes(4, "big") + tag, "name").title == "Ä"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_a_song(data):
    assert read_song(b"ID3\x04" + data, "n").milliseconds >= 0
    assert read_song(b"\xff\xfb" + data, "n").milliseconds >= 0


POINTS = st.builds(Point, st.floats(0, 0.999), st.floats(0, 0.999))
ACTIONS = st.one_of(
    st.builds(Click, POINTS),
    st.builds(Click, POINTS),
    st.builds(LongPress, POINTS, st.just(1.0)),
    st.builds(Swipe, POINTS, POINTS),
    st.builds(Type, st.text(max_size=12)),
    st.builds(Open, st.sampled_from([*COMPONENTS])),
    st.builds(SystemButton, st.sampled_from(["Back", "Enter", "Home"])),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(ACTIONS, max_size=25), st.sampled_from([*COMPONENTS]))
def test_whatever_is_tapped_the_phone_goes_on(actions, app):
    hand = PhoneInHand(Phone(SEEDED.snapshot(), 270, 600))
    hand.act(Open(app))
    for action in actions:
        hand.act(action)
        assert window_xml(hand.phone)


def _seeded():
    phone = Phone(aosp_state(1), 270, 600)
    state = phone.state
    for path, table, row in (
        (schemas.RECIPES, "recipes", {"title": "Soup"}),
        (schemas.CALENDAR, "events", {"title": "Talk", "start_ts": 1697454000, "end_ts": 1697457600}),
        (schemas.EXPENSES, "expense", {"name": "Tea", "amount": 3, "category": 99, "note": None}),
        (schemas.TASKS, "tasks", {"title": "Do", "importance": 9, "dueDate": 1697454000000}),
        (schemas.TRACKS, "tracks", {"name": "Run", "category": "running"}),
        (schemas.NOTES, "notes", {"id": "1", "title": "Note", "body": "text"}),
        (schemas.SMS, "sms", {"address": "+1", "body": "Hello", "type": 1, "date": 1}),
        (schemas.CONTACTS, "contacts", {"display_name": "Ann", "number": "+1"}),
        (schemas.PLAYLISTS, "PlaylistEntity", {"playlist_name": "Mix"}),
        (schemas.MEDIA, "Playlist", {"name": "Mix"}),
    ):
        store.insert(state, path, table, row)
    state.files.write(f"{SHARED}/Music/a.mp3", b"x", 0.0)
    state.files.write(f"{SHARED}/VLCVideos/a.mp4", b"x", 0.0)
    state.files.write(f"{SHARED}/Documents/Markor/a.md", b"x", 0.0)
    state.files.write(f"{SHARED}/DCIM/a.jpg", b"x", 0.0)
    return phone


SEEDED = _seeded()


def test_tasks_leave_no_memory_behind(hand):
    """Each fills and empties a database as AndroidWorld does, and uses the app in between."""

    def task(k):
        store.run(hand.phone.state, schemas.RECIPES, "DELETE FROM recipes")
        store.insert(hand.phone.state, schemas.RECIPES, "recipes", {"title": f"Soup {k}"})
        hand.act(Open("Broccoli"))
        hand.elements()

    for k in range(100):
        task(k)
    gc.collect()
    tracemalloc.start()
    for k in range(250):
        task(k)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1_500_000  # the last 64 databases that were read are kept, of 8 to 12 kB each
