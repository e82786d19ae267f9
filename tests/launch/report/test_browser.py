"""The report as people meet it: in a browser, opened from disk."""

import json
import time

import pytest

from tests.launch.report.browser import BROWSER, DRIVER, Browser
from tests.launch.report.conftest import EVIL
from tests.launch.report.synthetic import sop_run, training_run

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with chromedriver on this machine")
SELECTED = "document.querySelector('.cell[aria-pressed=true]')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    window = Browser(tmp_path_factory.mktemp("profile"))
    yield window
    window.close()


def until_selected(browser: Browser, sample: int, t: int) -> None:
    """A page draws what its address names a moment later."""
    browser.until(f"{SELECTED} && {SELECTED}.dataset.sample === '{sample}' && {SELECTED}.dataset.t === '{t}'")


def until_reads(browser: Browser, selector: str, text: str) -> None:
    found = f"document.querySelector({json.dumps(selector)})"
    browser.until(f"{found} && {found}.textContent === {json.dumps(text)}")


def test_a_walk_through_the_viewer(browser, built):
    browser.open(built / "index.html")
    browser.run("document.querySelector('a[href=\"rl/index.html\"]').click()")
    browser.until("document.title.startsWith('rl')")
    browser.run("[...document.querySelectorAll('nav a')].find(a => a.textContent === 'Trajectories').click()")
    browser.until("document.querySelectorAll('.entries a').length > 3")
    assert "kept for training" in browser.until(
        "document.querySelector('.walk p') && document.querySelector('.walk p').textContent"
    )
    wrong = browser.until(f"{SELECTED} && {SELECTED}.className")
    assert set(wrong.split()) & {"w", "t"}  # it opens on a mistake in a group that was trained on
    browser.run("location.hash = document.querySelector('.entries a').getAttribute('href')")
    browser.until("location.hash.endsWith('/0/0') && document.querySelector('.cell[aria-pressed=true]')")
    browser.until(f"{SELECTED}.dataset.t === '0' && {SELECTED}.dataset.sample === '0'")
    browser.press("ArrowRight")
    browser.until("location.hash.endsWith('/0/1')")
    until_selected(browser, 0, 1)
    browser.press("ArrowDown")
    browser.until("location.hash.endsWith('/1/1') || location.hash.endsWith('/1/0')")
    first = browser.run("return document.querySelector('.walk h1').textContent + location.hash")
    browser.press("n")
    browser.until(f"document.querySelector('.walk h1').textContent + location.hash !== {json.dumps(first)}")
    browser.until("document.querySelectorAll('.credit tr').length > 5")
    browser.until(
        "[...document.querySelectorAll('.strip img')].every(i => i.complete)"
    )  # loaded, or found to be broken
    shown = browser.run(
        "return [...document.querySelectorAll('.strip img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert shown
    browser.run(
        "const s = document.getElementById('outcome'); s.value = 'patched'; s.dispatchEvent(new Event('change'))"
    )
    browser.until("document.querySelectorAll('.entries .patched').length > 0")
    browser.until("[...document.querySelectorAll('.entries li')].every(li => li.querySelector('.patched'))")
    assert browser.messages() == []


def test_a_deep_link_opens_its_step_and_marks_both_targets(browser, built):
    browser.open("about:blank")
    rows = (built / "rl" / "data" / "index.js").read_text()
    index = json.loads(rows[rows.index(",") + 1 : rows.rindex(")")])["entries"]
    row = next(one for one in index if not one["episode"].startswith("evil"))
    browser.open(f"{(built / 'rl' / 'walks.html').resolve().as_uri()}#{row['key'].replace('@', '%40')}/2/0")
    until_selected(browser, 2, 0)
    browser.until("document.querySelectorAll('.stage .detail svg .mark-expert').length >= 1")
    browser.open("about:blank")
    browser.open(f"{(built / 'rl' / 'walks.html').resolve().as_uri()}#{row['episode']}/0/0")
    until_selected(browser, 0, 0)
    browser.open("about:blank")
    browser.open(f"{(built / 'rl' / 'walks.html').resolve().as_uri()}#nowhere/0/0")
    assert browser.until("document.getElementById('walk').textContent") == "No episode nowhere in this run."


def test_the_marks_have_a_legend(browser, built):
    browser.open(built / "rl" / "walks.html")
    browser.until(SELECTED)
    for mark, words in ((".mark-expert", "the expert"), (".mark-policy", "this rollout"), (".other", "other rollouts")):
        drawn = browser.run(f"return !!document.querySelector('.detail .shot {mark}')")
        assert (words in browser.run("return document.querySelector('.picture').textContent")) == drawn
    assert "another action" in browser.run("return document.querySelector('.signs').textContent")


@pytest.mark.parametrize("width", [390, 800])
def test_nothing_is_cut_or_broken_on_a_narrow_screen(tmp_path, built, width):
    window = Browser(tmp_path / "profile", (width, 844))
    try:
        for page in sorted(built.rglob("*.html")):
            window.open("about:blank")
            window.open(page)
            if page.name == "walks.html":
                window.until(SELECTED)
            wide = window.run(
                "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .strip, .sr')"
                " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"
            )
            assert wide == [], page
            # A paragraph or cell of words, one letter per line, is far higher than it is wide.
            thin = window.run(
                "return [...document.querySelectorAll('main p, main li, main td, main th')].filter(e => {"
                "const r = e.getBoundingClientRect();"
                "return r.width && r.width < 45 && r.height > 90 && e.textContent.trim().length > 8"
                "}).map(e => e.outerHTML.slice(0, 120))"
            )
            assert thin == [], page
        assert window.messages() == []
    finally:
        window.close()


@pytest.mark.parametrize(("width", "dark"), [(390, True), (800, False), (1400, True)])
def test_two_models_on_the_same_data_in_both_schemes(tmp_path, data, width, dark):
    """The headline with the difference, nothing wider than the window, no blank space below the viewer."""
    from guiderail.launch.report.pages import build

    sop_run(data, tmp_path / "base", 0.9)
    sop_run(data, tmp_path / "sft", 0.05)
    build([tmp_path / "base", tmp_path / "sft"], tmp_path / "report")
    window = Browser(tmp_path / "profile", (width, 900), dark)
    try:
        window.open(tmp_path / "report" / "index.html")
        assert "points [" in window.run("return document.querySelector('.short li').textContent")
        for page in sorted((tmp_path / "report").rglob("*.html")):
            window.open("about:blank")
            window.open(page)
            size = "const d = document.documentElement; return [d.scrollWidth - d.clientWidth, d.scrollHeight, %s]"
            if page.name == "walks.html":
                window.until(SELECTED)
                end = "Math.ceil(document.querySelector('#walk').getBoundingClientRect().bottom + scrollY)"
                wider, high, end_of_walk = window.run(size % end)
                assert high <= max(900, end_of_walk + 1), page
            else:
                wider, _, _ = window.run(size % "0")
            assert wider <= 0, page
    finally:
        window.close()


def test_markup_is_shown_as_text_and_never_runs(browser, built, study):
    with (study / "rl" / "rollouts.jsonl").open(encoding="utf-8") as file:
        row = json.loads(file.readline())
    key = f"{row['unit']}@{row['visit']}"
    browser.open("about:blank")
    place = (built / "rl" / "walks.html").resolve().as_uri()
    browser.open(place)
    browser.run(f"location.hash = '#' + encodeURIComponent({json.dumps(key)}) + '/{row['sample']}/0'")
    until_reads(browser, ".says.policy .thought", f"thought {EVIL}")
    until_reads(browser, ".said .why", f"why {EVIL}")
    until_reads(browser, ".said details pre", f"said {EVIL}")
    browser.run("location.hash = '#' + encodeURIComponent('evil/../<b>') + '/0/0'")
    until_reads(browser, ".walk h1", f"goal {EVIL}")
    for page in sorted(built.rglob("*.html")):
        browser.open(page)
        assert browser.run("return window.hacked === undefined && !document.querySelector('img[src=x]')"), page
    assert browser.messages() == []


def test_scripts_written_into_a_page_would_be_stopped(browser, built):
    browser.open(built / "index.html")
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.head.append(s)"
    )
    browser.run("const p = document.createElement('p'); p.setAttribute('onclick', 'window.hacked = 1'); p.click()")
    assert browser.run("return window.hacked") is None
    assert any("Content Security Policy" in message for message in browser.messages())


