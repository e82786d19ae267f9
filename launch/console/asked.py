"""Pages that ask by HTTP alone: one JSON object to `do`, one JSON object back; screens as PNG by their digest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.types import Box

LONGEST_MESSAGE = 1 << 16
MOST_BOXES = 50
_BOX = "a box is [left, top, right, bottom] in fractions of the screen"


def routes(
    do: Callable[[Mapping[str, Any]], dict[str, Any]], image: Callable[[str], bytes | None], patience: float = 120.0
) -> list[BaseRoute]:
    """do: answers an object; called in one thread of its own, so never twice at a time. image: a screen's file by digest.
    patience: seconds after which the page is told that the device hangs; until it answers, further requests are refused."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="asked")
    busy: set[object] = set()

    async def asked(request: Request) -> Response:
        try:
            said = await _said(request)
            if busy:
                raise SetupError("the device has not answered yet; wait a moment")
            call = asyncio.get_running_loop().run_in_executor(worker, do, said)
            busy.add(call)
            call.add_done_callback(busy.discard)
            return JSONResponse(await asyncio.wait_for(asyncio.shield(call), patience))
        except TimeoutError:
            return JSONResponse({"error": f"the device has not answered for {patience:g} s; look at it"})
        except GuiderailError as error:
            return JSONResponse({"error": str(error)})
        except Exception as error:  # a full disk, or a world of somebody else's: the page goes on
            return JSONResponse({"error": f"{type(error).__name__}: {error}"})

    async def shown(request: Request) -> Response:
        content = image(request.path_params["digest"])
        return Response(status_code=404) if content is None else Response(content, media_type="image/png")

    return [Route("/do", asked, methods=["POST"]), Route("/screens/{digest}", shown)]


async def _said(request: Request) -> Mapping[str, Any]:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > LONGEST_MESSAGE:
            raise SetupError(f"a message has at most {LONGEST_MESSAGE} bytes")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        raise SetupError("expected JSON") from None
    if not isinstance(said, dict):
        raise SetupError("expected one JSON object")
    return said


def text_of(said: Mapping[str, Any], key: str, longest: int = 2000) -> str:
    """A text of the page, "" where it sent none. Raises SetupError."""
    value = said.get(key, "")
    if not isinstance(value, str) or len(value) > longest:
        raise SetupError(f"{key} is a text of at most {longest} characters")
    return value.encode("utf-8", "replace").decode().strip()


def box_of(value: object) -> Box:
    """[left, top, right, bottom] in screen fractions. Raises SetupError."""
    if not isinstance(value, list) or len(value) != 4:
        raise SetupError(_BOX)
    numbers = [float(v) for v in value if isinstance(v, int | float) and 0 <= v <= 1]
    if len(numbers) != 4:
        raise SetupError(_BOX)
    left, top, right, bottom = numbers
    return Box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))


def boxes_of(value: object) -> list[Box]:
    if not isinstance(value, list) or len(value) > MOST_BOXES:
        raise SetupError(f"expected a list of at most {MOST_BOXES} boxes")
    return [box_of(one) for one in value]


def sides(box: Box) -> list[float]:
    return [round(side, 4) for side in (box.left, box.top, box.right, box.bottom)]
