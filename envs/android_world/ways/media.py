"""Playlists, and places on the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guiderail.agent.types import Click, LongPress, Open, Type
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways, find, plain, tap
from guiderail.envs.android_world.ways.tables import search

MUSIC, VIDEO, MAPS = "Retro Music", "VLC", "OsmAnd"


def _playlist(seen: Seen, app: str, name: str, titles: Sequence[str]) -> Way:
    """A new playlist with these, in this order."""
    seen = yield Open(app)
    yield from tap(seen, "Playlists")
    seen = yield from tap(seen, "New")
    yield Type(name)
    seen = yield from tap(seen, "Create", "Add")
    for title in titles:
        seen = yield from _tap_title(seen, title)
    return seen


def _tap_title(seen: Seen, title: str) -> Way:
    """A row begins with the title; a song's length follows."""
    element = yield from find(seen, title, start=f"{plain(title)} | ")
    return (yield Click(element.box.center))


def _songs(p: Params) -> list[str]:
    return [str(name).split(".")[0] for name in p["files"]]


def _music(seen: Seen, p: Params) -> Way:
    return (yield from _playlist(seen, MUSIC, p["playlist_name"], _songs(p)))


def _long_enough(seen: Seen, p: Params) -> Way:
    """The order is free, so the songs are taken as they stand in the list."""
    return (yield from _playlist(seen, MUSIC, p["playlist_name"], sorted(_songs(p), key=str.casefold)))


def _save_music(seen: Seen, p: Params) -> Way:
    yield from _music(seen, p)
    seen = yield Open(MUSIC)
    return (yield from tap(seen, "Playlists", p["playlist_name"], "Export"))


def _queue(seen: Seen, p: Params) -> Way:
    seen = yield Open(MUSIC)
    for title in _songs(p):
        element = yield from find(seen, title, start=f"{plain(title)} | ")
        seen = yield LongPress(element.box.center, 1.0)
        seen = yield from tap(seen, "Add to queue")
    return seen


def _video(*numbers: str) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        for number in numbers:
            seen = yield from _playlist(seen, VIDEO, p[f"playlist_name{number}"], p[f"files{number}"])
        return seen

    return way


# ------------------------------------------------------------------------------------------------------------- places


def _place(seen: Seen, location: str, button: str) -> Way:
    seen = yield from search(seen, location)
    found = sorted((e for e in seen if e.kind == "row"), key=lambda e: e.text != location)
    seen = yield Click(found[0].box.center)
    return (yield from tap(seen, button))


def _mark(button: str) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(MAPS)
        return (yield from _place(seen, p["location"], button))

    return way


def _track(seen: Seen, p: Params) -> Way:
    seen = yield Open(MAPS)
    for place in p["waypoints"]:
        seen = yield from _place(seen, place, "Waypoint")
    yield from tap(seen, f"Track ({len(p['waypoints'])})")
    seen = yield Type(p["track_name"])
    return (yield from tap(seen, "Save"))


WAYS: Ways = {
    "RetroCreatePlaylist": _music,
    "RetroPlaylistDuration": _long_enough,
    "RetroSavePlaylist": _save_music,
    "RetroPlayingQueue": _queue,
    "VlcCreatePlaylist": _video(""),
    "VlcCreateTwoPlaylists": _video("1", "2"),
    "OsmAndFavorite": _mark("Favorite"),
    "OsmAndMarker": _mark("Marker"),
    "OsmAndTrack": _track,
}
