"""What AndroidWorld's process has of a pocket phone besides the phone: a clock that does not wait, trees, parameters."""

import time
from dataclasses import dataclass

import pytest

pytest.importorskip("android_env")

from android_env.proto import adb_pb2

from guiderail.envs.android_world.pocket import PhoneClock, forest
from guiderail.envs.android_world.worker import plain
from guiderail.envs.pocket.aosp import aosp_state
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.simulator import PocketSimulator, build_env
from guiderail.envs.pocket.standins import people
from guiderail.envs.pocket.tree import window_xml


@pytest.fixture
def simulator():
    return PocketSimulator(Phone(aosp_state(0), 270, 600))


def test_waiting_makes_the_phone_older_and_nobody_wait(simulator):
    clock, began, then = PhoneClock(simulator), time.monotonic(), simulator.phone.state.now
    before = clock.time()
    clock.sleep(20.0)
    assert simulator.phone.state.now == then + 20
    assert 20 <= clock.time() - before < 21
    assert time.monotonic() - began < 1
    assert clock.monotonic is time.monotonic


def test_trees_say_what_the_dump_says(simulator):
    PhoneInHand(simulator.phone).phone.open("Contacts")
    people.insert_contact(simulator.phone.state, "Ann Lee", "+1")
    (window,) = forest(window_xml(simulator.phone)).windows
    named = {one.text: one for one in window.tree.nodes}
    assert [named[text].hint_text for text in ("Ann", "Lee", "+1")] == ["First name", "Last name", "Phone"]
    assert named["Save"].is_clickable
    assert not any(one.child_ids for one in window.tree.nodes)
    assert named["+1"].bounds_in_screen.bottom <= named["Mobile"].bounds_in_screen.top


def test_text_messages_come_in_and_files_go_where_there_is_no_folder(simulator):
    env = build_env(simulator)
    said = adb_pb2.AdbRequest(
        generic=adb_pb2.AdbRequest.GenericRequest(args=["emu", "sms", "send", "+1 23", "Hi, you"])
    )
    env.execute_adb_call(said)
    assert [one["body"] for one in people.messages(simulator.phone.state)] == ["Hi, you"]
    push = adb_pb2.AdbRequest.Push(content=b"x", path="/storage/emulated/0/New/a.txt")
    assert env.execute_adb_call(adb_pb2.AdbRequest(push=push)).status == adb_pb2.AdbResponse.OK
    assert simulator.phone.state.files["/data/media/0/New/a.txt"] == b"x"


def test_parameters_are_passed_on_as_far_as_json_goes():
    @dataclass(frozen=True)
    class Row:
        name: str
        data: object

    given = {"rows": [Row("a", object())], "image": object(), "n": 1, "names": ("x", "y"), "seed": None}
    assert plain(given) == {"rows": [{"name": "a", "data": None}], "n": 1, "names": ["x", "y"]}
