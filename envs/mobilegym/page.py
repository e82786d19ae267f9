"""One simulated phone: a page of MobileGym in a Chromium of its own, driven over one session of the DevTools protocol.

Every load begins with empty storage, at the same moment of the same day, with the same random numbers: a script that runs
before the page's own replaces the page's clock and Math.random. Nothing outside the site can be reached.
"""

from __future__ import annotations

import base64
import json
from tempfile import TemporaryDirectory
from typing import Any

from guiderail.agent.errors import EnvCrashed
from guiderail.envs.live.chromium import NAMES, Tab, start_driver, stop_driver
from guiderail.envs.mobilegym.site import COOKIE, Site

WIDTH, HEIGHT = 360, 800
"""CSS pixels of the screen."""
START = "2026-03-10T09:30:00"
"""When every attempt begins, in the machine's time zone: judges and pages must agree about local time."""
USER_AGENT = "Mozilla/5.0 (Linux; Android 13; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36"
STORAGE = "file_systems,indexeddb,local_storage,service_workers,cache_storage,shared_storage,storage_buckets"
READY_MS, STILL_MS, LONGEST_MS = 60_000, 150, 1_500
MOST_LOADS = 100
"""Of one browser, which then makes place for a new one: its memory grows by about a MiB with each load."""
BROWSERS = ("chromium-headless-shell", *NAMES)
"""The smaller one first: it takes two thirds of the memory."""

# Sessions outlive a load, so the first document of a load empties its own. mulberry32 gives the random numbers.
_BEGIN = """
(() => {
  const load = "%(load)s", start = new Date("%(start)s").getTime(), real = Date;
  if (sessionStorage.getItem("guiderail-load") !== load) {
    sessionStorage.clear(); window.name = ""; sessionStorage.setItem("guiderail-load", load);
    sessionStorage.setItem("guiderail-began", String(real.now()));
  }
  const offset = start - Number(sessionStorage.getItem("guiderail-began"));
  const now = () => real.now() + offset;
  window.Date = new Proxy(real, {
    construct: (target, given, made) => Reflect.construct(target, given.length ? given : [now()], made),
    apply: () => new real(now()).toString(),
    get: (target, name) => name === "now" ? now : Reflect.get(target, name),
  });
  let a = %(seed)d;
  Math.random = () => {
    a = a + 0x6D2B79F5 | 0;
    let t = Math.imul(a ^ a >>> 15, 1 | a);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
})();
"""
_READY = """async (ids, longest) => {
  const end = performance.now() + longest;
  while (!(window.__SIM__?.getState && window.__SIM_FS__ && window.__OS__?.openApp)) {
    if (performance.now() > end) return "the phone did not start";
    await new Promise(done => setTimeout(done, 20));
  }
  await window.__SIM__.waitForData?.(ids ?? undefined);
  return "";
}"""
# A screen stands still when nothing in the document has changed, and nothing that ends has moved, for a while.
_SETTLE = """(still, longest) => new Promise(done => {
  const begun = performance.now();
  let last = begun;
  const seen = new MutationObserver(() => { last = performance.now(); });
  seen.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  const ends = one => one.playState === "running" && Number.isFinite(one.effect?.getComputedTiming().endTime);
  (function look() {
    const now = performance.now();
    if (document.getAnimations().some(ends)) last = now;
    if (now - last < still && now - begun < longest) return setTimeout(look, 30);
    seen.disconnect();
    done(true);
  })();
})"""
_STATE = """() => {
  const state = window.__SIM__?.getState?.();
  return state ? JSON.stringify(state, (key, value) =>
    typeof value === "function" || typeof value === "symbol" || value instanceof Node || value instanceof Window
      ? undefined : value) : null;
}"""


class Page(Tab):
    """scale: screenshot pixels per CSS pixel. Raises EnvCrashed from everything but close."""

    def __init__(self, site: Site, scale: int):
        self.site, self.scale = site, scale
        self.loads = 0
        self._script: str | None = None
        self._folder = TemporaryDirectory(prefix="guiderail-", ignore_cleanup_errors=True)
        flags = (f"proxy-server={site.host}", "proxy-bypass-list=<-loopback>;" + site.host, f"user-agent={USER_AGENT}")
        with self.machine():
            self.driver = start_driver(self._folder.name, *flags, names=BROWSERS)
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": scale}
            self.command("Emulation.setDeviceMetricsOverride", **size, mobile=True)
            self.command("Emulation.setTouchEmulationEnabled", enabled=True)

    def load(self, seed: int, apps: list[str] | None) -> None:
        """A phone as it comes from the factory. apps: whose data must be there; None: those of all."""
        self.loads += 1
        with self.machine():
            self.driver.get("about:blank")  # ends the page's own writes and its hold on databases
            self.command("Storage.clearDataForOrigin", origin=self.site.url.rstrip("/"), storageTypes=STORAGE)
            self.command("Network.setCookie", name=COOKIE, value=self.site.token, url=self.site.url, httpOnly=True)
            if self._script is not None:
                self.command("Page.removeScriptToEvaluateOnNewDocument", identifier=self._script)
            source = _BEGIN % {"load": f"{self.site.token[:8]}{self.loads}", "start": START, "seed": seed & 0x7FFFFFFF}
            made = self.command("Page.addScriptToEvaluateOnNewDocument", source=source)
            self._script = str(made["identifier"])
            self.driver.get(self.site.url)
            problem = self.evaluate(_READY, apps, READY_MS)
            if problem:
                raise EnvCrashed(f"MobileGym: {problem}")

    def evaluate(self, function: str, *given: Any) -> Any:
        """The JSON value of a JavaScript function, awaited. Raises EnvCrashed where it throws."""
        said = ", ".join(json.dumps(one) for one in given)
        with self.machine():
            made = self.command(
                "Runtime.evaluate", expression=f"({function})({said})", awaitPromise=True, returnByValue=True
            )
            if "exceptionDetails" in made:
                thrown = made["exceptionDetails"]
                text = thrown.get("exception", {}).get("description") or thrown.get("text", "")
                raise EnvCrashed(f"MobileGym's page: {text.splitlines()[0][:200]}")
        return made["result"].get("value")

    def state(self) -> dict[str, Any]:
        text = self.evaluate(_STATE)
        if not text:
            raise EnvCrashed("MobileGym's page has no state")
        found: dict[str, Any] = json.loads(text)
        return found

    def set_state(self, patch: dict[str, Any], deep: bool = True) -> None:
        self.evaluate("(patch, deep) => { window.__SIM__.setState(patch, {deep, reload: false}); }", patch, deep)

    def route(self) -> dict[str, Any]:
        """{"app", "path"} of the open app, {} at home."""
        return self.evaluate("() => window.__OS__?.getAppRoute?.() ?? null") or {}

    def settle(self) -> None:
        """Wait until the screen stands still, at most LONGEST_MS."""
        self.evaluate(_SETTLE, STILL_MS, LONGEST_MS)

    def shoot(self) -> bytes:
        """PNG, scale x WIDTH by scale x HEIGHT pixels."""
        with self.machine():
            return base64.b64decode(self.command("Page.captureScreenshot", format="png", optimizeForSpeed=True)["data"])

    def close(self) -> None:
        if hasattr(self, "driver"):
            stop_driver(self.driver, at_once=self.broken)
        self._folder.cleanup()
