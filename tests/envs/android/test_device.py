"""AndroidDevice on real AndroidEnv objects: the pocket phone, the fake simulator, and machines that break."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("android_env")

from android_env.components import config_classes, errors
from android_env.components.simulators.fake.fake_simulator import FakeSimulator
from android_env.proto import adb_pb2

from guiderail.agent.errors import EnvCrashed
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
from guiderail.envs.android.adb import _pieces, read_window
from guiderail.envs.android.device import AndroidDevice
from guiderail.envs.pocket.env_host import EnvHost
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.simulator import PocketSimulator, build_env
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import task, tasks
from guiderail.envs.pocket.templates import TEMPLATES
from guiderail.envs.pocket.tree import APP_TABLE, component

NASTY = "\"; reboot; $(id) ` && | ' %s %% \\ > x & input keyevent HOME #*?~!{}[]"


@pytest.fixture(scope="module")
def world():
    with EnvHost() as made:
        yield made


@pytest.fixture
def device(world):
    return world.start(task("toggle", 0))


def point(device, text):
    return next(e for e in device.elements() if e.text == text).box.center


def test_actions_arrive_as_if_done_by_hand(world):
    """Every step of the expert: the same pixels and elements through AndroidEnv as straight on the phone."""
    for made in tasks(len(TEMPLATES), seed=2, live=False):
        device, hand = world.start(made), PhoneInHand(Phone(made.start()))
        for _ in range(made.max_steps):
            assert device.screenshot() == hand.screenshot()
            action = made.expert(hand.phone, hand.answers).action
            device.act(action)
            hand.act(action)
            if isinstance(action, Terminate):
                break
        assert made.success(world.phone, device.answers)


@pytest.mark.parametrize(("style", "count"), [("easy", 30), ("free", 30), ("phone", 8)])
def test_expert_succeeds_live_through_android_env(style, count):
    with EnvHost((270, 480)) as world:
        for split in ("test", "heldout"):
            for made in tasks(count, seed=3, split=split, style=style):
                device = world.start(made)
                for _ in range(made.max_steps):
                    device.pixels()
                    device.act(made.expert(world.phone, device.answers).action)
                assert made.success(world.phone, device.answers), made.id


def test_worlds_do_not_share_anything(world):
    made = task("add", 3)
    device = world.start(made)
    with EnvHost() as other:
        other_device = other.start(made)
        device.act(Open("Shop"))
        assert device.screenshot() != other_device.screenshot()
        assert world.start(made).screenshot() == other_device.screenshot()


def test_long_press_needs_time_and_a_swipe_is_no_tap(world, device):
    device.act(Open("clock"))
    assert world.phone.state.front.app == "Clock"
    time = next(iter(world.phone.state.alarms))
    place = point(device, time)
    device.act(Swipe(place, Point(place.x, place.y + 0.3)))
    device.act(LongPress(place, 1.0))
    assert [e.text for e in device.elements()] == ["Delete it", "Cancel", "Delete"]
    device.act(SystemButton("Back"))
    on = world.phone.state.alarms[time]
    device.act(LongPress(place, 0.1))
    assert world.phone.state.alarms[time] != on


def test_swipe_is_finger_motion(world, device):
    device.act(Open("Shop"))
    device.act(Swipe(Point(0.5, 0.7), Point(0.5, 0.3)))
    assert world.phone.state.front.scroll == 4
    device.act(Swipe(Point(0.5, 0.3), Point(0.5, 0.7)))
    assert world.phone.state.front.scroll == 0


def test_open_knows_only_the_table(world, device):
    device.act(Open("  SHOP "))
    assert world.phone.state.front.app == "Shop"
    for name in ("nothing", "Music", component("Clock"), "; input keyevent HOME"):
        device.act(Open(name))
        assert world.phone.state.front.app == "Shop"


def test_keys(world, device):
    device.act(Open("Shop"))
    device.act(Key("volume_up"))
    assert device.shell(["settings", "get", "system", "volume_music"]) == "6\n"
    for name in ("KEYCODE_BACK; reboot", "", "HOME HOME", "back\nhome"):
        device.act(Key(name))
    assert world.phone.state.front.app == "Shop"
    device.act(Key("KEYCODE_HOME"))
    assert world.phone.state.front is None


def field_of(world):
    return world.phone.state.front.fields.get("title", "")


def focus_title(world, device):
    device.act(Open("Notes"))
    device.act(Click(point(device, "New")))
    device.act(Click(point(device, "title")))


def test_model_text_changes_nothing_but_the_field(world, device):
    focus_title(world, device)
    before = world.phone.snapshot()
    device.act(Type(NASTY))
    assert field_of(world) == NASTY
    after = world.phone.snapshot()
    after.stack[-1].fields, after.stack[-1].fresh = before.stack[-1].fields, before.stack[-1].fresh
    after.clock, after.inputs = before.clock, before.inputs
    assert after == before


@given(text=st.text(alphabet=string.ascii_letters + string.punctuation + " \n\t", max_size=150))
@settings(max_examples=40, deadline=None)
def test_ascii_text_is_typed_exactly(world, text):
    device = world.start(task("toggle", 0))
    focus_title(world, device)
    device.act(Type(text))
    assert field_of(world) == text.replace("\n", " ").replace("\t", " ")


def test_other_scripts_need_the_unicode_keyboard(world, device):
    focus_title(world, device)
    device.act(Type("naïve 漢字"))
    assert field_of(world) == "nave "
    able = AndroidDevice(world.env, APP_TABLE, unicode_keyboard=True, close_env=False)
    able.act(Type("naïve 漢字"))
    assert field_of(world) == "nave naïve 漢字"


@given(st.text(alphabet="%sab ", max_size=300))
def test_pieces_hide_no_blank_and_lose_nothing(text):
    pieces = _pieces(text)
    assert "".join(pieces) == text
    assert not any("%s" in piece for piece in pieces)


def test_answers_and_wait(world, device):
    device.act(Open("Settings"))
    device.act(Answer("lion"))
    device.act(Click(point(device, "Update")))
    device.act(Wait(2.0))
    assert device.answers == ("lion",)
    assert world.phone.state.updates == 1


def test_snapshot_brings_back_phone_and_answers(world, device):
    device.act(Open("Shop"))
    device.act(Answer("one"))
    token, shown = device.snapshot(), device.screenshot()
    device.act(SystemButton("Home"))
    device.act(Answer("two"))
    device.restore(token)
    assert (device.screenshot(), device.answers) == (shown, ("one",))
    with pytest.raises(TypeError):
        device.restore("mine")
    with pytest.raises(EnvCrashed, match="cannot load"):
        device.restore(("never-saved", ()))


def test_android_env_own_calls_work(world, device):
    device.act(Open("Shop"))
    request = adb_pb2.AdbRequest(get_current_activity=adb_pb2.AdbRequest.GetCurrentActivity())
    assert world.env.execute_adb_call(request).get_current_activity.full_activity == component("Shop")
    start = adb_pb2.AdbRequest.StartActivity(full_activity="no.such/.App")
    assert world.env.execute_adb_call(adb_pb2.AdbRequest(start_activity=start)).status != adb_pb2.AdbResponse.Status.OK
    button = adb_pb2.AdbRequest.PressButton(button=adb_pb2.AdbRequest.PressButton.Button.HOME)
    world.env.execute_adb_call(adb_pb2.AdbRequest(press_button=button))
    assert world.phone.state.front is None
    assert np.argmax(world.env.raw_observation["orientation"]) == 0


def test_files_come_and_go_through_adb(world, device):
    device.shell(["screencap", "-p", "/sdcard/a.png"])
    pull = adb_pb2.AdbRequest(pull=adb_pb2.AdbRequest.Pull(path="/sdcard/a.png"))
    assert world.env.execute_adb_call(pull).pull.content == device.screenshot().data
    push = adb_pb2.AdbRequest.Push(content=b"hello", path="/sdcard/b.txt")
    world.env.execute_adb_call(adb_pb2.AdbRequest(push=push))
    assert device.shell(["cat", "/sdcard/b.txt"]) == "hello"
    direct = adb_pb2.AdbRequest.GenericRequest(args=["exec-out", "screencap", "-p"])
    output = world.env.execute_adb_call(adb_pb2.AdbRequest(generic=direct)).generic.output
    assert output == device.screenshot().data


def test_observations_are_copies(device):
    pixels = device.pixels()
    pixels[:] = 0
    assert device.pixels().any()


def test_every_action_on_the_fake_simulator():
    """No phone behind it, so only the plumbing: everything is accepted, nothing raises, screens have the size."""
    env = build_env(FakeSimulator(config_classes.FakeSimulatorConfig(screen_dimensions=(96, 48))))
    slept = []
    device = AndroidDevice(env, {"Shop": "org.shop"}, settle=0.5, sleep=slept.append)
    place = Point(0.5, 0.5)
    texts = [make(text) for make in (Type, Open, Answer, Key) for text in ("Shop", NASTY, "")]
    buttons = [SystemButton(b) for b in ("Back", "Home", "Menu", "Enter")]
    actions = [
        Click(place),
        LongPress(Point(2, -1)),
        Swipe(place, Point(0, 0)),
        Wait(1e9),
        Terminate(),
        *texts,
        *buttons,
    ]
    for action in actions:
        device.act(action)
    assert slept.count(0.5) == len(actions)
    assert max(slept) == 60
    assert (device.screenshot().width, device.screenshot().height) == (48, 96)
    assert device.elements() == []
    assert device.shell(["wm", "size"]) == "fake output"
    with pytest.raises(EnvCrashed, match="save_state"):
        device.snapshot()
    device.close()


class _Broken(PocketSimulator):
    """Breaks in the way named by `how` once armed."""

    how = ""

    def send_touch(self, touches):
        if self.how == "touch":
            raise errors.SendActionError("gone")
        super().send_touch(touches)

    def _get_screenshot_impl(self):
        if self.how == "screen":
            raise errors.ReadObservationError("gone")
        return super()._get_screenshot_impl()

    def create_adb_controller(self):
        controller = super().create_adb_controller()
        execute = controller.execute_command

        def maybe(args, timeout=None, device_specific=True):
            if self.how == "adb":
                raise errors.AdbControllerError("gone")
            return execute(args, timeout, device_specific)

        controller.execute_command = maybe
        return controller


@pytest.mark.parametrize(
    ("how", "action"), [("touch", Click(Point(0.5, 0.5))), ("screen", Click(Point(0.5, 0.5))), ("adb", Type("x"))]
)
def test_a_broken_machine_is_a_crash(how, action):
    simulator = _Broken(Phone(new_state(0)))
    device = AndroidDevice(build_env(simulator))
    device.act(action)
    simulator.how = how
    with pytest.raises(EnvCrashed):
        device.act(action)
    simulator.how = ""
    device.close()


def test_windows_of_real_devices_and_nonsense():
    xml = (
        "UI hierchary dumped\n<?xml version='1.0' ?><hierarchy rotation=\"0\">"
        '<node class="android.widget.FrameLayout" text="" bounds="[0,0][100,200]">'
        '<node class="android.widget.ImageButton" text="" content-desc="Back &amp; up" clickable="true" bounds="[0,0][10,20]"/>'
        '<node class="android.widget.Switch" checkable="true" checked="true" clickable="true" bounds="[50,20][100,40]"/>'
        '<node class="android.widget.TextView" text="gone" bounds="[5,5][5,5]"/>'
        '<node class="android.widget.TextView" text="no place" bounds="here"/>'
        "</node></hierarchy>"
    )
    back, switch = read_window(xml, 100, 200)
    assert (back.text, back.kind, back.clickable, back.checked) == ("Back & up", "icon", True, None)
    assert (switch.kind, switch.checked, switch.box.left, switch.box.bottom) == ("toggle", True, 0.5, 0.2)
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><hierarchy><node text="&a;" bounds="[0,0][9,9]"/></hierarchy>'
    for nonsense in ("", "ERROR: could not get idle state.", "<hierarchy", "<hierarchy><node></hierarchy>", bomb):
        assert read_window(nonsense, 100, 200) == []
