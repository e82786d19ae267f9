"""Retro Music and VLC: media files of a folder, playlists of them, and what is to be played next."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.standins import store
from guiderail.envs.pocket.standins.mp3 import Song, read_song
from guiderail.envs.pocket.standins.schemas import MEDIA, PLAYBACK, PLAYLISTS
from guiderail.envs.pocket.standins.widgets import attempt, button, field, row, tell, written
from guiderail.envs.pocket.state import Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, Cell, Op, Page

MUSIC, VIDEO = "Retro Music", "VLC"
NAME = "Playlist name"


@dataclass(frozen=True, slots=True)
class Library:
    """Where an app's media lie, and its playlists: the SQL that lists them as (id, name) and the items of one as (item)."""

    folders: tuple[str, ...]
    ending: str
    path: str
    playlists: str
    items: str
    create: str


LIBRARIES = {
    MUSIC: Library(
        (f"{SHARED}/Music",),
        ".mp3",
        PLAYLISTS,
        "SELECT playlist_id AS id, playlist_name AS name FROM PlaylistEntity ORDER BY playlist_id",
        "SELECT title AS item FROM SongEntity WHERE playlist_creator_id = ? ORDER BY song_key",
        "INSERT INTO PlaylistEntity (playlist_name) VALUES (?)",
    ),
    VIDEO: Library(
        (f"{SHARED}/VLCVideos", f"{SHARED}/Download", f"{SHARED}/Movies"),
        ".mp4",
        MEDIA,
        "SELECT id_playlist AS id, name FROM Playlist ORDER BY id_playlist",
        "SELECT filename AS item FROM PlaylistMediaRelation JOIN Media ON id_media = media_id WHERE playlist_id = ? "
        "ORDER BY position",
        "INSERT INTO Playlist (name) VALUES (?)",
    ),
}


def media(state: State, app: str) -> list[tuple[str, Song]]:
    """The paths of an app's media files with what the files say of themselves, in the order of titles."""
    library = LIBRARIES[app]
    places = [posixpath.join(f, n) for f in library.folders for n in state.files.names(f) if n.endswith(library.ending)]
    found = [(place, _about(state, place)) for place in places if place in state.files]
    return sorted(found, key=lambda one: one[1].title.casefold())


def _about(state: State, path: str) -> Song:
    name = posixpath.basename(path)
    return read_song(state.files[path], name.removesuffix(".mp3")) if name.endswith(".mp3") else Song(name, "", 0)


def label(song: Song) -> str:
    minutes, seconds = divmod(round(song.milliseconds / 1000), 60)
    return f"{song.title} | {minutes}:{seconds:02d}" if song.milliseconds else song.title


def _main(state: State, front: OpenPage) -> Page:
    hold = "media.ask" if front.app == MUSIC else "media.show"
    rows = tuple(row(label(song), ("media.show", place), (hold, place)) for place, song in media(state, front.app))
    return Page(front.app, rows or ((Cell("Empty"),),), footer=(button("Playlists", "go", "playlists", ""),))


def _show(state: State, path: str) -> None:
    state.dialog = Dialog(label(_about(state, path)), [("OK", DISMISS)])


def _ask(state: State, path: str) -> None:
    queue: Op = ("media.queue", path)
    state.dialog = Dialog(label(_about(state, path)), [("Add to queue", queue), ("Close", DISMISS)])


def _queue(state: State, path: str) -> None:
    song = _about(state, path)
    made = {"title": song.title, "artist_name": song.artist, "duration": song.milliseconds, "data": path}
    attempt(state, lambda: store.insert(state, PLAYBACK, "playing_queue", made))


def _playlists(state: State, front: OpenPage) -> Page:
    library = LIBRARIES[front.app]
    known = store.rows(state, library.path, library.playlists)
    rows = tuple(row(one["name"], ("go", "playlist", str(one["id"]))) for one in known)
    return Page("Playlists", rows or ((Cell("Empty"),),), footer=(button("New", "aosp.open", "name", "", NAME),))


