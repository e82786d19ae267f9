"""A phone with the apps that AndroidWorld's own tasks ask for, under their real package names.

Small stand-ins (`envs.pocket.standins`), each with its own pages, that really do what they show: files are in the phone's
storage, rows in its databases, switches in its settings. AndroidWorld's checks read these, so they run unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.standins import (
    catalogue,
    maps,
    people,
    playlists,
    schemas,
    storage,
    store,
    system,
    tables,
    widgets,
)
from guiderail.envs.pocket.standins.storage import MARKOR
from guiderail.envs.pocket.standins.system import RECORDS
from guiderail.envs.pocket.standins.widgets import of
from guiderail.envs.pocket.state import Aosp, OpenPage, State, new_state
from guiderail.envs.pocket.ui import Appearance, Cell, Page

COMPONENTS = {
    "Settings": "com.android.settings/.Settings",
    "Files": "com.google.android.documentsui/com.android.documentsui.files.FilesActivity",
    "Markor": "net.gsantner.markor/net.gsantner.markor.activity.MainActivity",
    "Camera": "com.android.camera2/com.android.camera.CameraLauncher",
    "Clock": "com.google.android.deskclock/com.android.deskclock.DeskClock",
    "Audio Recorder": "com.dimowner.audiorecorder/com.dimowner.audiorecorder.app.welcome.WelcomeActivity",
    "Contacts": "com.google.android.contacts/com.android.contacts.activities.PeopleActivity",
    "Phone": "com.google.android.dialer/com.google.android.dialer.extensions.GoogleDialtactsActivity",
    "Clipper": "ca.zgrs.clipper/ca.zgrs.clipper.Main",
    catalogue.CALENDAR.name: "com.simplemobiletools.calendar.pro/com.simplemobiletools.calendar.pro.activities.MainActivity",
    catalogue.RECIPES.name: "com.flauschcode.broccoli/com.flauschcode.broccoli.MainActivity",
    catalogue.EXPENSES.name: "com.arduia.expense/com.arduia.expense.ui.MainActivity",
    catalogue.TASKS.name: "org.tasks/com.todoroo.astrid.activity.MainActivity",
    catalogue.TRACKS.name: "de.dennisguse.opentracks/de.dennisguse.opentracks.TrackListActivity",
    catalogue.NOTES.name: "net.cozic.joplin/.MainActivity",
    people.MESSAGES: "com.simplemobiletools.smsmessenger/com.simplemobiletools.smsmessenger.activities.MainActivity",
    storage.GALLERY: "com.simplemobiletools.gallery.pro/com.simplemobiletools.gallery.pro.activities.MainActivity",
    storage.DRAW: "com.simplemobiletools.draw.pro/com.simplemobiletools.draw.pro.activities.MainActivity",
    playlists.MUSIC: "code.name.monkey.retromusic/.activities.MainActivity",
    playlists.VIDEO: "org.videolan.vlc/.gui.MainActivity",
    maps.MAPS: "net.osmand/net.osmand.plus.activities.MapActivity",
}
STORAGE = 512 * 2**20
"""Bytes that such a phone stores: AndroidWorld fills it with an hour of music and videos of noise."""
TEXT = 2000
"""Most letters of a field."""


def aosp_state(seed: int = 0) -> State:
    """A phone as AndroidWorld sets one up: its apps, empty folders and databases, nothing in the way."""
    state = new_state(seed)
    theme = random.Random(f"aosp-{seed}").randrange(2)
    state.appearance = Appearance(theme, snap=False, line=1.8, margin=0.5, font=0.62)
    state.apps = list(COMPONENTS)
    state.settings["system"]["screen_brightness"] = "128"
    state.settings["global"]["airplane_mode_on"] = "0"
    state.aosp = Aosp(dict(COMPONENTS))
    state.files.limit, state.longest_text = STORAGE, TEXT
    for folder in (MARKOR, RECORDS, f"{SHARED}/VLCVideos", maps.TRACKS):
        state.files.make_folder(folder)
    schemas.install(state)
    return state


def view(state: State, front: OpenPage) -> Page:
    """The page in front; pages that an app does not have are empty."""
    page = _VIEWS.get((front.app, front.page))
    return page(state, front) if page else Page(front.app, ((Cell("Nothing here"),),))


def forget(state: State, package: str) -> None:
    """`pm clear`: delete the app's own data and close it."""
    aosp = of(state)
    for path in schemas.DATABASES:
        if path.startswith(f"/data/data/{package}/"):
            store.make(state, path, schemas.script(path))
    if package == COMPONENTS["Clock"].partition("/")[0]:
        aosp.stopwatch, aosp.timer = False, ""
    if state.front and COMPONENTS.get(state.front.app, "").startswith(f"{package}/"):
        state.stack = []


_VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    **system.VIEWS,
    **storage.VIEWS,
    **people.VIEWS,
    **playlists.VIEWS,
    **maps.VIEWS,
    **{key: page for app in catalogue.APPS.values() for key, page in tables.views(app).items()},
}
VERBS: dict[str, Callable[..., None]] = {
    **widgets.VERBS,
    **system.VERBS,
    **storage.VERBS,
    **people.VERBS,
    **playlists.VERBS,
    **maps.VERBS,
    **tables.verbs(catalogue.APPS),
}
