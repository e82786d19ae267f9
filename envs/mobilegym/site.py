"""The built pages of a MobileGym checkout, served to one browser on loopback; to everything else it is a closed door.

The pages' own servers listen on every address and forward requests to anywhere. This one answers GET and HEAD with files of
two folders, to who has the token as a cookie. The browser also has it as its proxy: whatever a page asks of any other
address arrives here, and is refused.
"""

from __future__ import annotations

import mimetypes
import secrets
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COOKIE = "guiderail"
DATA = "/cdn/"
"""Where pages expect the companion data."""
IDLE_SECONDS = 60
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("application/wasm", ".wasm")


class Site:
    """pages: the folder `dist`. data: the companion data, None where there is none."""

    def __init__(self, pages: Path, data: Path | None):
        self.pages, self.data = pages.resolve(), data and data.resolve()
        self.token = secrets.token_urlsafe(24)
        self.refused: list[str] = []
        """What pages asked of other addresses, the first thousand of them."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        threading.Thread(target=self._server.serve_forever, name="site", daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/"

    def file(self, path: str) -> Path | None:
        """The file behind the path of a request. A path without a file is a screen of the single-page app, unless it is one
        of the data or of a server's interface."""
        path = unquote(path)
        root = self.data if path.startswith(DATA) else self.pages
        found = None if root is None else _inside(root, path.removeprefix(DATA).lstrip("/"))
        if found is not None or path.startswith((DATA, "/api/")) or "." in path.rpartition("/")[2]:
            return found
        return self.pages / "index.html"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _inside(root: Path, path: str) -> Path | None:
    """The file of that path below root; None for anything else, links that lead out of it too."""
    try:
        found = (root / path).resolve()
    except (OSError, ValueError):
        return None
    return found if found.is_relative_to(root) and found.is_file() else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        site, target = self.server.site, urlsplit(self.path)
        if target.netloc or self.headers.get("Host") != site.host:
            self._refuse(403, self.path)
        elif f"{COOKIE}={site.token}" not in self.headers.get("Cookie", "").split("; "):
            self._refuse(403)
        elif (file := site.file(target.path)) is None:
            self._refuse(404)
        else:
            self._send(file, lasting=target.path.startswith("/assets/"))

    do_HEAD = do_GET  # noqa: N815

    def do_CONNECT(self) -> None:
        self._refuse(403, self.path)

    def _send(self, file: Path, lasting: bool) -> None:
        """lasting: its name holds a hash of its content."""
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with file.open("rb") as stream:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.send_header("Cache-Control", "max-age=31536000, immutable" if lasting else "no-cache")
            self.end_headers()
            if self.command == "GET":
                shutil.copyfileobj(stream, self.wfile)

    def _refuse(self, status: int, outside: str = "") -> None:
        if outside and len(self.server.site.refused) < 1000:
            self.server.site.refused.append(outside[:200])
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said: object) -> None:
        pass
