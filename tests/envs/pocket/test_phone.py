"""The phone reacts like a phone, forgets nothing it should keep, and looks the same at every size."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Click, Key, Point, Swipe, Type
from guiderail.envs.android.adb import adb_commands
from guiderail.envs.pocket.adb.shell import run
from guiderail.envs.pocket.draw import draw, text_box
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import demonstrate, task, tasks

fractions = st.floats(0, 1, allow_nan=False, width=32)
inputs = st.lists(
    st.one_of(
        st.tuples(st.just("tap"), fractions, fractions),
        st.tuples(st.just("hold"), fractions, fractions),
        st.tuples(st.just("swipe"), fractions, fractions, fractions, fractions),
        st.tuples(st.just("type"), st.text(max_size=20)),
        st.tuples(st.just("key"), st.sampled_from(["BACK", "HOME", "MENU", "ENTER", "DEL", "VOLUME_UP", "POWER"])),
        st.tuples(st.just("open"), st.sampled_from(["Shop", "settings", "Clock", "nothing"])),
        st.tuples(st.just("elapse"), st.floats(0, 5, allow_nan=False)),
    ),
    max_size=25,
)


def play(phone, events):
    for name, *args in events:
        getattr(phone, name)(*args)


def tap(phone, text):
    item = next(i for i in phone.scene().active if i.cell.text == text)
    left, top, right, bottom = item.box
    phone.tap((left + right) / 2 / phone.width, (top + bottom) / 2 / phone.height)


@given(seed=st.integers(0, 50), style=st.sampled_from(["easy", "free"]), events=inputs)
@settings(max_examples=60, deadline=None)
def test_any_input_leaves_a_phone_that_can_be_drawn_and_copied(seed, style, events):
    phone, twin = Phone(new_state(seed, style)), Phone(new_state(seed, style))
    before = phone.snapshot()
    play(phone, events)
    play(twin, events)
    assert phone.state == twin.state
    assert draw(phone.scene()).size == (160, 288)
    phone.restore(before)
    assert phone.state == new_state(seed, style)


def test_a_snapshot_is_not_touched_by_what_comes_after():
    phone = Phone(new_state(1))
    kept = phone.snapshot()
    phone.restore(kept)
    phone.open("Shop")
    phone.do(("shop.add", phone.state.goods[0]))
    assert kept.basket == {}
    assert not kept.stack


def test_a_tap_on_nothing_does_nothing():
    phone = Phone(new_state(0))
    phone.open("Clock")
    shown, alarms = phone.scene(), dict(phone.state.alarms)
    phone.tap(0.5, 0.99)
    assert phone.scene() == shown
    assert phone.state.alarms == alarms


def test_typing_needs_a_field_and_replaces_what_was_there():
    phone = Phone(new_state(0))
    phone.type("lost")
    phone.open("Notes")
    tap(phone, "New")
    phone.type("lost")
    assert phone.state.front.fields == {}
    tap(phone, "title")
    phone.type("mi")
    phone.type("lk")
    assert phone.state.front.fields == {"title": "milk"}
    tap(phone, "milk")
    phone.type("tea\n\t")
    phone.key("DEL")
    assert phone.state.front.fields == {"title": "te"}


def test_popup_blocks_everything_until_dismissed():
    state = new_state(0)
    state.popups = {1: 0}
    phone = Phone(state)
    phone.open("Shop")
    assert phone.state.dialog.popup
    phone.tap(0.5, 0.2)
    phone.open("Clock")
    phone.key("HOME")
    phone.swipe(0.5, 0.7, 0.5, 0.3)
    assert phone.state.front.app == "Shop"
    assert phone.state.basket == {}
    tap(phone, "OK")
    assert phone.state.dialog is None


def test_a_popup_waits_for_another_dialog():
    state = new_state(0)
    state.popups = {2: 0}
    phone = Phone(state)
    phone.open("Settings")
    tap(phone, "Update")
    assert not phone.state.dialog.options
    phone.key("BACK")
    assert phone.state.dialog.text == "Please wait"
    phone.elapse(2)
    assert phone.state.dialog.text == "Up to date"
    tap(phone, "OK")
    assert phone.state.dialog.popup


def test_finger_up_shows_what_is_below_and_back():
    phone = Phone(new_state(0))
    phone.open("Shop")
    top = phone.scene()
    assert phone.state.goods[-1] not in [i.cell.text for i in top.placed]
    phone.swipe(0.5, 0.7, 0.5, 0.3)
    assert phone.state.goods[-1] in [i.cell.text for i in phone.scene().placed]
    phone.swipe(0.5, 0.3, 0.5, 0.7)
    assert phone.scene() == top
    phone.swipe(0.2, 0.5, 0.8, 0.5)
    assert phone.scene() == top


def test_phones_differ():
    assert len({tuple(new_state(seed).apps) for seed in range(20)}) > 15
    assert len({tuple(new_state(seed).goods) for seed in range(20)}) == 20
    assert {new_state(seed).appearance.theme for seed in range(20)} == {0, 1}
    assert len({new_state(seed, "free").appearance for seed in range(20)}) == 20


def scenes(style, size, count=40):
    for made in tasks(count, style=style):
        for scene, _move in demonstrate(made, Phone(made.start(), *size)):
            yield scene


@pytest.mark.parametrize("size", [(160, 288), (540, 960), (320, 720)])
@pytest.mark.parametrize("style", ["easy", "free"])
def test_nothing_overlaps_or_leaves_the_screen(style, size):
    for scene in scenes(style, size):
        for item in scene.placed:
            left, top, right, bottom = item.box
            assert 0 <= left < right <= scene.width
            assert 0 <= top < bottom <= scene.height
            words = text_box(item, scene)
            assert left <= words[0] <= words[2] <= right
        flat = [i.box for i in scene.placed if i.layer != "dialog"]
        for k, a in enumerate(flat):
            for b in flat[k + 1 :]:
                assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_easy_text_lies_on_the_patch_grid():
    vocabulary = set()
    for scene in scenes("easy", (160, 288)):
        for item in scene.placed:
            vocabulary |= set(item.cell.text.split())
            assert item.text_at[0] % 16 == 0
            assert item.text_at[1] % 16 == 8
    assert len(vocabulary) < 160


def test_words_really_are_drawn_where_text_box_says():
    """Pixels inside the words' box differ from the same cell without words."""
    scene = Phone(new_state(3)).scene()
    item = scene.placed[0]
    blank = replace(scene, placed=(replace(item, cell=replace(item.cell, text=" ")), *scene.placed[1:]))
    box = text_box(item, scene)
    assert draw(scene).crop(box).tobytes() != draw(blank).crop(box).tobytes()


