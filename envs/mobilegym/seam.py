"""What MobileGym's tasks ask of an environment while they set a phone up, answered by our page.

Their methods are coroutines of Playwright; here each of them ends at once (see `bench._finished`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guiderail.agent.errors import EnvCrashed
from guiderail.envs.mobilegym.page import Page

if TYPE_CHECKING:
    from guiderail.envs.mobilegym.bench import Bench, Language

LOCALES = {"zh": "zh-Hans", "en": "en"}
OPEN_MS, PAUSE_MS = 8_000, 300
_PAUSE = "ms => new Promise(done => setTimeout(done, ms))"
_OPEN = """async (app, longest, pause) => {
  window.__OS__.openApp(app);
  const end = performance.now() + longest;
  while (!window.__OS__.getAppRoute?.()?.app && performance.now() < end) await new Promise(done => setTimeout(done, 20));
  await new Promise(done => setTimeout(done, pause));
}"""
_WARM = """async (apps, pause) => {
  try { await window.__SIM__.preloadAppStores?.(apps); } catch {}
  for (const app of apps) {
    window.__OS__.openApp(app);
    await new Promise(done => setTimeout(done, pause));
  }
  window.__OS__.goHome?.();
  await new Promise(done => setTimeout(done, pause));
}"""
_HOME = "async pause => { window.__OS__.goHome(); await new Promise(done => setTimeout(done, pause)); }"
_SPEAK = "locale => { window.__OS__.locale?.setLocale?.(locale); }"
GET_TRIES = 5


class BenchEnv:
    """language: of the phone, set before anything is drawn from its state."""

    supports_state_injection = True

    def __init__(self, page: Page, bench: Bench, seed: int, language: Language):
        self._page, self._bench, self._seed, self._language = page, bench, seed, language
        self.stopwatch = bench.part("env.stopwatch").StopWatch()
        self.page = Evaluating(page)

    async def reset(self, app_ids: list[str] | None = None) -> None:
        self._page.load(self._seed, app_ids)
        self._page.evaluate(_SPEAK, LOCALES[self._language])

    async def open_app(self, app_name: str, timeout_ms: int = OPEN_MS, wait_stable: bool = False) -> None:
        self._page.evaluate(_OPEN, app_name, timeout_ms, PAUSE_MS if wait_stable else 0)

    async def warm_apps(self, app_ids: list[str], settle_ms: int = PAUSE_MS) -> None:
        self._page.evaluate(_WARM, app_ids, settle_ms)

    async def go_home(self) -> None:
        self._page.evaluate(_HOME, PAUSE_MS)

    async def get_state(self, *, required_apps: list[str] | None = None) -> dict[str, Any]:
        """Waits for apps whose state is not there yet. Raises EnvCrashed where it does not come."""
        missing: list[str] = []
        for _ in range(GET_TRIES):
            state = self._page.state()
            missing = [app for app in required_apps or () if app not in state.get("apps", {})]
            if "os" in state and not missing:
                return state
            self._page.evaluate(_PAUSE, PAUSE_MS)
        raise EnvCrashed(f"MobileGym: no state of {', '.join(missing) or 'the phone'}")

    async def get_route(self) -> dict[str, Any]:
        return self._page.route()

    async def set_state(self, patch: dict[str, Any], *, deep: bool = True, reload: bool = False) -> None:
        if reload:
            raise EnvCrashed("MobileGym's task reloads the page while it sets the phone up")
        self._page.set_state(patch, deep)

    async def get_observation(self) -> Any:
        return self._bench.observation(self._page.state(), self._page.route())


class Evaluating:
    """The one method of Playwright's page that tasks use: they put files into the phone's file system with it."""

    def __init__(self, page: Page):
        self._page = page

    async def evaluate(self, function: str, given: Any = None) -> Any:
        return self._page.evaluate(function, given)
