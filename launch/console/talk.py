"""What the console's page and the server say to one another: JSON over one socket, and screens as PNG.

From the page: {"do": NAME, "lane": 0 or 1, ...}. To the page: {"lanes": [view or null, ...], "offer": {...}} after every
change, whole, so that a page that missed one is right again with the next; {"error": TEXT} where a command was refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.launch.console.attended import Attended
from guiderail.launch.console.lanes import LANES, NOBODY, Lanes
from guiderail.launch.console.server import Page

UNITS = 10_000
"""The page says where in ten-thousandths of the screen."""
LONGEST_TEXT = 2000


def console_page(lanes: Lanes) -> Page:
    routes = [Route("/screens/{digest}", _screens(lanes)), WebSocketRoute("/talk", _talk(lanes))]
    return Page("", "Console", "console.html", routes)


def obey(lanes: Lanes, said: Mapping[str, Any]) -> None:
    """Do what the page asks for. Raises SetupError for what cannot be done."""
    number = said.get("lane")
    if not isinstance(number, int) or isinstance(number, bool) or number not in range(LANES):
        raise SetupError(f"there is no lane {str(number)[:20]}")
    name = said.get("do")
    if name == "start":
        lanes.start(number, said.get("agent"), said.get("device"), said.get("goal"), said.get("seed"))
        return
    if name == "leave":
        lanes.leave(number)
        return
    attempt = lanes.attempt(number)
    if attempt is None:
        raise SetupError("nothing is under way here; start an attempt first")
    if not command(attempt, str(name), said):
        raise SetupError(f"the console knows no {str(name)[:40]!r}")


def command(attempt: Attended, name: str, said: Mapping[str, Any]) -> bool:
    """Give an attempt one of its commands; whether there is one of that name. Raises SetupError for an unreadable action."""
    match name:
        case "run" | "pause" | "step" | "undo" | "stop":
            getattr(attempt, name)()
        case "allow" | "deny":
            attempt.answer(name == "allow")
        case "worked" | "failed":
            attempt.judge(name == "worked")
        case "act":
            thought = said.get("thought")
            kept = thought.strip()[:LONGEST_TEXT] if isinstance(thought, str) else ""
            attempt.act(action_of(said.get("action")), kept or None)
        case _:
            return False
    return True


def action_of(content: object) -> Any:
    """An action of the page, in `UNITS`. Raises SetupError."""
    if isinstance(content, dict) and len(str(content.get("text", ""))) > LONGEST_TEXT:
        raise SetupError(f"a text has at most {LONGEST_TEXT} characters")
    try:
        return action_from_json(content, ScreenTransform(UNITS, UNITS))
    except UnreadableAction as error:
        raise SetupError(f"not an action: {error}") from None


def _screens(lanes: Lanes) -> Any:
    async def screens(request: Request) -> Response:
        content = lanes.image(request.path_params["digest"])
        return Response(status_code=404) if content is None else Response(content, media_type="image/png")

    return screens


def _talk(lanes: Lanes) -> Any:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        stop = lanes.listen(lambda: loop.call_soon_threadsafe(news.set))
        telling = asyncio.create_task(_tell(lanes, socket, news))
        try:
            while True:
                await _heard(lanes, socket, await socket.receive_text())
        except WebSocketDisconnect:
            return
        finally:
            stop()
            telling.cancel()

    return talk


async def _tell(lanes: Lanes, socket: WebSocket, news: asyncio.Event) -> None:
    offer = {"agents": [*lanes.offer.agents, NOBODY], "devices": [*lanes.offer.devices]}
    while True:
        news.clear()
        await socket.send_text(json.dumps({"lanes": lanes.view(), "offer": offer}))
        await news.wait()


async def _heard(lanes: Lanes, socket: WebSocket, text: str) -> None:
    try:
        said = json.loads(text)
        if not isinstance(said, dict):
            raise SetupError("expected one JSON object")
        obey(lanes, said)
    except (ValueError, RecursionError):
        await socket.send_text(json.dumps({"error": "expected JSON"}))
    except SetupError as error:
        await socket.send_text(json.dumps({"error": str(error)}))
