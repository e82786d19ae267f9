"""The contact sheet: an episode as one picture, with the expert's action drawn on every screen."""

from __future__ import annotations

import math
import textwrap
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Action, Click, Episode, LongPress, Point, Step, Swipe, SystemButton, Terminate, Wait

_BOX, _POINT, _SWIPE, _INK, _PAPER = "#1a9850", "#d7301f", "#f28e2b", "#222222", "#f6f6f3"
_GAP, _LINE = 12, 15
_OTHER_BOXES = "#7fb3d5"


def contact_sheet(episode: Episode, width: int = 240, columns: int = 6) -> Image.Image:
    """Screens `width` pixels wide in rows of `columns`. Marks: the smallest target box in green, other candidates in blue,
    the point of a click or long press as a red ring, a swipe as an orange arrow along the finger's path. What was typed,
    opened or pressed is written below. A screen whose image is missing is blank."""
    heights = [round(width * s.screenshot.height / s.screenshot.width) for s in episode.steps]
    captions = [_caption(index, step, width) for index, step in enumerate(episode.steps)]
    cell = max(heights) + 4 + _LINE * max(len(lines) for lines in captions)
    columns = min(columns, len(episode.steps))
    rows = math.ceil(len(episode.steps) / columns)
    title = textwrap.wrap(f"{episode.id}: {episode.goal}", max(20, columns * (width + _GAP) // 9))[:4]
    top = _GAP + 20 * len(title)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, top + rows * (cell + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((_GAP, _GAP // 2), "\n".join(title), fill=_INK, font=_font(14))
    for index, (step, height) in enumerate(zip(episode.steps, heights, strict=True)):
        x = _GAP + index % columns * (width + _GAP)
        y = top + _GAP + index // columns * (cell + _GAP)
        sheet.paste(marked(step, width, height), (x, y))
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline="#bbbbbb")
        draw.multiline_text((x, y + height + 4), "\n".join(captions[index]), fill=_INK, font=_font(12))
    return sheet


def _caption(index: int, step: Step, width: int) -> list[str]:
    lines = textwrap.wrap(f"{index}  {said(step.action)}", width // 7)[:2]
    return lines + textwrap.wrap(step.instruction or step.thought or "", width // 7)[: 4 - len(lines)]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu where it is installed, because Pillow's own font has little beyond ASCII."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def marked(step: Step, width: int, height: int) -> Image.Image:
    """One screen at this size, with the expert's marks."""
    try:
        image = step.screenshot.image().resize((width, height))
    except (SetupError, DataError):
        image = Image.new("RGB", (width, height), "#dddddd")
    draw = ImageDraw.Draw(image)

    def at(point: Point) -> tuple[float, float]:
        return point.x * width, point.y * height

    for rank, target in reversed(list(enumerate(sorted(step.boxes, key=lambda t: t.box.area)))):
        (left, top), (right, bottom) = (
            at(Point(target.box.left, target.box.top)),
            at(Point(target.box.right, target.box.bottom)),
        )
        draw.rectangle((left, top, right, bottom), outline=_OTHER_BOXES if rank else _BOX, width=1 if rank else 3)
    match step.action:
        case Click(point) | LongPress(point):
            (x, y), r = at(point), 7
            draw.ellipse((x - r, y - r, x + r, y + r), outline=_POINT, width=3)
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=_POINT)
            if isinstance(step.action, LongPress):
                draw.ellipse((x - 12, y - 12, x + 12, y + 12), outline=_POINT, width=2)
        case Swipe(start, end):
            _arrow(draw, at(start), at(end))
    return image


def _arrow(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    draw.line((*start, *end), fill=_SWIPE, width=5)
    draw.ellipse((start[0] - 6, start[1] - 6, start[0] + 6, start[1] + 6), fill=_SWIPE)
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    tip = [end]
    for turn in (2.6, -2.6):
        tip.append((end[0] + 16 * math.cos(angle + turn), end[1] + 16 * math.sin(angle + turn)))
    draw.polygon(tip, fill=_SWIPE)


def said(action: Action) -> str:
    """The action in a few words, without coordinates."""
    match action:
        case Swipe():
            return f"swipe {action.direction}"
        case Click() | LongPress():
            return action.name.replace("_", " ")
        case Wait(seconds):
            return f"wait {seconds:g} s"
        case SystemButton(button):
            return f"press {button}"
        case Terminate(status):
            return f"terminate: {status}"
    return f"{action.name} {action.text!r}"
