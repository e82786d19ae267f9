"""OsmAnd: a search for places or coordinates, favourites and tracks as GPX files, markers in a database."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from xml.etree import ElementTree

from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.standins import store
from guiderail.envs.pocket.standins.schemas import MARKERS
from guiderail.envs.pocket.standins.widgets import attempt, button, field, row, tell, written
from guiderail.envs.pocket.state import OpenPage, State
from guiderail.envs.pocket.ui import Cell, Page

MAPS, SEARCH = "OsmAnd", "Search"
FOLDER = f"{SHARED}/Android/data/net.osmand/files"
FAVORITES, TRACKS = f"{FOLDER}/favorites/favorites.gpx", f"{FOLDER}/tracks"
PLACES = {
    "Balzers": (47.0688832, 9.5061564),
    "Bendern": (47.2122151, 9.5062101),
    "Malbun": (47.1026191, 9.6083057),
    "Nendeln": (47.1973857, 9.5430636),
    "Oberplanken": (47.1784977, 9.5450163),
    "Planken": (47.1858882, 9.5452201),
    "Rotenboden": (47.1275785, 9.5387131),
    "Ruggell": (47.23976, 9.5262837),
    "Schaan": (47.1663432, 9.5103085),
    "Schaanwald": (47.2165476, 9.5699984),
    "Schönberg": (47.1303814, 9.5930117),
    "Triesen": (47.106997, 9.5274854),
}
"""Places of Liechtenstein on the map that AndroidWorld installs: latitude and longitude in degrees."""
COUNTRY = ", Liechtenstein"
GPX = "http://www.topografix.com/GPX/1/1"


def _gpx() -> ElementTree.Element:
    return ElementTree.Element(f"{{{GPX}}}gpx", version="1.1", creator="Pocket")


def _point(parent: ElementTree.Element, tag: str, place: str) -> ElementTree.Element:
    latitude, longitude = position(place)
    return ElementTree.SubElement(parent, f"{{{GPX}}}{tag}", lat=str(latitude), lon=str(longitude))


def _written(root: ElementTree.Element) -> bytes:
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True))


def _found(asked: str) -> list[str]:
    """Names of places, or the two numbers that were asked for. Letters that a keyboard lacks are not compared."""
    numbers = re.findall(r"-?\d+\.\d+", asked)
    if len(numbers) == 2:
        return [", ".join(numbers)]
    wanted = _letters(asked)
    return [f"{name}{COUNTRY}" for name in PLACES if wanted and wanted in _letters(f"{name}{COUNTRY}")]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.casefold())


def position(place: str) -> tuple[float, float]:
    """Latitude and longitude of a search result."""
    if (name := place.removesuffix(COUNTRY)) in PLACES:
        return PLACES[name]
    latitude, longitude = (float(number) for number in place.split(","))
    return latitude, longitude


def _search(state: State, front: OpenPage) -> Page:
    rows = tuple(row(place, ("map.show", place)) for place in _found(front.fields.get(SEARCH, "")))
    planned = f"Track ({len(front.fields['track'].split(';'))})" if front.fields.get("track") else "Track"
    footer = (button(planned, "map.track"),)
    return Page(MAPS, ((field(front, SEARCH),), *(rows or ((Cell("Nothing found"),),))), footer=footer)


def _show(state: State, place: str) -> None:
    state.go("place", place)


def _place(state: State, front: OpenPage) -> Page:
    latitude, longitude = position(front.arg)
    what = ((Cell(front.arg),), (Cell(f"{latitude}, {longitude}"),))
    verbs = {"Favorite": "map.favorite", "Marker": "map.marker", "Waypoint": "map.waypoint"}
    return Page(MAPS, what, footer=tuple(button(text, verb, front.arg) for text, verb in verbs.items()))


def _favorite(state: State, place: str) -> None:
    root = _read(state.files.get(FAVORITES))
    ElementTree.SubElement(_point(root, "wpt", place), f"{{{GPX}}}name").text = place
    state.files.make_folder(posixpath.dirname(FAVORITES))
    if attempt(state, lambda: state.files.write(FAVORITES, _written(root), state.now)):
        state.back()


def _read(data: bytes) -> ElementTree.Element:
    """The favourites of a file; none where it is not such a file. Declarations are refused: adb may have put it there."""
    try:
        return ElementTree.fromstring(data) if b"<!" not in data else _gpx()
    except ElementTree.ParseError:
        return _gpx()


def _marker(state: State, place: str) -> None:
    latitude, longitude = position(place)
    made = {"marker_id": f"{latitude},{longitude},{state.now:.0f}", "marker_lat": latitude, "marker_lon": longitude}
    made |= {"marker_description": place, "marker_active": 1, "marker_added": int(state.now * 1000), "title": place}
    if attempt(state, lambda: store.insert(state, MARKERS, "map_markers", made)):
        state.back()


def _waypoint(state: State, place: str) -> None:
    """The next point of the track that is being planned."""
    state.back()
    if state.front:
        fields = state.front.fields
        fields["track"] = ";".join(part for part in (fields.get("track", ""), place) if part)


def _track(state: State) -> None:
    state.go("track", written(state, "track"))
    state.focus("Track name")


def _plan(state: State, front: OpenPage) -> Page:
    points = tuple(row(place) for place in front.arg.split(";") if place)
    return Page("Track", ((field(front, "Track name"),), *points), footer=(button("Save", "map.save", front.arg),))


def _save(state: State, places: str) -> None:
    name, points = written(state, "Track name").replace("/", "_"), [p for p in places.split(";") if p]
    if not name or len(points) < 2:
        tell(state, "Name it, with two points")
        return
    root = _gpx()
    track = ElementTree.SubElement(root, f"{{{GPX}}}trk")
    ElementTree.SubElement(track, f"{{{GPX}}}name").text = name
    segment = ElementTree.SubElement(track, f"{{{GPX}}}trkseg")
    for place in points:
        _point(segment, "trkpt", place)

    def save() -> None:
        state.files.make_folder(TRACKS)
        state.files.write(f"{TRACKS}/{name}.gpx", _written(root), state.now)

    if attempt(state, save):
        state.back()
        if state.front:
            state.front.fields.pop("track", None)


VIEWS: dict[tuple[str, str], Callable[[State, OpenPage], Page]] = {
    (MAPS, "main"): _search,
    (MAPS, "place"): _place,
    (MAPS, "track"): _plan,
}
VERBS: dict[str, Callable[..., None]] = {
    "map.show": _show,
    "map.favorite": _favorite,
    "map.marker": _marker,
    "map.waypoint": _waypoint,
    "map.track": _track,
    "map.save": _save,
}
