"""What MobileGym as a live world adds to the contracts: a closed site, a fixed phone, its judge, its form, its experts."""

import http.client
import http.server
import importlib
import os
import signal
import threading
import time
import tomllib
from functools import partial
from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.scripted import ORIGINAL_SIZE, answer
from guiderail.agent.types import Click, Key, Open, SystemButton, Terminate, Type, Wait
from guiderail.envs.live.attempts import attempt, by_expert
from guiderail.envs.mobilegym import terms
from guiderail.envs.mobilegym.bench import Bench
from guiderail.envs.mobilegym.checkout import LARGE, Checkout
from guiderail.envs.mobilegym.finding import Target, find
from guiderail.envs.mobilegym.site import COOKIE, Site
from guiderail.envs.mobilegym.tasks import ENGLISH_SUFFIX, MobileGym
from tests.envs.mobilegym.conftest import NAMES, REAL, STANDIN

ROOT = Path(__file__).parents[3]
TALK = Dialogue(ORIGINAL_SIZE, BRIEF)
standin_only = pytest.mark.skipif(bool(REAL), reason="about the stand-in's own pages and tasks")


@pytest.fixture
def started(session):
    """Starts a task by name; closes it at the end."""
    tasks = []

    def start(name):
        tasks.append(session.task(name))
        return tasks[-1], tasks[-1].start()

    yield start
    for task in tasks:
        task.close()


# ------------------------------------------------------------------------------------------------------------- the site


def ask(site, path, cookie=True, host=None, method="GET"):
    connection = http.client.HTTPConnection(site.host, timeout=5)
    headers = {"Host": host or site.host} | ({"Cookie": f"a=b; {COOKIE}={site.token}"} if cookie else {})
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_the_site_serves_two_folders_to_who_has_the_token(tmp_path):
    (tmp_path / "dist" / "assets").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "dist" / "index.html").write_text("index")
    (tmp_path / "dist" / "assets" / "a.js").write_text("code")
    (tmp_path / "dist" / "way-out").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "cover.jpg").write_text("cover")
    site = Site(tmp_path / "dist", tmp_path / "data")
    try:
        assert ask(site, "/") == ask(site, "/chat/7?x=1") == (200, b"index")
        assert ask(site, "/assets/a.js") == (200, b"code")
        assert ask(site, "/cdn/cover.jpg") == (200, b"cover")
        for path in (
            "/missing.js",
            "/cdn/none",
            "/api/sdcard",
            "/way-out",
            "/../secret",
            "/%2e%2e/secret",
            "/cdn/../secret",
        ):
            assert ask(site, path)[0] in (200, 404), path
            assert b"secret" not in ask(site, path)[1], path
        assert ask(site, "/assets/a.js", method="POST")[0] == 501
        assert ask(site, "/", cookie=False)[0] == 403
        assert ask(site, "/", host="evil.example")[0] == 403
        assert ask(site, "http://evil.example/")[0] == 403
        assert site.refused == ["/", "http://evil.example/"]
    finally:
        site.close()