def test_a_live_page_shows_itself_anew(browser, data, tmp_path):
    from guiderail.launch.report.pages import build

    run = training_run(data, tmp_path / "run", generations=2, groups=2, finish=False)
    build([run], tmp_path / "out", plots=False)
    browser.open(tmp_path / "out" / "index.html")
    browser.run("window.old = true")
    (run / "metrics.json").write_text('{"seconds": 61.0}')
    build([run], tmp_path / "out", plots=False)
    browser.until("window.old === undefined && document.body.textContent.includes('61 s')")
    assert browser.messages() == []


@pytest.mark.slow
def test_two_thousand_episodes_open_in_two_seconds_and_300_megabytes(tmp_path):
    from guiderail.envs.pocket.record import record
    from guiderail.launch.report.pages import build

    record(tmp_path / "data", 2000, 0)
    build([sop_run(tmp_path / "data", tmp_path / "run")], tmp_path / "out", plots=False)
    window = Browser(tmp_path / "profile")
    try:
        for page, ready in (("index.html", "document.readyState === 'complete'"), ("walks.html", SELECTED)):
            started = time.perf_counter()
            window.open(tmp_path / "out" / page)
            window.until(ready)
            assert time.perf_counter() - started < 2
        for _ in range(20):
            window.until(SELECTED)
            window.press("n")
        # Of the renderer, which holds the page; a blank page takes 130 MB there, and the browser's other processes 250.
        assert window.memory()["renderer"] < 300
    finally:
        window.close()
