"""The phone's adb shell answers as android_env and AndroidWorld expect."""

import string
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.envs.android.adb import read_window
from guiderail.envs.pocket.adb.shell import execute, run, run_line
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tree import component, elements, window_xml
from guiderail.envs.pocket.words import TOGGLES


@pytest.fixture
def phone():
    return Phone(new_state(0))


def test_settings_and_toggles_are_one_state(phone):
    for name, (space, key) in TOGGLES.items():
        run_line(phone, f"settings put {space} {key} 1")
        assert phone.state.is_on(name)
        phone.state.switch(name, False)
        assert run_line(phone, f"settings get {space} {key}") == "0\n"
    assert "wifi_on=0\n" in run_line(phone, "settings list global")
    assert run_line(phone, "settings delete global wifi_on") == "Deleted 1 rows\n"
    assert run_line(phone, "settings get global wifi_on") == "null\n"
    assert not phone.state.is_on("Wifi")
    assert run_line(phone, "settings get nowhere x").startswith("Error")


def test_svc(phone):
    run_line(phone, "svc wifi disable && svc bluetooth enable; svc data enable")
    assert (phone.state.is_on("Wifi"), phone.state.is_on("Bluetooth"), phone.state.is_on("Data")) == (False, True, True)


def test_apps_start_and_stop(phone):
    assert "Status: ok" in run_line(phone, f"am start  -W -n {component('Shop')}")
    assert phone.state.front.app == "Shop"
    listed = run_line(phone, "am stack list | grep -E visible=true")
    assert listed.count("\n") == 1
    assert f"{{{component('Shop')}}}" in listed
    assert component("Shop") in run_line(phone, "dumpsys window")
    assert "Error" in run_line(phone, "am start -n no.such/.App")
    assert phone.state.front.app == "Shop"
    run_line(phone, "am force-stop org.guiderail.pocket.shop")
    assert phone.state.front is None
    assert "package:org.guiderail.pocket.shop\n" in run_line(phone, "pm list packages")


def test_input(phone):
    phone.open("Notes")
    new = next(e for e in elements(phone) if e.text == "New").box.center
    run_line(phone, f"input tap {new.x * 160:.0f} {new.y * 288:.0f}")
    run_line(phone, "input tap 80 56")
    run_line(phone, "input text hello%sworld")
    assert phone.state.front.fields["title"] == "hello world"
    run_line(phone, "input keyevent 67")
    assert phone.state.front.fields["title"] == "hello worl"
    run_line(phone, "input keyevent KEYCODE_BACK KEYCODE_BACK")
    assert phone.state.front.page == "main"
    title = next(iter(phone.state.notes))
    run_line(phone, "input swipe 80 56 80 56 800")
    assert phone.state.dialog.options[1][1] == ("notes.delete", title)
    run_line(phone, "input keyevent HOME")
    assert phone.state.front is None


def test_what_the_device_is(phone):
    assert run_line(phone, "wm size") == "Physical size: 160x288\n"
    assert run_line(phone, "wm density").startswith("Physical density: ")
    assert "SurfaceOrientation: 0" in run_line(phone, "dumpsys input")
    assert "logicalFrame=[0, 0, 160, 288]" in run_line(phone, "dumpsys input | grep logicalFrame")
    assert run_line(phone, "getprop ro.build.version.sdk") == "33\n"
    assert run_line(phone, "nonsense") == "sh: nonsense: not found\n"


def test_files(phone):
    phone.open("Shop")
    assert run_line(phone, "screencap -p /sdcard/a.png") == ""
    assert phone.state.files["/sdcard/a.png"] == PhoneInHand(phone).screenshot().data
    assert "a.png\n" in run_line(phone, "ls /sdcard")
    run_line(phone, "rm /sdcard/a.png")
    assert "No such file" in run_line(phone, "cat /sdcard/a.png")
    assert execute(phone, "screencap -p") == (0, PhoneInHand(phone).screenshot().data)


