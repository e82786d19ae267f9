"""What every live environment keeps, as tests to inherit: name the class Test..., give it a `device` or a `task`.

class TestMyDevice(DeviceContract):
    @pytest.fixture
    def device(self): ...
"""

import pickle

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed
from guiderail.agent.scripted import ORIGINAL_SIZE, answer
from guiderail.agent.types import (
    Answer,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.live.attempts import SelfEnding, attempt, by_expert
from guiderail.rl.runs.rows import rollout_row, success

HOSTILE = '"; reboot; $(id) ` \n && | > /sdcard/x \ue006 \x03'
MIDDLE = Point(0.5, 0.5)
ACTIONS = [
    Click(MIDDLE),
    Click(Point(-3.0, 7.0)),
    LongPress(MIDDLE, 0.6),
    Swipe(MIDDLE, Point(0.5, 0.1)),
    Swipe(Point(2.0, 2.0), Point(-1.0, 0.5)),
    Type("milk"),
    Type(""),
    Type(HOSTILE),
    Type("smörgås 牛乳 😀"),
    *(SystemButton(button) for button in ("Back", "Home", "Menu", "Enter")),
    Key("volume_up"),
    Key("; reboot"),
    Open("Settings"),
    Open("../../no such app; reboot"),
    Wait(0.01),
    Answer("yes"),
    Terminate("success"),
]


class DeviceContract:
    """still: equal looks when nothing happens. snapshots: whether states can be kept."""

    still = True
    snapshots = True

    @pytest.fixture
    def device(self):
        raise NotImplementedError("inherit and give a device")

    def test_screenshots_are_encoded_images_of_the_stated_size(self, device):
        first, second = device.screenshot(), device.screenshot()
        assert first.image().size == (first.width, first.height) == (second.width, second.height)
        assert first.encoded().startswith(b"\x89PNG")
        if self.still:
            assert first.digest == second.digest

    def test_no_action_of_a_policy_raises(self, device):
        for action in ACTIONS:
            device.act(action)
            device.screenshot()

    def test_answers_are_remembered_in_order(self, device):
        assert device.answers == ()
        device.act(Answer("one"))
        device.act(Click(MIDDLE))
        device.act(Answer("two"))
        assert device.answers == ("one", "two")

    def test_elements_lie_on_the_screen_from_top_to_bottom(self, device):
        found = device.elements()
        for element in found:
            box = element.box
            assert 0 <= box.left < box.right <= 1
            assert 0 <= box.top < box.bottom <= 1
        assert [e.box.top for e in found] == sorted(e.box.top for e in found)

    def test_a_snapshot_brings_back_screen_and_answers(self, device):
        if not self.snapshots:
            pytest.skip("this device keeps no states")
        device.act(Click(Point(0.3, 0.5)))
        device.act(Answer("before"))
        before, token = device.screenshot().digest, device.snapshot()
        for action in (Click(Point(0.5, 0.3)), Type("x"), SystemButton("Home"), Answer("after")):
            device.act(action)
        device.restore(token)
        assert device.screenshot().digest == before
        assert device.answers == ("before",)

    def test_a_token_of_another_device_is_refused(self, device):
        if not self.snapshots:
            pytest.skip("this device keeps no states")
        with pytest.raises(TypeError):
            device.restore("not a token")


class TaskContract:
    """`task` must have an expert and need more than one step; `types` is one whose expert types a text."""

    @pytest.fixture
    def task(self):
        raise NotImplementedError("inherit and give a task")

    @pytest.fixture
    def types(self, task):
        return task

    @pytest.fixture
    def talk(self):
        return Dialogue(ORIGINAL_SIZE, BRIEF)

    def always(self, task, talk, action):
        """An attempt by an agent that knows one action."""
        going = attempt(task, dialogue=talk)
        return answer(going, lambda prompt: talk.say("as always", action, prompt.screen.screenshot))

    def test_the_expert_finishes(self, task, talk):
        made = by_expert(task, dialogue=talk)
        assert (made.ended, made.outcome.success) == ("finished", True), made.reason
        assert made.unit == task.id
        assert made.goal
        assert 1 < len(made.turns) <= task.max_steps

    def test_a_started_task_is_not_done_and_starts_alike(self, task):
        first = task.start().screenshot()
        assert task.check().success is False
        assert task.goal
        if isinstance(task, SelfEnding):
            assert task.over() is False
        task.close()
        second = task.start().screenshot()
        task.close()
        task.close()
        assert first.digest == second.digest

    def test_who_only_says_done_has_not_succeeded(self, task, talk):
        made = self.always(task, talk, Terminate("success"))
        assert (made.ended, made.outcome.success) == ("finished", False)

    def test_who_gives_up_is_scored_as_failed(self, task, talk):
        made = self.always(task, talk, Terminate("failure"))
        assert (made.ended, made.outcome.success) == ("gave_up", False)

    def test_who_only_waits_runs_out_of_steps(self, task, talk):
        made = self.always(task, talk, Wait(0.0))
        assert (made.ended, made.outcome.success) == ("out_of_steps", False)
        assert len(made.turns) == task.max_steps

    def test_a_broken_machine_is_not_a_wrong_answer(self, task, talk):
        going = attempt(task, dialogue=talk)
        next(going)
        with pytest.raises(StopIteration) as stop:
            going.throw(EnvCrashed("the machine stopped"))
        made = stop.value.value
        assert (made.ended, made.outcome, made.reason) == ("crashed", None, "the machine stopped")
        assert success(rollout_row(made)) is None

    def test_hostile_text_changes_a_text_field_and_nothing_else(self, types):
        device = types.start()
        try:
            for _ in range(types.max_steps):
                _, action = types.expert()
                if isinstance(action, Type):
                    break
                device.act(action)
            assert isinstance(action, Type), "the expert of this task does not type"
            before = device.elements()
            device.act(Type(HOSTILE))
            after = device.elements()
            assert [e for e in before if e.kind != "field"] == [e for e in after if e.kind != "field"]
            assert any("reboot" in e.text for e in after if e.kind == "field")
            assert types.check().success is False
        finally:
            types.close()


class WorldContract:
    """`world`: a small one, of cheap tasks."""

    @pytest.fixture
    def world(self):
        raise NotImplementedError("inherit and give a world")

    def test_a_world_travels_and_lists_each_task_once(self, world):
        listed = pickle.loads(pickle.dumps(world)).listed()
        assert [*listed] == [*world.listed()]
        assert len({name for name, _ in listed}) == len(listed)

    def test_a_session_hands_out_what_is_listed(self, world):
        session = world.open(0)
        try:
            for name, _ in world.listed()[:3]:
                assert session.task(name).id == name
        finally:
            session.close()
