"""The console's HTTP server: pages below a token, refused to everybody else.

Who may ask:
- the token is the first part of every path, so that each link and socket of a page carries it, and no cookie does;
- the Host header must name this server: a page of another site whose name was made to lead here (DNS rebinding) has its own;
- an Origin header must be this server's: sockets must have one, because a browser lets any site open them.
Everything else gets an empty 404 or 403. Pages load nothing from elsewhere and run no script but their own files.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(\d+))?")
"""Of the header: an IPv6 address in brackets, or another name; then the port, if it is not 80."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Page:
    """One page. name: its place below the token, "" for the first. title: in the navigation. file: in web/. routes: what it
    asks for, below its own place; they may hold sockets."""

    name: str
    title: str
    file: str
    routes: Sequence[BaseRoute] = ()

    @property
    def place(self) -> str:
        return f"/{self.name}/" if self.name else "/"


def application(token: str, host: str, port: int, pages: Sequence[Page]) -> ASGIApp:
    """host, port: where it listens."""
    routes: list[BaseRoute] = [Route("/assets/{name}", _asset), Route("/pages", _listed(pages))]
    for page in sorted(pages, key=lambda page: page.name == ""):  # the first page's mount would take every path
        inner = [*page.routes, Route("/", _shown(page.file))]
        routes += [Mount(page.place.rstrip("/"), routes=inner)] if page.name else inner
    return Guard(Starlette(routes=routes), token, host, port)


class Guard:
    """See the head of this file."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int):
        self._app, self._token, self._port = app, token, port
        self._anywhere = not is_loopback(host)
        self._hosts = {"127.0.0.1", "localhost", "::1", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = self._refusal(scope)
        if status and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4000 + status})
        elif status:
            await Response(status_code=status)(scope, receive, send)
        else:
            scope["root_path"] = f"/{self._token}"
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> int:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if not self._ours(host):
            return 403
        _, _, rest = scope["path"].partition("/")
        if not hmac.compare_digest(rest.partition("/")[0].encode(), self._token.encode()):
            return 404
        origin = headers.get(b"origin")
        if origin is not None or scope["type"] == "websocket":
            return 0 if origin == f"http://{host}" else 403
        foreign = headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin")
        return 403 if foreign and headers.get(b"sec-fetch-mode") != "navigate" else 0

    def _ours(self, host: str) -> bool:
        """Where it listens to other machines it cannot know all of its names: addresses are fine, since a site that rebinds
        its name is asked for by that name. Browsers write names in small letters, and leave port 80 out."""
        found = _HOST.fullmatch(host.lower())
        if found is None or (found[2] or "80") != str(self._port):
            return False
        name = found[1].strip("[]")
        return name in self._hosts or (self._anywhere and is_address(name))


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent


def _read(name: str) -> bytes | None:
    """A file of web/; None for any other name."""
    folder = resources.files("guiderail.launch.console").joinpath("web")
    known = {file.name: file for file in folder.iterdir()}
    return known[name].read_bytes() if name in known else None


def _respond(name: str) -> Response:
    content, suffix = _read(name), name[name.rfind(".") :]
    if content is None or suffix not in TYPES:
        return Response(status_code=404)
    return Response(content, headers={"content-type": TYPES[suffix]})


async def _asset(request: Request) -> Response:
    return _respond(request.path_params["name"])


def _shown(file: str) -> Any:
    async def shown(request: Request) -> Response:
        return _respond(file)

    return shown


def _listed(pages: Sequence[Page]) -> Any:
    from starlette.responses import JSONResponse

    listed = [{"title": page.title, "place": page.place} for page in pages]

    async def names(request: Request) -> Response:
        return JSONResponse(listed)

    return names
