"""Headless Chromium, as live worlds use it: found, started so that it never outlives this process, pooled, ended for certain."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from urllib3.exceptions import HTTPError

from guiderail.agent.errors import EnvCrashed, SetupError

CLOSE_SECONDS = 20.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("headless", "disable-gpu", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "remote-debugging-pipe")


def find_browser(names: tuple[str, ...] = NAMES) -> tuple[str, str]:
    """Paths of browser and driver: MINIWOB_CHROME_BINARY and MINIWOB_CHROMEDRIVER, else what is on PATH. Raises SetupError."""
    browser = os.environ.get("MINIWOB_CHROME_BINARY") or next(filter(None, map(shutil.which, names)), None)
    driver = os.environ.get("MINIWOB_CHROMEDRIVER") or shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "Chromium" if browser is None else "chromedriver"
        raise SetupError(
            f"no {missing} found; run: apt-get install chromium chromium-driver, or set MINIWOB_CHROME_BINARY and "
            "MINIWOB_CHROMEDRIVER"
        )
    return browser, driver


def start_driver(folder: str, *flags: str, names: tuple[str, ...] = NAMES) -> Any:
    """A selenium driver of a new Chromium. folder: where both write, for the caller to remove: a killed browser leaves
    megabytes behind. Chromium ends with the pipe to its driver, and the driver by a signal when this process ends.

    Raises SetupError without a browser, and what selenium raises when it does not start.
    """
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, *flags):
        options.add_argument(flag)
    options.unhandled_prompt_behavior = "dismiss"
    options.binary_location, program = find_browser(names)
    place = {**os.environ, "TMPDIR": folder}
    service = Service(executable_path=program, env=place, popen_kw={"preexec_fn": _die_with_parent})
    driver = webdriver.Chrome(service=service, options=options)
    driver.set_page_load_timeout(30)
    driver.set_script_timeout(30)
    return driver


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def stop_driver(driver: Any, at_once: bool) -> None:
    """End driver and browser. at_once: without asking them, because they are broken."""
    process = driver.service.process
    last_resort = threading.Timer(CLOSE_SECONDS, process.kill)  # selenium waits for its driver without an end
    last_resort.start()
    with suppress(WebDriverException, HTTPError, OSError):
        if at_once:
            process.kill()
        driver.quit()
    last_resort.cancel()


@contextmanager
def crashes() -> Iterator[None]:
    """What driver and browser raise is the machine's fault: EnvCrashed."""
    try:
        yield
    except (WebDriverException, HTTPError, OSError) as error:
        text = str(error).strip() or type(error).__name__
        raise EnvCrashed(f"Chromium: {text.splitlines()[0]}") from error


class Tab:
    """A page of a browser over the DevTools protocol. broken: a browser that has failed once is not used again."""

    driver: Any
    broken = False

    def command(self, name: str, /, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        made: dict[str, Any] = self.driver.execute_cdp_cmd(name, parameters)
        return made

    @contextmanager
    def machine(self) -> Iterator[None]:
        """What driver and browser raise is the machine's fault."""
        try:
            with crashes():
                yield
        except EnvCrashed:
            self.broken = True
            raise


class Closable(Protocol):
    broken: bool

    def close(self) -> None: ...


B = TypeVar("B", bound=Closable)


class Pool(Generic[B]):
    """Browsers that are free. A new one is made only when none is; broken ones are not used again."""

    def __init__(self, make: Callable[[], B]):
        self._make = make
        self._free: list[B] = []
        self._out: list[B] = []

    def take(self) -> B:
        browser = self._free.pop() if self._free else self._make()
        self._out.append(browser)
        return browser

    def give(self, browser: B) -> None:
        self._out.remove(browser)
        if browser.broken:
            browser.close()
        else:
            self._free.append(browser)

    def close(self) -> None:
        for browser in (*self._free, *self._out):
            browser.close()
        self._free, self._out = [], []