def test_sharp_at_high_resolution():
    """A large screen is drawn large, not enlarged: it holds details a blown-up small one cannot."""
    state = new_state(2)
    large = draw(Phone(state, 540, 960).scene())
    rough = large.resize((160, 284)).resize((540, 960))
    assert large.size == (540, 960)
    differences = sum(abs(a - b) > 60 for a, b in zip(large.tobytes(), rough.tobytes(), strict=True))
    assert differences > 5000


def test_impossible_screens_are_refused():
    with pytest.raises(SetupError, match="100 px"):
        Phone(new_state(0), 60, 120)
    with pytest.raises(SetupError, match="height >="):
        Phone(new_state(0), 400, 300)


def test_equal_seeds_give_equal_pixels_in_another_process():
    code = (
        "import hashlib; from guiderail.envs.pocket.phone import Phone; from guiderail.envs.pocket.draw import draw;"
        "from guiderail.envs.pocket.tasks import task, demonstrate; made = task('share_code', 5, style='free', live=True);"
        "h = hashlib.sha256(); [h.update(draw(s).tobytes()) for s, _ in demonstrate(made, Phone(made.start()))];"
        "import sys; assert 'torch' not in sys.modules and 'android_env' not in sys.modules; print(h.hexdigest())"
    )
    out = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(out) == 1
    assert len(out.pop().strip()) == 64


def test_random_walks_reach_every_page():
    rng = random.Random(3)
    seen = set()
    for seed in range(40):
        phone = Phone(task("add", seed).start())
        for step in range(60):
            phone.tap(rng.random(), rng.random())
            if step % 10 == 9:
                phone.key("HOME")
            if phone.state.front:
                seen.add((phone.state.front.app, phone.state.front.page))
    assert {
        ("Settings", "sound"),
        ("Contacts", "person"),
        ("Shop", "basket"),
        ("Clock", "add"),
        ("Notes", "new"),
    } <= seen


@pytest.mark.parametrize(
    "action",
    [
        Click(Point(1.0, 0.5)),
        Swipe(Point(0.5, 0.75), Point(0.5, -0.2)),
        Type("a\nb"),
        Type("caf\u00e9"),
        Key("4"),
        Key(" back"),
        Key("KEYCODE_DEL"),
    ],
)
def test_the_phone_in_hand_does_what_adb_commands_do(action):
    """Also where an action of a model is odd: points outside, control characters, keys by number."""
    made = task("note", 3)
    hands = [PhoneInHand(Phone(made.start())) for _ in range(2)]
    for hand in hands:
        for _ in range(2):
            hand.act(made.expert(hand.phone, hand.answers).action)
    hands[0].act(action)
    phone = hands[1].phone
    for command in adb_commands(action, (phone.width, phone.height), {}):
        run(phone, command)
    assert hands[0].phone.state == phone.state
