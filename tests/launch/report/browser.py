"""Headless Chromium over the WebDriver protocol: plain JSON over HTTP, so no client library is needed."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Browser:
    """One window of `size` pixels; dark prefers the dark scheme. Everything it logged is in `messages()`."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 900), dark: bool = False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen([str(DRIVER), f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        options = {"binary": BROWSER, "args": flags}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        try:
            self._wait_for_driver()
            self.session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
            self.cdp("Emulation.setEmulatedMedia", scheme)
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
            self.cdp("Emulation.setDeviceMetricsOverride", metrics)
        except BaseException:
            self.close()
            raise

    def _wait_for_driver(self) -> None:
        for _ in range(100):
            try:
                self._send("GET", "/status")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def command(self, path: str, **body: Any) -> Any:
        return self._send("POST", f"/session/{self.session}{path}", body)

    def cdp(self, name: str, params: dict[str, Any] | None = None) -> Any:
        return self.command("/goog/cdp/execute", cmd=name, params=params or {})

    def open(self, page: Path | str) -> None:
        self.command("/url", url=page.resolve().as_uri() if isinstance(page, Path) else page)

    def run(self, script: str) -> Any:
        return self.command("/execute/sync", script=script, args=[])

    def until(self, script: str, seconds: float = 20.0) -> Any:
        """The value of an expression once it is truthy. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(f"return {script}"):
                return value
            time.sleep(0.05)
        raise TimeoutError(f"{script} never came true")

    def press(self, key: str) -> None:
        named = {"ArrowRight": "\ue014", "ArrowLeft": "\ue012", "ArrowDown": "\ue015", "ArrowUp": "\ue013"}.get(
            key, key
        )
        actions = [{"type": "keyDown", "value": named}, {"type": "keyUp", "value": named}]
        self.command("/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def picture(self) -> bytes:
        return base64.b64decode(self._send("GET", f"/session/{self.session}/screenshot"))

    def messages(self) -> list[str]:
        """What pages complained about, blocked scripts included."""
        return [row["message"] for row in self.command("/se/log", type="browser") if row["level"] == "SEVERE"]

    def memory(self) -> dict[str, float]:
        """Proportional set size in MB of the browser's processes, by their type."""
        sizes: dict[str, float] = {}
        for process in _descendants(self.driver.pid):
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            found = re.search(r"--type=(\S+)", command)
            kind = found[1] if found else "browser"
            pss = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
            sizes[kind] = sizes.get(kind, 0.0) + pss / 1024
        return sizes

    def close(self) -> None:
        try:
            if self.session:
                self._send("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=10)


def _descendants(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, waiting = [], [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
