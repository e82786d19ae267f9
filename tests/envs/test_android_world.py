"""AndroidWorld's own registry, suite, runner and checks on the pocket phone; skipped where the package is absent."""

import importlib.util
import random

import pytest

pytest.importorskip("android_env")
if importlib.util.find_spec("android_world") is None:
    pytest.skip("android_world is not installed; guiderail doctor says how", allow_module_level=True)

from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, SetupError
from agent.policy import ScriptedPolicy
from agent.scripted import ORIGINAL_SIZE
from agent.types import Answer, Click, Completion, LongPress, Open, Point, Swipe, Type
from envs.android_world import WorldDevice, make_agent, make_suite, module, pocket_env, run_suite
from envs.android_world_live import AndroidWorldTasks, LiveWorldTask
from envs.android_world_results import averages, read_episodes
from envs.attempts import attempt
from envs.pocket.aosp_expert import WAYS, Expert

NASTY = "\"; reboot; $(id) ` \n && | ' > /sdcard/x"
SMALL = ("SystemWifiTurnOn", "CameraTakePhoto", "MarkorDeleteNote", "TurnOffWifiAndTurnOnBluetooth")


@pytest.fixture(scope="module")
def env():
    made = pocket_env()
    yield made
    made.close()


@pytest.fixture
def spoken(brief):
    return Dialogue(ORIGINAL_SIZE, brief.dialect, 1)


def phone_of(env):
    return env.controller.env._simulator.phone


def played(task, dialogue):
    """Our attempt at a live task by its own expert."""
    going = attempt(task, dialogue=dialogue)
    try:
        prompt = next(going)
        while True:
            prompt = going.send(Completion(dialogue.say(*task.expert(), prompt.screen.screenshot)))
    except StopIteration as stop:
        return stop.value


def test_registry_and_budgets_are_its_own():
    suite = make_suite()
    assert len(suite) == 116
    site = AndroidWorldTasks(("MarkorEditNote", "MarkorMergeNotes", "SystemWifiTurnOn")).open(0)
    names = ("MarkorEditNote_0", "MarkorMergeNotes_0", "SystemWifiTurnOn_0")
    assert [site.task(name).max_steps for name in names] == [12, 78, 10]
    again = module("suite_utils").create_suite(module("registry").TaskRegistry().get_registry("android_world"), seed=30)
    ours = {name: one.params for name, (one,) in suite.items() if name in WAYS and name != "MarkorCreateFolder"}
    assert ours == {name: again[name][0].params for name in ours}
    with pytest.raises(SetupError, match="no task 'Nonsense'"):
        make_suite(("Nonsense",))


def test_thirty_five_real_tasks_on_pocket(spoken):
    """Not solved at the start unless the task is to verify; solved by the expert within AndroidWorld's own budget."""
    world = AndroidWorldTasks(seed=7)
    site = world.open(0)
    assert len(world.listed()) == len(WAYS) == 35
    state = random.getstate()
    for name, _ in world.listed():
        task = site.task(name)
        task.start()
        assert task.success() == ("Verify" in name and "StopWatch" not in name), name
        task.close()
        done = played(site.task(name), spoken)
        assert (done.ending, done.success) == ("finished", True), (name, done.reason)
        assert len(done.turns) <= task.max_steps
    assert random.getstate() == state
    site.close()


def test_a_second_recording_in_the_same_second_is_another_file(spoken):
    """The clock is set back before each task."""
    site = AndroidWorldTasks(("AudioRecorderRecordAudio", "CameraTakePhoto", "CameraTakeVideo"), combinations=2).open(0)
    for name, _ in site.world.listed():
        assert played(site.task(name), spoken).success is True, name
    site.close()


def test_half_of_a_composite_task_is_no_success(env):
    site = AndroidWorldTasks(("TurnOffWifiAndTurnOnBluetooth",)).open(0)
    task = site.task("TurnOffWifiAndTurnOnBluetooth_0")
    device = task.start()
    device.shell(["svc", "wifi", "disable"])
    assert task.success() is False
    assert task.score == 0.5
    site.close()


