"""The ways through the stand-in apps, without the android_world package: what the phone holds afterwards."""

import pytest

from guiderail.agent.types import Terminate
from guiderail.envs.android_world.expert import Expert
from guiderail.envs.pocket.aosp import MARKOR, RECORDS, aosp_state
from guiderail.envs.pocket.files import SHARED
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.standins import people


@pytest.fixture
def hand():
    return PhoneInHand(Phone(aosp_state(0), 270, 600))


def go(hand, task, **params):
    expert = Expert(task, params)
    for _ in range(30):
        action = expert.act(hand.elements())
        if isinstance(action, Terminate):
            assert action.status == "success", task
            return hand.phone.state
        hand.act(action)
    raise AssertionError(f"{task} takes more than 30 steps")


def test_switches_and_brightness(hand):
    hand.phone.state.switch("Wifi", True)
    state = go(hand, "TurnOffWifiAndTurnOnBluetooth")
    assert (state.is_on("Wifi"), state.is_on("Bluetooth")) == (False, True)
    assert go(hand, "SystemBrightnessMax", max_or_min="max").settings["system"]["screen_brightness"] == "255"


def test_files_move_and_go(hand):
    files = hand.phone.state.files
    files.write(f"{SHARED}/Download/a.txt", b"a", 0.0)
    go(hand, "FilesMoveFile", source_folder="Download", file_name="a.txt", destination_folder="Music")
    assert f"{SHARED}/Music/a.txt" in files
    go(hand, "FilesDeleteFile", subfolder="Music", file_name="a.txt")
    assert f"{SHARED}/Music/a.txt" not in files


def test_notes_are_written_changed_and_pasted(hand):
    files = hand.phone.state.files
    go(hand, "MarkorCreateNote", file_name="one.md", text="first")
    go(hand, "MarkorEditNote", file_name="one.md", edit_type="footer", footer="last")
    assert files[f"{MARKOR}/one.md"] == b"first last"  # a newline is typed as a blank
    go(hand, "SystemCopyToClipboard", clipboard_content="copied")
    go(hand, "MarkorCreateNoteFromClipboard", file_name="two.md")
    assert files[f"{MARKOR}/two.md"] == b"copied"
    go(hand, "MarkorDeleteAllNotes")
    assert files.names(MARKOR) == []


def test_recorder_clock_and_contacts_and_what_pm_clear_forgets(hand):
    state = go(hand, "AudioRecorderRecordAudioWithFileName", file_name="song")
    assert state.files.names(RECORDS) == ["song.m4a"]
    go(hand, "ClockTimerEntry", hours=1, minutes=2, seconds=3)
    assert state.aosp.timer == "10203"
    go(hand, "ClockStopWatchRunning")
    assert state.aosp.stopwatch
    hand.shell(["pm", "clear", "com.google.android.deskclock"])
    assert (state.aosp.timer, state.aosp.stopwatch, state.front) == ("", False, None)
    go(hand, "ContactsAddContact", name="Ada Love", number="12")
    assert "Ada Love" in hand.shell(["content", "query", "--uri", "content://contacts/phones"])
    hand.shell(["pm", "clear", "com.android.providers.contacts"])
    assert people.contacts(state) == []
