"""What a trajectory file does not state: how its swipes are stored, and how large its screens were.

Both are decided from the raw lines of the whole file, and each decision comes with a sentence of evidence for the user.
Broken lines are passed over here; the loader reports them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Line = Mapping[str, Any]
Size = tuple[int, int]

SLACK = 8  # pixels by which recorded points and boxes may overshoot their screen (up to 5 seen in AndroidControl)

_PHONES: tuple[Size, ...] = (
    (720, 1280),
    (720, 1600),
    (1080, 1920),
    (1080, 2160),
    (1080, 2220),
    (1080, 2280),
    (1080, 2340),
    (1080, 2400),
    (1440, 2560),
    (1440, 2960),
    (1440, 3040),
    (1440, 3120),
)
# In order of preference: phones upright, phones turned, tablets.
SCREENS: tuple[Size, ...] = (
    *_PHONES,
    *((height, width) for width, height in _PHONES),
    *((1920, 1200), (1200, 1920), (2560, 1600), (1600, 2560)),
)


UNDETERMINED: Final = "undetermined, read as finger"
Stored = Literal["finger", "inverted", "undetermined, read as finger"]


@dataclass(frozen=True, slots=True)
class Convention:
    """How vertical swipes are stored. evidence: a sentence, "" when the file has no vertical swipe."""

    stored: Stored
    evidence: str


def swipe_convention(lines: Sequence[Line]) -> Convention:
    """Finger motion or its inverse? UI-S1 publishes files of both kinds.

    A scroll label names where the view goes. So finger motion is stored as it was if it goes *against* the label. Without
    labels the base rate decides: people scroll down, with the finger going up, in 947 of 1043 labelled vertical swipes of
    AndroidControl's test split. At least 8 swipes are needed, and three quarters of them in one direction. Imported lines
    are finger motion, except that the importer too may have found it undetermined.
    """
    vertical = [*_verticals(line for line in lines if line.get("swipes") != "finger")]
    if not vertical:
        doubtful = len([*_verticals(line for line in lines if imported_from(line) == UNDETERMINED)])
        found = (
            f"{doubtful} vertical swipes come from an import that had {_DOUBT}; if you know, import again with --swipes"
        )
        return Convention(UNDETERMINED, found) if doubtful else Convention("finger", "")
    labelled = [(finger, label) for finger, label in vertical if label in ("up", "down")]
    against = sum(finger != label for finger, label in labelled)
    if 2 * against != len(labelled):
        truly = 2 * against > len(labelled)
        count, how = (against, "against") if truly else (len(labelled) - against, "along")
        stored: Stored = "finger" if truly else "inverted"
        return Convention(
            stored,
            f"{count} of {len(labelled)} labelled vertical swipes move the finger {how} the scroll label: {_said(stored)}",
        )
    down = sum(finger == "down" for finger, _ in vertical)
    most, way = max((down, "down"), (len(vertical) - down, "up"))
    found = f"{most} of {len(vertical)} vertical swipes move the finger {way}"
    if len(vertical) < 8 or 4 * most < 3 * len(vertical):
        return Convention(UNDETERMINED, f"{found}: {_DOUBT}; if you know, add --swipes (in training data.swipes=)")
    stored = "inverted" if way == "down" else "finger"
    return Convention(stored, f"{found}, and people mostly scroll down (finger up): {_said(stored)}")


_DOUBT = "too little to tell how they are stored, so up and down may be exchanged"


def imported_from(line: Line) -> Any:
    """How the source of a line stores vertical swipes, where that is not finger motion (`envs.imports.uis1`)."""
    changed = line.get("import")
    while isinstance(changed, dict) and "swipes" not in changed:  # imported again, for instance to merge data
        earlier = changed.get("earlier")
        changed = earlier.get("import") if isinstance(earlier, dict) else None
    return changed.get("swipes") if isinstance(changed, dict) else None


def infer_screens(lines: Sequence[Line]) -> tuple[list[Size], str]:
    """The screen size (width, height) of each line, and a sentence that lists them.

    Many recorded swipes are centred on the screen, so their middle gives away its size. The file's main screen is the one
    that most of these swipes point to; without such swipes, the one that most lines fit first in `SCREENS`. The candidates
    for a line are, in this order, the screens that its own centred swipes point to, the main screen, and `SCREENS`; it gets
    the first that holds all its points and boxes. If none does, its size is its own extent, rounded up.
    """
    extents = [_extent(line) for line in lines]
    hints = [Counter(_centred(line)) for line in lines]
    swipes = sum(hints, Counter[Size]())
    votes = swipes or Counter(_first_fit(extent, SCREENS) for extent in extents)
    main = [size for size, _ in votes.most_common(1)]
    sizes = [
        _first_fit(extent, (*(size for size, _ in hint.most_common()), *main, *SCREENS))
        for extent, hint in zip(extents, hints, strict=True)
    ]
    listed = ", ".join(f"{w}x{h} ({n} episodes)" for (w, h), n in Counter(sizes).most_common())
    reason = "from points, boxes and centred swipes" if swipes else "from points and boxes"
    return sizes, f"screen sizes inferred {reason}: {listed or 'none'}"


def _said(stored: str) -> str:
    return "stored as finger motion" if stored == "finger" else "stored inverted, exchanged on load"


def _steps(line: Line) -> Iterator[Line]:
    """Each step that has an action, even if the rest of the line is broken."""
    steps = line.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and isinstance(step.get("action_content"), dict):
            yield step


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(isinstance(v, int | float) and -1e9 < v < 1e9 for v in value):
        return None
    return tuple(value)


def _options(step: Line) -> Line:
    options = step.get("check_options")
    return options if isinstance(options, dict) else {}


def _swipe(step: Line) -> tuple[float, ...] | None:
    """(x1, y1, x2, y2) in pixels, None when the step is not a swipe."""
    content = step["action_content"]
    start, end = _numbers(content.get("coordinate"), 2), _numbers(content.get("coordinate2"), 2)
    return (*start, *end) if content.get("action") == "swipe" and start and end else None


def _verticals(lines: Iterable[Line]) -> Iterator[tuple[str, Any]]:
    return filter(None, (_vertical(step) for line in lines for step in _steps(line)))


def _vertical(step: Line) -> tuple[str, Any] | None:
    """(finger direction, scroll label or None) of a vertical swipe."""
    ends = _swipe(step)
    if ends is None or ends[1] == ends[3] or abs(ends[2] - ends[0]) > abs(ends[3] - ends[1]):
        return None
    return "down" if ends[3] > ends[1] else "up", _options(step).get("direction")


def _centred(line: Line) -> Iterator[Size]:
    """Screens whose centre is the middle of a swipe: converters write scrolls through the centre."""
    for ends in filter(None, map(_swipe, _steps(line))):
        size = round(ends[0] + ends[2]), round(ends[1] + ends[3])
        if size in SCREENS:
            yield size


def _extent(line: Line) -> tuple[float, float]:
    """The largest x and y of all points and boxes."""
    corners = [(1.0, 1.0)]
    for step in _steps(line):
        content, boxes = step["action_content"], _options(step).get("candidate_bbox")
        for point in (content.get("coordinate"), content.get("coordinate2")):
            if found := _numbers(point, 2):
                corners.append((found[0], found[1]))
        for box in (content.get("bbox"), step.get("bbox"), boxes, *(boxes if isinstance(boxes, list) else ())):
            if found := _numbers(box, 4):
                corners.append((found[2], found[3]))
    return max(x for x, _ in corners), max(y for _, y in corners)


def _first_fit(extent: tuple[float, float], sizes: Sequence[Size]) -> Size:
    x, y = extent
    fits = (size for size in sizes if x <= size[0] + SLACK and y <= size[1] + SLACK)
    return next(fits, (math.ceil(x), math.ceil(y)))
