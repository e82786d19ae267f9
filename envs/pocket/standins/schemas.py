"""The apps' databases: where each file lies and the columns of its tables, as AndroidWorld's checks read and fill them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from guiderail.envs.pocket.standins import store
from guiderail.envs.pocket.state import State

SNAPSHOTS = "/data/data/android_world/snapshots"
"""Where AndroidWorld keeps a copy of each app's data, which it puts back before and after a task."""

CALENDAR = "/data/data/com.simplemobiletools.calendar.pro/databases/events.db"
RECIPES = "/data/data/com.flauschcode.broccoli/databases/broccoli"
EXPENSES = "/data/data/com.arduia.expense/databases/accounting.db"
TASKS = "/data/data/org.tasks/databases/database"
TRACKS = "/data/data/de.dennisguse.opentracks/databases/database.db"
NOTES = "/data/data/net.cozic.joplin/databases/joplin.sqlite"
PLAYLISTS = "/data/data/code.name.monkey.retromusic/databases/playlist.db"
PLAYBACK = "/data/data/code.name.monkey.retromusic/databases/music_playback_state.db"
MEDIA = "/data/data/org.videolan.vlc/app_db/vlc_media.db"
MARKERS = "/data/data/net.osmand/databases/map_markers_db"
SMS = "/data/data/com.android.providers.telephony/databases/mmssms.db"
CONTACTS = "/data/data/com.android.providers.contacts/databases/contacts2.db"
PROVIDERS = (SMS, CONTACTS)
"""Databases of the system, of which AndroidWorld takes no copies."""

Tables = Mapping[str, tuple[str, str, str]]
"""Table -> its key with SQL type; columns of whole numbers; columns of text. A trailing ~ marks columns of other numbers."""

DATABASES: Mapping[str, Tables] = {
    CALENDAR: {
        "events": (
            "id INTEGER PRIMARY KEY AUTOINCREMENT",
            "start_ts end_ts reminder_1_minutes reminder_2_minutes reminder_3_minutes reminder_1_type reminder_2_type "
            "reminder_3_type repeat_interval repeat_rule repeat_limit flags event_type parent_id last_updated availability "
            "color type",
            "title location description repetition_exceptions attendees import_id time_zone source",
        )
    },
    RECIPES: {
        "recipes": (
            "recipeId INTEGER PRIMARY KEY AUTOINCREMENT",
            "favorite",
            "title description servings preparationTime source ingredients directions imageName",
        )
    },
    EXPENSES: {
        "expense": (
            "expense_id INTEGER PRIMARY KEY AUTOINCREMENT",
            "amount category created_date modified_date",
            "name note",
        )
    },
    TASKS: {
        "tasks": (
            "_id INTEGER PRIMARY KEY AUTOINCREMENT",
            "importance dueDate hideUntil created modified completed deleted estimatedSeconds elapsedSeconds timerStart "
            "notificationFlags lastNotified repeat_from collapsed parent order read_only",
            "title notes recurrence calendarUri remoteId",
        )
    },
    TRACKS: {
        "tracks": (
            "_id INTEGER PRIMARY KEY AUTOINCREMENT",
            "starttime stoptime numpoints totaldistance~ totaltime movingtime avgspeed~ avgmovingspeed~ maxspeed~ "
            "minelevation~ maxelevation~ elevationgain~ elevationloss~ starttime_offset",
            "name description category activity_type icon uuid",
        )
    },
    NOTES: {
        "folders": (
            "id TEXT PRIMARY KEY",
            "created_time updated_time user_created_time user_updated_time deleted_time encryption_applied is_shared",
            "title encryption_cipher_text parent_id share_id master_key_id icon user_data",
        ),
        "notes": (
            "id TEXT PRIMARY KEY",
            "created_time updated_time is_conflict latitude~ longitude~ altitude~ is_todo todo_due todo_completed order~ "
            "user_created_time user_updated_time encryption_applied markup_language is_shared",
            "parent_id title body author source_url source source_application application_data encryption_cipher_text "
            "share_id conflict_original_id master_key_id user_data",
        ),
        "notes_normalized": (
            "id TEXT PRIMARY KEY",
            "latitude~ longitude~ altitude~ is_todo todo_due todo_completed user_created_time user_updated_time",
            "parent_id title body source_url",
        ),
    },
    PLAYLISTS: {
        "PlaylistEntity": ("playlist_id INTEGER PRIMARY KEY AUTOINCREMENT", "", "playlist_name"),
        "SongEntity": (
            "song_key INTEGER PRIMARY KEY AUTOINCREMENT",
            "playlist_creator_id id duration",
            "title data artist_name",
        ),
    },
    PLAYBACK: {"playing_queue": ("queue_key INTEGER PRIMARY KEY AUTOINCREMENT", "duration", "title data artist_name")},
    MEDIA: {
        "Playlist": ("id_playlist INTEGER PRIMARY KEY AUTOINCREMENT", "creation_date", "name"),
        "Media": ("id_media INTEGER PRIMARY KEY AUTOINCREMENT", "duration", "filename title"),
        "PlaylistMediaRelation": ("id INTEGER PRIMARY KEY AUTOINCREMENT", "playlist_id media_id position", ""),
    },
    MARKERS: {
        "map_markers": (
            "marker_id TEXT PRIMARY KEY",
            "marker_lat~ marker_lon~ marker_active marker_added marker_visited marker_color marker_disabled marker_selected",
            "marker_description group_name group_key marker_next_key marker_map_object_name title",
        )
    },
    SMS: {
        "sms": (
            "_id INTEGER PRIMARY KEY AUTOINCREMENT",
            "thread_id date date_sent read status type",
            "address body service_center",
        ),
        "threads": ("_id INTEGER PRIMARY KEY AUTOINCREMENT", "date message_count read", "recipient_ids snippet"),
    },
    CONTACTS: {"contacts": ("_id INTEGER PRIMARY KEY AUTOINCREMENT", "", "display_name number label")},
}


def script(path: str) -> str:
    """SQL that makes the tables of one database."""
    made = []
    for table, (key, numbers, words) in DATABASES[path].items():
        columns = [f'"{n.rstrip("~")}" {"REAL" if n.endswith("~") else "INTEGER"} DEFAULT 0' for n in numbers.split()]
        columns += [f'"{word}" TEXT' for word in words.split()]
        made.append(f"CREATE TABLE {table} ({', '.join([key, *columns])});")
    return "\n".join(made)


def mend(state: State, package: str) -> None:
    """Make the databases that an app misses, as apps do when they start: AndroidWorld pushes one file and deletes the rest."""
    for path in DATABASES:
        if path.startswith(f"/data/data/{package}/") and path not in state.files:
            store.make(state, path, script(path))


def install(state: State) -> None:
    """All databases, empty, and AndroidWorld's copies of them."""
    for path in DATABASES:
        store.make(state, path, script(path))
        if path not in PROVIDERS:
            copy = SNAPSHOTS + path.removeprefix("/data/data")
            state.files.make_folder(posixpath.dirname(copy))
            state.files.write(copy, state.files[path], state.now)