def _name(state: State, front: OpenPage) -> Page:
    return Page("New playlist", ((field(front, NAME),),), footer=(button("Create", "playlist.create"),))


def _create(state: State) -> None:
    """The new playlist opens at once."""
    if state.front is None or not written(state, NAME):
        return
    library, name = LIBRARIES[state.front.app], written(state, NAME)
    if attempt(state, lambda: _run(state, library, library.create, name)):
        state.back()
        state.go("playlist", str(store.rows(state, library.path, library.playlists)[-1]["id"]))


def _run(state: State, library: Library, script: str, *values: object) -> None:
    store.run(state, library.path, script, *values)


def _playlist(state: State, front: OpenPage) -> Page:
    library = LIBRARIES[front.app]
    items = store.rows(state, library.path, library.items, int(front.arg))
    rows = tuple(row(one["item"]) for one in items)
    save = (button("Export", "playlist.export", front.arg),) if front.app == MUSIC else ()
    return Page(
        _title(state, front), rows or ((Cell("Empty"),),), footer=(button("Add", "go", "pick", front.arg), *save)
    )


def _title(state: State, front: OpenPage) -> str:
    library = LIBRARIES[front.app]
    known = store.rows(state, library.path, library.playlists)
    return next((str(one["name"]) for one in known if str(one["id"]) == front.arg), front.app)


def _pick(state: State, front: OpenPage) -> Page:
    """A tap puts one at the end of the playlist."""
    library = LIBRARIES[front.app]
    inside = {one["item"] for one in store.rows(state, library.path, library.items, int(front.arg))}
    rows = []
    for place, song in media(state, front.app):
        cell = Cell(label(song), ("playlist.add", front.arg, place), "check", checked=song.title in inside)
        rows.append((cell,))
    return Page("Add to playlist", tuple(rows))


def _add(state: State, playlist: str, path: str) -> None:
    if state.front:
        song = _about(state, path)
        (_add_song if state.front.app == MUSIC else _add_video)(state, int(playlist), path, song)


def _add_song(state: State, playlist: int, path: str, song: Song) -> None:
    made = {"playlist_creator_id": playlist, "title": song.title, "artist_name": song.artist}
    made |= {"duration": song.milliseconds, "data": path}
    attempt(state, lambda: store.insert(state, PLAYLISTS, "SongEntity", made))


def _add_video(state: State, playlist: int, path: str, song: Song) -> None:
    def add() -> None:
        store.insert(state, MEDIA, "Media", {"filename": song.title, "title": song.title})
        newest = store.rows(state, MEDIA, "SELECT max(id_media) AS id FROM Media")[0]["id"]
        position = len(store.rows(state, MEDIA, LIBRARIES[VIDEO].items, playlist))
        relation = {"playlist_id": playlist, "media_id": newest, "position": position}
        store.insert(state, MEDIA, "PlaylistMediaRelation", relation)

    attempt(state, add)


def _export(state: State, playlist: str) -> None:
    if state.front is None:
        return
    songs = store.rows(state, PLAYLISTS, "SELECT data FROM SongEntity WHERE playlist_creator_id = ?", int(playlist))
    text = "\n".join(["#EXTM3U", *(str(one["data"]) for one in songs)])
    name = _title(state, state.front).replace("/", "_")
    target = f"{SHARED}/Download/{name}.m3u"
    if attempt(state, lambda: state.files.write(target, text.encode(), state.now)):
        tell(state, "Saved in Download")


VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    (app, page): view
    for app in LIBRARIES
    for page, view in {
        "main": _main,
        "playlists": _playlists,
        "name": _name,
        "playlist": _playlist,
        "pick": _pick,
    }.items()
}
VERBS: dict[str, Callable[..., None]] = {
    "media.show": _show,
    "media.ask": _ask,
    "media.queue": _queue,
    "playlist.create": _create,
    "playlist.add": _add,
    "playlist.export": _export,
}