def expert_of(suite, env, dialogue):
    """A policy that looks up the way of the task whose goal it is told."""
    ways = {one.goal: (name, one.params) for name, instances in suite.items() for one in instances}
    experts = {}

    def say(request):
        told = str(request.prompt.messages)
        goal = next(g for g in ways if g in told)
        expert = experts.setdefault(goal, Expert(*ways[goal]))
        looking = WorldDevice(env, 0.0)
        looking.screenshot()
        return dialogue.say("", expert.act(looking.elements()), request.prompt.screen.screenshot)

    return ScriptedPolicy(say, "expert", ORIGINAL_SIZE)


def test_its_own_runner_with_results_as_lines(env, spoken, tmp_path):
    """The same tasks through AndroidWorld's runner; a crashed episode is told apart and only it is run again."""
    suite = make_suite(SMALL)
    agent = make_agent(env, expert_of(suite, env, spoken), spoken, pause=0.0)
    step, broken = agent.step, []

    def sometimes(goal):
        if goal.startswith("Take") and not broken:
            broken.append(goal)
            raise EnvCrashed("the cable")
        return step(goal)

    agent.step = sometimes
    first = run_suite(suite, agent, tmp_path)
    assert [e["instance"] for e in first] == [f"{name}_0" for name in suite]
    assert {e["instance"]: e["is_successful"] for e in first} == {f"{n}_0": 1.0 for n in SMALL} | {
        "CameraTakePhoto_0": None
    }
    assert averages(first) == {
        "success_as_upstream": 1.0,
        "success_with_crashed": 0.75,
        "tasks": 4,
        "episodes": 4,
        "crashed": 1,
    }
    for instances in suite.values():
        instances[0].initialized = False
    done = run_suite(suite, make_agent(env, expert_of(suite, env, spoken), spoken, pause=0.0), tmp_path)
    assert averages(done)["success_with_crashed"] == 1.0
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 5
    assert read_episodes(tmp_path / "episodes.jsonl") == done
    assert done[0]["episode_data"]["text"]
    assert not list(tmp_path.glob("*.pkl*"))


def test_actions_go_where_they_should(env, spoken):
    device = WorldDevice(env, 0.0)
    device.screenshot()
    phone = phone_of(env)
    device.act(Open("Markor"))
    assert phone.screen.app == "Markor"
    for name in (f"nothing{NASTY}", "com.android.settings; reboot"):
        device.act(Open(name))
        assert phone.screen.app == "Markor"
    device.act(Click(next(e for e in device.elements() if e.text == "Note").box.center))
    name = next(e for e in device.elements() if e.text == "name").box.center
    device.act(Click(name))
    before = set(phone.files.content)
    device.act(Type(NASTY))
    assert phone.screen.fields["name"] == NASTY.replace("\n", " ")
    assert phone.screen.page == "edit"  # no Enter after the text
    device.act(LongPress(name, 1.0))
    assert [e.text for e in device.elements()] == ["Edit", "Copy", "Paste", "Close"]
    assert set(phone.files.content) - before <= {"/storage/emulated/0/window_dump.xml"}
    device.act(Answer(NASTY))
    assert (env.interaction_cache, device.answers) == (NASTY, (NASTY,))
    device.act(Open("Files"))
    device.act(Swipe(Point(0.5, 0.8), Point(0.5, 0.3)))
    assert phone.screen.scroll > 0


def test_what_goes_wrong_inside_is_a_crash(spoken):
    site = AndroidWorldTasks(("SystemWifiTurnOn",)).open(0)
    task = site.task("SystemWifiTurnOn_0")
    task._task.initialize_task = lambda env: 1 / 0
    done = played(task, spoken)
    assert (done.ending, done.success) == ("crashed", None)
    assert "ZeroDivisionError" in done.reason
    other = AndroidWorldTasks(("SystemWifiTurnOn",)).open(0)
    assert played(other.task("SystemWifiTurnOn_0"), spoken).success
    site.close()
    other.close()


def test_tasks_pocket_cannot_hold_have_no_expert():
    site = AndroidWorldTasks(("BrowserMaze",)).open(0)
    task = site.task("BrowserMaze_0")
    assert isinstance(task, LiveWorldTask)
    with pytest.raises(SetupError, match="no expert for BrowserMaze"):
        task.expert()
    site.close()
