"""The recorder's page without its page: what it asks for, on every kind of device, and what it is refused."""

import shutil
import threading

import pytest
from starlette.testclient import TestClient

from guiderail.agent.codec import action_to_json
from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Terminate, Wait
from guiderail.envs.byhand.recorder import Recorder
from guiderail.envs.pocket.tasks import task
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import oracle_gate
from guiderail.envs.recordings.replay import expert_turn
from guiderail.launch.console.asked import box_of, routes
from guiderail.launch.console.byhand import android_places, miniwob_places, pocket_places
from guiderail.launch.console.devices import DeviceSpec, open_place
from guiderail.launch.console.keep import Keeper
from guiderail.launch.console.recording import Session, record_page
from guiderail.launch.console.server import application
from guiderail.launch.console.talk import UNITS
from guiderail.rl.runs.corrections import recordings_of
from guiderail.rl.runs.log import prompt_digest
from tests.launch.console.conftest import place, speaker, until
from tests.launch.report.browser import BROWSER, DRIVER


@pytest.fixture
def session(tmp_path):
    made = Session(Recorder(tmp_path / "mine", "ann"), pocket_places("train", "easy", (160, 288)))
    yield made
    made.close()


def act(session, action, **more):
    return session.do({"do": "act", "action": action_to_json(action, ScreenTransform(UNITS, UNITS)), **more})


def by_expert(session):
    """The person does what the task's own expert would do, to the end."""
    while not isinstance(action := session.place.task.expert()[1], Terminate):
        act(session, action, thought="as the expert")
    return session.do({"do": "finish", "status": action.status})


def gate(folder):
    loaded = load_episodes(folder)
    result = oracle_gate(loaded, Dialogue(ORIGINAL_SIZE, BRIEF))
    assert (loaded.swipes, result["exact"]) == ("finger", result["steps"])
    return loaded.episodes


def test_one_task_after_the_other(session):
    for number in range(2):
        assert session.do({"do": "begin", "number": number})["under_way"]
        assert by_expert(session)["written"] == [number + 1, 0]
    first, second = gate(session.recorder.folder)
    assert (first.meta["template"], first.meta["task"]) != (second.meta["template"], second.meta["task"])
    assert session.view()["number"] == 2
    for step in first.steps:
        assert len(step.boxes) == isinstance(step.action, Click)


def test_what_the_page_shows_is_enough_to_choose_a_target(session):
    shown = session.do({"do": "begin"})
    assert session.image(shown["screen"]["src"])
    one = next(one for one in shown["elements"] if one["touch"])
    left, top, right, bottom = one["box"]
    point = [round((left + right) / 2 * UNITS), round((top + bottom) / 2 * UNITS)]
    touch = {"do": "act", "action": {"action": "click", "coordinate": point}}
    with pytest.raises(SetupError, match="not on this screen any more"):
        session.do(touch | {"box": [0, 0, 1, 0.5]})
    shown = session.do(touch | {"box": one["box"], "hide": [[0, 0.9, 1, 1]]})
    assert shown["steps"][0]["box"] == pytest.approx(one["box"], abs=1e-3)
    recorded = session.image(shown["steps"][0]["screen"]["src"])
    assert recorded not in (None, session.image(shown["screen"]["src"]))
    shown = session.do(touch | {"box": [0, 0, 1, 1], "drawn": True})
    assert session.recorder.line["steps"][1]["box_origin"] == "annotation"


def test_the_devices_state_is_asked_before_an_episode_counts(session):
    session.do({"do": "begin"})
    act(session, session.place.task.expert()[1])
    with pytest.raises(SetupError, match="says that the goal is not reached"):
        session.do({"do": "finish"})
    assert session.do({"do": "fail"})["written"] == [0, 1]
    session.do({"do": "begin"})
    act(session, session.place.task.expert()[1])
    assert session.do({"do": "finish", "sure": True})["written"] == [1, 1]