def test_head_and_sums(phone):
    run_line(phone, "echo one > /sdcard/a && echo two >> /sdcard/a")
    assert run_line(phone, "head -n 1 /sdcard/a") == run_line(phone, "cat /sdcard/a | head -1") == "one\n"
    assert run_line(phone, "head -c 5 /sdcard/a") == "one\nt"
    assert run_line(phone, "md5sum /sdcard/a") == "2094b601daac3d68f5aed51d3c20f7cd  /sdcard/a\n"
    assert run_line(phone, "cat /sdcard/a | md5sum") == "2094b601daac3d68f5aed51d3c20f7cd  -\n"
    for bad in ("head -n x /sdcard/a", "head /sdcard/none", "md5sum /sdcard/none"):
        assert execute(phone, bad)[0] == 1
    assert (execute(phone, "true && echo y || echo n")[1], execute(phone, "false")[0]) == (b"y\n", 1)


def test_log_and_reboot(phone):
    assert run_line(phone, "logcat -d") == "--------- beginning of main\n"
    assert execute(phone, "logcat -c") == (0, b"")
    phone.open("Notes")
    kept = dict(phone.state.notes)
    assert execute(phone, "reboot") == (0, b"")
    assert (phone.state.front, phone.state.notes) == (None, kept)


def test_numbers_that_are_none(phone):
    for line in ("input tap nan 3", "input swipe 1 inf 3 4", "input tap a b", "input swipe 1 1 1 1 long", "sleep x"):
        assert run_line(phone, line) != ""
    run_line(phone, "settings put system volume_music loud && input keyevent VOLUME_UP")
    assert run_line(phone, "settings get system volume_music") == "1\n"


def test_operators(phone):
    assert run_line(phone, "echo a && echo b") == "a\nb\n"
    assert run_line(phone, "nonsense && echo b") == "sh: nonsense: not found\n"
    assert run_line(phone, "nonsense || echo b").endswith("b\n")
    assert run_line(phone, "echo 'a && b | c' \"d;e\"") == "a && b | c d;e\n"
    assert run_line(phone, "sh -c 'echo x | grep -v y'") == "x\n"
    assert run_line(phone, "echo x | grep y") == ""
    for refused in ("echo `id`", "echo $(id)", 'echo "$(id)"', "echo x > /f", "echo x < f", "echo 'open"):
        assert run_line(phone, refused).startswith("sh: ")


def test_dump_is_what_is_drawn(phone):
    for app in phone.state.apps:
        phone.open(app)
        assert "dumped to: /sdcard/w.xml" in run_line(phone, "uiautomator dump /sdcard/w.xml")
        xml = run_line(phone, "cat /sdcard/w.xml")
        assert ElementTree.fromstring(xml.split("?>", 1)[1]).tag == "hierarchy"
        seen = read_window(xml, 160, 288)
        real = elements(phone)
        assert [(e.text, e.box, e.checked, e.clickable) for e in seen] == [
            (e.text, e.box, e.checked, e.clickable) for e in real
        ]
        assert [e.kind for e in seen] == ["text" if e.kind == "title" else e.kind for e in real]
    assert "No such file" in run_line(phone, "cat /sdcard/none")


@given(text=st.text(alphabet=string.printable + "äß漢", max_size=40))
@settings(max_examples=150, deadline=None)
def test_arguments_arrive_as_they_are(text):
    """Whatever the words, run() passes them to the command, and no command but that one runs."""
    phone = Phone(new_state(0))
    before = phone.snapshot()
    assert run(phone, ["echo", f"x{text}"]) == f"x{text}\n"
    assert phone.state == before


@given(text=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_on_screen_survives_the_dump(text):
    phone = Phone(new_state(0))
    phone.open("Notes")
    kept = "".join(c for c in text if c.isprintable()) or "x"
    phone.state.notes = {kept: "body"}
    assert kept in [e.text for e in read_window(window_xml(phone), 160, 288)]


@given(line=st.text(alphabet=string.printable, max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_line_gets_an_answer(line):
    assert isinstance(run_line(Phone(new_state(0)), line), str)