def test_a_page_reaches_nothing_but_its_site(started, session):
    """Not by name, not by address, and no other server of this machine."""

    class Here(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    asked: list[str] = []
    other = http.server.HTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    _, phone = started("wechat.OpenNewFriends/0")
    addresses = ["https://example.com/", "http://example.com/", f"http://127.0.0.1:{other.server_address[1]}/"]
    tried = phone.page.evaluate(
        """async all => {
          const tell = one => fetch(one, {mode: "no-cors"}).then(r => r.type === "opaque" ? "answered" : r.status, () => "failed");
          return [await Promise.all(all.map(tell)), (await fetch("/index.html")).status];
        }""",
        addresses,
    )
    other.shutdown()
    assert tried[1] == 200
    assert asked == []
    refused = session._site.refused
    assert {"example.com:443", "http://example.com/", addresses[2]} <= {*refused}


# ------------------------------------------------------------------------------------------------------------ the phone


def test_every_attempt_begins_at_the_same_moment_with_the_same_numbers(started):
    facts = "() => [new Date().toISOString().slice(0, 16), Date().slice(0, 21), Math.random(), new Date(0).getTime()]"
    seen = []
    for _ in range(2):
        _, phone = started("wechat.OpenNewFriends/0")
        seen.append(phone.page.evaluate(facts)[1:])
        phone.page.load(7, [])
        seen.append(phone.page.evaluate(facts)[1:])
    assert seen[0][0] == seen[1][0] == "Tue Mar 10 2026 09:30"
    assert seen[0][2] == 0
    assert seen[1][1] == seen[3][1] != seen[0][1]


def test_the_clock_runs_on_over_a_reload_of_the_page(started):
    _, phone = started("wechat.OpenNewFriends/0")
    before = phone.page.evaluate("() => Date.now()")
    phone.page.driver.refresh()
    after = phone.page.evaluate("() => Date.now()")
    assert 0 < after - before < 20_000


@standin_only
def test_storage_is_empty_at_every_start(started):
    for _ in range(2):
        _, phone = started("wechat.OpenNewFriends/0")
        assert phone.page.evaluate("() => window.__SIM__.leftovers") == [0, 2, ""]  # the two are our own marks
        assert phone.page.evaluate("() => localStorage.length") == 1


def test_the_same_instance_is_the_same_task_and_another_is_another(session):
    drawn = []
    for draw in (0, 0, 1, 2, 3):
        task = session.task(f"wechat.ToggleFriendConfirmation/{draw}")
        task.start()
        drawn.append((task.goal, task.params()))
        task.close()
    assert drawn[0] == drawn[1]
    assert any(one != drawn[0] for one in drawn)
    assert all((one[0] == drawn[0][0]) == (one[1] == drawn[0][1]) for one in drawn)


def test_going_back_after_a_restore_leads_where_it_led_before(started):
    task, phone = started("wechat.OpenNewFriends/0")
    assert follow(task, phone)
    there, token = phone.page.route(), phone.snapshot()
    assert there["path"] == "/new-friends"
    phone.act(SystemButton("Home"))
    assert phone.page.route() != there
    phone.restore(token)
    assert phone.page.route() == there
    phone.act(SystemButton("Back"))
    assert phone.page.route()["path"] == "/contacts"


def test_names_of_apps_in_both_languages_open_them(started):
    _, phone = started("notes.CreateNewNote/0")
    for name in ("WeChat", "微信"):
        phone.act(SystemButton("Home"))
        phone.act(Open(name))
        assert phone.page.route()["app"] == "wechat"


def test_text_goes_into_the_field_and_keys_take_it_away(started):
    task, phone = started("notes.CreateNewNote/0")
    while not isinstance(action := task.move().action, Type):
        phone.act(action)

    def text():
        return next(e.text for e in phone.elements() if e.kind == "field" and e.focused)

    phone.act(Type("ab\x03c"))
    phone.act(Type("d"))
    assert text() == "abcd"
    phone.act(Key("KEYCODE_DEL"))
    assert text() == "abc"
    phone.act(Key("clear"))
    assert text() == ""


# ------------------------------------------------------------------------------------------------------------ the judge


def follow(task, phone):
    """Do what the expert does; returns whether it claims success."""
    for _ in range(task.max_steps):
        move = task.move()
        if isinstance(move.action, Terminate):
            return move.action.status == "success"
        phone.act(move.action)
    return False


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_succeeds_with_boxes_around_what_it_presses(started, name):
    task, phone = started(f"{name}/0")
    pressed = 0
    while not isinstance((move := task.move()).action, Terminate):
        if isinstance(move.action, Click):
            assert move.box.contains(move.action.point)
            pressed += 1
        phone.act(move.action)
    assert move.action.status == "success"
    assert pressed
    outcome = task.check()
    assert (outcome.success, outcome.progress, outcome.side_effects) == (True, 1.0, ())


def test_one_stray_change_is_a_side_effect_and_no_success(started):
    task, phone = started("wechat.ToggleFriendConfirmation/0")
    assert follow(task, phone)
    stray = {"wechat": {"stray": 1}} if REAL else {"notes": {"titles": ["stray"]}}
    phone.page.set_state({"apps": stray})
    outcome = task.check()
    assert not outcome.success
    assert outcome.progress == 1.0
    assert len(outcome.side_effects) == 1
    assert outcome.side_effects[0] in outcome.reason


@standin_only
def test_half_of_the_checks_is_half_of_the_progress(started):
    task, phone = started("wechat.ToggleFriendConfirmation/0")
    assert task.check().progress == 0.5
    assert task.check().reason == "not met: confirmation"
    assert phone.answers == ()


def test_a_goal_that_nobody_claims_is_no_success_but_its_progress_counts(session):
    task = session.task("wechat.ToggleFriendConfirmation/0")

    def say(prompt):
        thought, action = task.expert()
        waits = Wait(0.0) if isinstance(action, Terminate) or say.over else action
        say.over |= isinstance(action, Terminate)
        return TALK.say(thought, waits, prompt.screen.screenshot)

    say.over = False
    real = task.expert
    task.expert = lambda: ("", Wait(0.0)) if say.over else real()
    made = answer(attempt(task, dialogue=TALK), say)
    assert made.ended == "out_of_steps"
    assert (made.outcome.success, made.outcome.progress) == (False, 1.0)


def test_giving_up_keeps_the_progress(session):
    going = attempt(session.task("wechat.OpenNewFriends/0"), dialogue=TALK)
    made = answer(going, lambda prompt: TALK.say("no", Terminate("failure"), prompt.screen.screenshot))
    assert (made.ended, made.outcome.success, made.outcome.progress) == ("gave_up", False, 0.0)
    assert made.outcome.side_effects == ()


def test_an_answer_counts_in_the_form_and_only_when_it_is_right(started):
    task, phone = started("notes.ReadNotesCount/0")
    assert "答题卡" in task.goal
    expected = task.expected()
    task.expected = lambda: [int(expected[0]) + 1]
    assert follow(task, phone)
    wrong = task.check()
    assert (wrong.success, wrong.progress) == (False, 0.5)


@standin_only
@pytest.mark.parametrize(("name", "said"), [("wechat.Broken", "setup of wechat.Broken"), ("wechat.BadJudge", "judge")])
def test_a_task_that_breaks_is_a_crash_and_never_a_score(checkout, name, said):
    session = MobileGym(checkout, "payment", (name,), scale=1).open(0)
    try:
        going = attempt(session.task(f"{name}/0"), dialogue=TALK)
        made = answer(going, lambda prompt: TALK.say("", Terminate("success"), prompt.screen.screenshot))
    finally:
        session.close()
    assert (made.ended, made.outcome) == ("crashed", None)
    assert said in made.reason


def test_a_killed_browser_is_a_crash_and_the_next_attempt_gets_a_new_one(checkout):
    from tests.launch.evaluate.test_live import descendants

    session = MobileGym(checkout, "train", NAMES, scale=1).open(0)
    try:
        task = session.task("wechat.OpenNewFriends/0")
        phone = task.start()
        for child in descendants(phone.page.driver.service.process.pid):
            os.kill(child, signal.SIGKILL)
        time.sleep(0.3)
        with pytest.raises(EnvCrashed, match="Chromium"):
            phone.screenshot()
        task.close()
        assert by_expert(session.task("wechat.OpenNewFriends/0"), dialogue=TALK).outcome.success
    finally:
        session.close()


def test_a_browser_that_has_loaded_often_makes_place_for_a_new_one(checkout, monkeypatch):
    monkeypatch.setattr("guiderail.envs.mobilegym.tasks.MOST_LOADS", 2)
    session = MobileGym(checkout, "train", NAMES, scale=1).open(0)
    try:
        pages = []
        for _ in range(3):
            task = session.task("wechat.OpenNewFriends/0")
            pages.append(task.start().page)
            task.close()
        assert pages[0] is pages[1] is not pages[2]
        assert pages[0].driver.service.process is None or pages[0].driver.service.process.poll() is not None
    finally:
        session.close()


# ------------------------------------------------------------------------------------------------ what is asked for


def test_english_goals_are_english_to_the_end(checkout, session):
    world = MobileGym(checkout, "train", language="en", scale=1)
    listed = {name.rpartition("/")[0] for name, _ in world.listed()}
    assert {name for name, why in world.chosen.items() if why == "no English wording"}
    bench = Bench.of(Checkout.at(checkout))
    assert all(bench.english(name) is not None for name in listed)
    if not REAL:
        english = world.open(0)
        try:
            task = english.task("notes.ReadNotesCount/0")
            phone = task.start()
            assert task.goal == "How many notes are there?" + ENGLISH_SUFFIX
            assert phone.page.state()["os"]["language"] == "en"
        finally:
            english.close()


def test_groups_tell_template_level_and_suite(checkout):
    listed = dict(MobileGym(checkout, "train", ("wechat.OpenNewFriends",)).listed())
    assert listed["wechat.OpenNewFriends/0"] == ("template:wechat.OpenNewFriends", "level:L1", "suite:wechat")


@standin_only
def test_tasks_of_apps_without_data_are_left_out(tmp_path, monkeypatch):
    where = tmp_path / "apps"
    for files in LARGE.values():
        for file in files:
            (where / file).parent.mkdir(parents=True, exist_ok=True)
            (where / file).write_text("{}" if "X/" in file else "[" + "1," * 40 + "1]")
    (tmp_path / "bench_env").symlink_to(STANDIN / "bench_env")
    (tmp_path / "dist").symlink_to(STANDIN / "dist")
    assert Checkout.at(tmp_path).without_data == {"x"}
    monkeypatch.setattr(Checkout, "without_data", frozenset({"x"}))
    world = MobileGym(str(STANDIN), "train")
    assert world.chosen["x.Post"] == "no data of x"
    assert not [name for name, _ in world.listed() if name.startswith("x.")]
    with pytest.raises(SetupError, match="no task is left: no data of x"):
        MobileGym(str(STANDIN), "train", ("x.Post",)).listed()


def test_what_cannot_be_used_is_said_with_the_command_that_helps(checkout, tmp_path, monkeypatch):
    monkeypatch.delenv("GUIDERAIL_MOBILEGYM", raising=False)
    with pytest.raises(SetupError, match="--checkout DIR or set GUIDERAIL_MOBILEGYM; get one with: git clone"):
        Checkout.at(None)
    with pytest.raises(SetupError, match="is not a MobileGym checkout"):
        Checkout.at(tmp_path)
    (tmp_path / "bench_env" / "task").mkdir(parents=True)
    with pytest.raises(SetupError, match=r"no built pages .* run: cd .* npm run build"):
        Checkout.at(tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.html").touch()
    Bench.of(Checkout.at(checkout))
    with pytest.raises(SetupError, match="this process uses"):
        Bench.of(Checkout.at(tmp_path))
    with pytest.raises(SetupError, match=r"the train split has no task nobody\.Knows"):
        MobileGym(checkout, "train", ("nobody.Knows",)).listed()
    with pytest.raises(SetupError, match="expected a split of test, train, payment"):
        MobileGym(checkout, "dev").listed()


def test_a_task_without_an_expert_says_so(session, checkout, monkeypatch):
    assert [*MobileGym(checkout, "train", ("experts",)).chosen][:1]
    monkeypatch.setattr("guiderail.envs.mobilegym.tasks.known", lambda name, asks: name == "notes.CreateNewNote")
    assert [*MobileGym(checkout, "train", ("experts",)).chosen] == ["notes.CreateNewNote"]
    task = session.task("wechat.OpenNewFriends/0")
    task.start()
    try:
        with pytest.raises(SetupError, match="--tasks experts"):
            task.expert()
    finally:
        task.close()


def test_terms_are_remembered_for_this_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(SetupError, match="--accept-mobilegym-terms"):
        terms.require()
    (tmp_path / "guiderail").mkdir()
    terms.file().write_text("[1, 2")
    assert not terms.accepted()
    terms.accept()
    terms.require()


@standin_only
def test_what_must_be_scrolled_to_and_what_is_covered(started):
    task, phone = started("wechat.OpenNewFriends/0")
    page = phone.page
    page.evaluate("() => { for (const path of ['/me', '/settings']) go(path); }")
    beyond = find(page, "trigger", "settings.privacy.friends.open", {})
    assert beyond.start.y > beyond.end.y
    page.evaluate("() => { ways.wechat.push('/contacts'); draw(); }")
    assert isinstance(find(page, "trigger", "contacts.newFriends.open", {"from": "contacts"}), Target)
    assert find(page, "trigger", "contacts.newFriends.open", {"from": "elsewhere"}) is None
    page.evaluate(
        """() => { const over = document.createElement("div");
        over.style = "position: fixed; inset: 0; background: white"; document.body.append(over); }"""
    )
    assert not isinstance(find(page, "text", "新的朋友", {}), Target)
    assert task.goal


def test_it_is_a_world_and_an_environment_by_name(checkout, tmp_path, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    import guiderail.envs.gym

    made = partial(gymnasium.make, "guiderail/MobileGym-v0", split="test" if not REAL else "train")
    place = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["guiderail.worlds"][
        "mobilegym"
    ]
    module, _, attribute = place.partition(":")
    world = getattr(importlib.import_module(module), attribute)
    monkeypatch.setenv("GUIDERAIL_MOBILEGYM", checkout)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for use in (made, world.listed):
        with pytest.raises(SetupError, match="If you accept these terms"):
            use()
    terms.accept()
    assert [name for name, _ in world.listed()] == [name for name, _ in MobileGym(checkout).listed()]
    env = made().unwrapped
    try:
        observation, info = env.reset(options={"task": "notes.ReadNotesCount/0"})
        assert observation["pixels"].shape == (800, 360, 3)
        assert info["goal"]
        _, reward, terminated, _, _ = env.step(guiderail.envs.gym.to_dict(Terminate("success")))
        assert (reward, terminated) == (0.0, True)
    finally:
        env.close()