def test_steps_are_taken_back_and_cut_and_an_attempt_thrown_away(session):
    before = session.do({"do": "begin"})["screen"]["src"]
    act(session, session.place.task.expert()[1])
    assert session.do({"do": "redo"})["screen"]["src"] == before
    act(session, session.place.task.expert()[1])
    assert session.do({"do": "cut", "step": 0})["steps"] == []
    shown = session.do({"do": "discard"})
    assert not shown["under_way"]
    assert not shown["unfinished"]


def test_a_folder_with_an_unfinished_attempt_offers_to_go_on(session, tmp_path):
    goal = session.do({"do": "begin", "goal": "look around"})["goal"]
    act(session, Click(session.recorder.seen.elements[0].box.center))
    session.close()
    again = Session(Recorder(tmp_path / "mine"), pocket_places("train", "easy", (160, 288)))
    shown = again.view()
    assert (shown["unfinished"], shown["under_way"], shown["goal"]) == (True, False, goal)
    assert len(again.do({"do": "begin"})["steps"]) == 1
    again.close()


BAD = [
    {"do": "fly"},
    {"do": ["begin"]},
    {},
    {"do": "act", "action": {"action": "click", "coordinate": [1, 2, 3]}},
    {"do": "act", "action": None},
    {"do": "act", "action": {"action": "wait"}, "hide": [[0, 0, 2, 2]]},
    {"do": "act", "action": {"action": "wait"}, "hide": "all"},
    {"do": "act", "action": {"action": "wait"}, "thought": 7},
    {"do": "act", "action": {"action": "wait"}, "instruction": "x" * 9000},
    {"do": "cut", "step": True},
    {"do": "cut", "step": 99},
    {"do": "finish", "status": "maybe"},
    {"do": "begin", "goal": ["x"]},
    {"do": "begin", "number": -1},
    {"do": "begin"},
]


def test_what_makes_no_sense_is_refused_and_changes_nothing(session):
    session.do({"do": "begin"})
    before = session.view()
    for said in BAD:
        with pytest.raises(GuiderailError):
            session.do(said)
    assert session.view() == before
    with pytest.raises(SetupError, match="a box is"):
        box_of([0, 0, float("nan"), 1])


def test_the_page_is_behind_the_token_and_large_messages_are_refused(session):
    app = application("secret", "127.0.0.1", 80, [record_page(session)])
    client = TestClient(app, base_url="http://127.0.0.1:80", headers={"host": "127.0.0.1:80"})
    assert client.get("/record.html").status_code == 404
    assert client.post("/other/do", json={"do": "show"}).status_code == 404
    assert client.post("/secret/do", json={"do": "show"}, headers={"origin": "http://evil"}).status_code == 403
    assert client.get("/secret/").status_code == 200
    assert client.post("/secret/do", json={"do": "show"}).json()["folder"] == "mine"
    assert "at most" in client.post("/secret/do", content=b"x" * 100_000).json()["error"]
    for text in (b"{", b"[]", b"\xff"):
        assert "error" in client.post("/secret/do", content=text).json()
    assert client.get("/secret/screens/..%2Fdraft").status_code == 404


def test_a_device_that_hangs_leaves_the_page_answering():
    hang = threading.Event()

    def do(said):
        hang.wait(20)
        return {}

    app = application("secret", "127.0.0.1", 80, [type("P", (), {"name": "", "title": "", "file": "record.html", "place": "/", "routes": routes(do, lambda digest: None, 0.2)})])  # fmt: skip
    with TestClient(app, base_url="http://127.0.0.1:80", headers={"host": "127.0.0.1:80"}) as client:
        assert "has not answered for 0.2 s" in client.post("/secret/do", json={}).json()["error"]
        assert "not answered yet" in client.post("/secret/do", json={}).json()["error"]
        assert client.get("/secret/").status_code == 200
        hang.set()


@pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client on this machine")
def test_the_same_recorder_through_the_real_adb_client(tmp_path):
    def place(goal, number):
        return open_place(DeviceSpec("pocket-adb:toggle", goal, number))

    session = Session(Recorder(tmp_path / "mine"), place)
    try:
        session.do({"do": "begin"})
        act(session, session.place.task.expert()[1])
        assert not session.view()["can_redo"]
        assert "cannot go back" in session.do({"do": "redo"})["note"]
        session.do({"do": "discard"})
        session.do({"do": "begin"})
        by_expert(session)
    finally:
        session.close()
    (episode,) = gate(tmp_path / "mine")
    assert {step.box_origin for step in episode.steps if isinstance(step.action, Click)} == {"tree"}


@pytest.mark.slow
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with chromedriver on this machine")
def test_the_same_recorder_on_miniwob(tmp_path):
    pytest.importorskip("miniwob")
    session = Session(Recorder(tmp_path / "mine"), miniwob_places("click-button", 2))
    try:
        for number in range(2):
            session.do({"do": "begin", "number": number})
            act(session, session.place.task.expert()[1])
            assert "finish the episode" in session.note
            session.do({"do": "finish"})
    finally:
        session.close()
    episodes = gate(tmp_path / "mine")
    assert [[step.action.name for step in episode.steps] for episode in episodes] == [["click"]] * 2
    assert all(len(episode.steps[0].boxes) == 1 for episode in episodes)


def test_a_correction_in_the_console_becomes_a_recording(attend, tmp_path):
    """The agent waits, the person takes over, the run folder becomes a recording with the person's target."""
    attempt = attend(place("pocket:toggle"), speaker(lambda prompt: ("let me see", Wait(1.0))))
    attempt.step()
    until(lambda: len(attempt.turns) == 1 and attempt.phase == "ready")
    thought, action = attempt.place.task.expert()
    attempt.act(action, thought)
    until(lambda: len(attempt.turns) == 2 and attempt.phase == "ready")
    attempt.stop()
    keeper = Keeper(tmp_path / "run")
    assert keeper.keep(attempt)
    keeper.close()
    assert recordings_of([tmp_path / "run"], tmp_path / "data")["targets"] == 1
    (episode,) = gate(tmp_path / "data")
    waited, touched = episode.steps
    assert (waited.history, waited.thought, touched.history, touched.thought) == (True, "let me see", False, thought)
    assert len(touched.boxes) == isinstance(action, Click)
    prompt, _ = expert_turn(episode, 1, attempt.actor.dialogue)
    assert prompt_digest(prompt) == prompt_digest(attempt.turns[1].prompt)


def test_a_goal_of_ones_own_gets_the_phone_that_was_asked_for():
    place = pocket_places("heldout", "phone", (270, 600))("look around", 4)
    try:
        assert {"split": "heldout", "style": "phone", "size": [270, 600]}.items() <= place.world.items()
        screen = place.task.start().screenshot()
        assert (screen.width, screen.height) == (270, 600)
    finally:
        place.close()


def test_a_phone_that_adb_reaches_is_recorded_with_a_goal_of_ones_own(tmp_path):
    if shutil.which("adb") is None:
        pytest.skip("no adb client on this machine")
    from guiderail.envs.pocket.adb_host import AdbHost

    host = AdbHost((160, 288))
    try:
        host.start(task("call", 0))
        session = Session(Recorder(tmp_path / "mine"), android_places(host.daemon.serial, None, 0.0), asks_goal=True)
        with pytest.raises(SetupError, match="say in words"):
            session.do({"do": "begin"})
        icon = next(e for e in session.do({"do": "begin", "goal": "open something"})["elements"] if e["touch"])
        left, top, right, bottom = icon["box"]
        at = [round((left + right) / 2 * UNITS), round((top + bottom) / 2 * UNITS)]
        session.do({"do": "act", "action": {"action": "click", "coordinate": at}, "box": icon["box"]})
        session.do({"do": "finish"})
        session.close()
    finally:
        host.close()
    (episode,) = gate(tmp_path / "mine")
    assert (episode.goal, episode.steps[0].box_origin) == ("open something", "tree")
