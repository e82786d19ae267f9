"""Style "phone": looks and reacts like an Android phone, hides what the plain styles hide, and leaves them as they were."""

import hashlib
import json
import random
import re
import string
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.errors import SetupError
from guiderail.agent.scripted import random_action
from guiderail.agent.types import Terminate
from guiderail.envs.pocket.draw import draw, text_box
from guiderail.envs.pocket.hands import perform
from guiderail.envs.pocket.handset.glyphs import _GLYPHS, glyph
from guiderail.envs.pocket.handset.pictures import GOODS, SHAPES
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.record import record
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import demonstrate, task, tasks
from guiderail.envs.pocket.templates import TEMPLATES
from guiderail.envs.pocket.tree import elements, window_xml
from guiderail.envs.pocket.wordings import HELD_BACK, WORDINGS
from guiderail.envs.pocket.words import FREE
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import blind_probes, oracle_gate
from tests.envs.pocket.test_phone import inputs, play, tap

SIZES = [(360, 800), (1080, 2400), (360, 540), (180, 400)]


def a_phone(seed=1, size=(360, 800), held_out=False):
    return Phone(new_state(seed, "phone", held_out=held_out), *size)


def texts(phone):
    return [item.cell.text for item in phone.scene().active]


# ------------------------------------------------------------------------------------------------------------ what is seen


@given(seed=st.integers(0, 30), events=inputs, size=st.sampled_from([(360, 800), (180, 400), (301, 640)]))
@settings(max_examples=15, deadline=None)
def test_any_input_leaves_a_phone_that_can_be_drawn_and_copied(seed, events, size):
    phone, twin = a_phone(seed, size), a_phone(seed, size)
    before = phone.snapshot()
    play(phone, events)
    play(twin, events)
    assert phone.state == twin.state
    check_scene(phone.scene())
    assert draw(phone.scene()).size == size
    phone.restore(before)
    assert phone.state == new_state(seed, "phone")


@pytest.mark.parametrize("size", SIZES)
def test_experts_reach_every_goal_and_nothing_overlaps(size):
    for made in [*tasks(26, seed=5, style="phone"), *tasks(6, seed=5, split="heldout", style="phone")]:
        phone = Phone(made.start(), *size)
        assert not made.success(phone)
        answers = []
        for scene, move in demonstrate(made, phone):
            answers += [move.action.text] if move.action.name == "answer" else []
            check_scene(scene)
        assert made.success(phone, answers), made.id


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "heldout"])
def test_experts_always_and_random_agents_never_succeed(split):
    """300 unseen live tasks each. As in every live world, success has to be claimed."""
    for made in tasks(300, seed=4242, split=split, style="phone"):
        phone, answers = Phone(made.start()), []
        for _ in range(made.max_steps):
            action = made.expert(phone, answers).action
            if isinstance(action, Terminate):
                break
            answers += perform(phone, action)
        assert isinstance(action, Terminate)
        assert made.success(phone, answers), made.id
        phone, rng = Phone(made.start()), random.Random(made.id)
        for _ in range(made.max_steps):
            action = random_action(rng)
            if isinstance(action, Terminate):
                assert not made.success(phone), made.id
                break
            perform(phone, action)


def check_scene(scene):
    for item in scene.placed:
        left, top, right, bottom = item.box
        assert 0 <= left < right <= scene.width
        assert 0 <= top < bottom <= scene.height
        words = text_box(item, scene)
        assert left <= words[0] <= words[2] <= right
        assert top <= words[1] <= words[3] <= bottom
    flat = [item.box for item in scene.placed if item.layer != "dialog"]
    for k, a in enumerate(flat):
        for b in flat[k + 1 :]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], (a, b)


def test_words_really_are_drawn_where_text_box_says():
    """On every page, each cell's words change just the pixels of their box."""
    seen = set()
    for phone in pages():
        scene = phone.scene()
        whole = draw(scene)
        for k, item in enumerate(scene.placed):
            role = item.cell.dress.role
            if role in seen or role in ("heard", "said", "pill", "app", "hero") or not item.cell.text.strip():
                continue
            box = text_box(item, scene)
            if box == item.box:
                continue
            seen.add(role)
            blank = replace(item, cell=replace(item.cell, text=" "))
            other = draw(replace(scene, placed=(*scene.placed[:k], blank, *scene.placed[k + 1 :])))
            assert whole.crop(box).tobytes() != other.crop(box).tobytes(), role
            for picture in (whole, other):
                left, top, right, bottom = box
                picture.paste((0, 0, 0), (left - 1, top - 1, right + 1, bottom + 1))  # smooth edges
            assert whole.tobytes() == other.tobytes(), role
            whole = draw(scene)
    assert {"row", "title", "status", "bar", "key", "say", "option", "choice", "clock", "empty"} <= seen


def pages():
    for app in ("Settings", "Contacts", "Messages", "Notes", "Clock", "Shop"):
        phone = a_phone(4)
        yield phone
        phone.open(app)
        yield phone
    phone.do(("shop.add", phone.state.goods[0]))
    tap(phone, "Basket")
    yield phone
    tap(phone, "Pay")
    yield phone
    phone.open("Notes")
    tap(phone, next(iter(phone.state.notes)))
    tap(phone, "More options")
    yield phone
    phone.open("Contacts")
    tap(phone, "Calls")
    yield phone
    phone.open("Notes")
    tap(phone, "New")
    tap(phone, "Title")
    yield phone


def test_every_glyph_and_picture_can_be_drawn():
    for name in _GLYPHS:
        low, high = glyph(name, 48).getextrema()
        assert (low, high) == (0, 255), name
    assert set(GOODS) == set(FREE.goods)
    assert {what.split()[0] for what in GOODS.values()} <= set(SHAPES)


def test_a_screen_too_small_is_refused():
    with pytest.raises(SetupError, match="180 px"):
        a_phone(size=(160, 288))
    with pytest.raises(SetupError, match="expected one of easy, free, phone"):
        new_state(0, "wild")


# -------------------------------------------------------------------------------------------------------- bars, keyboard


def test_the_status_bar_shows_switches():
    phone = a_phone()
    signs = {}
    for on in (True, False):
        phone.state.switch("Wifi", on)
        signs[on] = next(i.cell.dress.detail for i in phone.scene().placed if i.cell.dress.role == "status").split()
    assert "wifi" in signs[True]
    assert "wifi" not in signs[False]


def test_the_navigation_bar_works_also_beside_a_dialog():
    phone = a_phone()
    phone.open("Clock")
    tap(phone, "Add")
    tap(phone, "Back")
    assert [page.page for page in phone.state.stack] == ["main"]
    time = next(iter(phone.state.alarms))
    phone.do(("clock.ask", time))
    assert texts(phone)[-2:] == ["Cancel", "Delete"]
    tap(phone, "Back")
    assert phone.state.dialog is None
    assert time in phone.state.alarms
    tap(phone, "Home")
    assert phone.state.front is None
    tap(phone, "Recents")
    assert phone.state.front is None


def test_keys_write_erase_and_enter():
    phone = a_phone()
    phone.open("Shop")
    tap(phone, "Find")
    assert "q" not in texts(phone)
    tap(phone, "Search")
    for key in ("Shift", "t", "e"):
        tap(phone, key.upper() if key == "t" else key)
    tap(phone, "x")
    tap(phone, "Delete")
    assert phone.state.front.fields["query"] == "Te"
    tap(phone, "?123")
    tap(phone, "7")
    tap(phone, "ABC")
    tap(phone, "space")
    assert phone.state.front.fields["query"] == "Te7 "
    tap(phone, "Enter")
    assert phone.state.searches == ["Te7 "]
    assert "q" not in texts(phone)


def test_back_hides_the_keyboard_before_it_leaves():
    phone = a_phone()
    phone.open("Notes")
    tap(phone, "New")
    tap(phone, "Title")
    save = next(i for i in phone.scene().active if i.cell.text == "Save").box
    tap(phone, "Back")
    assert phone.state.front.page == "new"
    assert next(i for i in phone.scene().active if i.cell.text == "Save").box[1] > save[1]
    assert "q" not in texts(phone)


def test_only_the_list_scrolls():
    phone = a_phone()
    phone.open("Shop")
    before = phone.scene()
    phone.swipe(0.5, 0.97, 0.5, 0.5)
    assert phone.scene().placed == before.placed
    phone.swipe(0.5, 0.7, 0.5, 0.3)
    assert phone.scene().placed != before.placed


# ------------------------------------------------------------------------------------------------------ nothing gives away


@pytest.mark.parametrize(
    ("app", "op"),
    [
        ("Shop", ("shop.add", 0)),
        ("Contacts", ("contacts.call", 0)),
        ("Messages", ("go", "chat", 0)),
    ],
)
def test_lists_do_not_show_what_was_done_or_read(app, op):
    """Memory tasks need memory: the list looks the same before and after."""
    phone = a_phone(3)
    names = phone.state.goods if app == "Shop" else phone.state.people
    phone.open(app)
    before = draw(phone.scene()).tobytes()
    phone.do(tuple(names[part] if part == 0 else part for part in op))
    if app == "Messages":
        phone.key("BACK")
    assert draw(phone.scene()).tobytes() == before


def test_codes_are_seen_in_their_chat_only():
    phone = a_phone(3)
    phone.open("Messages")
    codes = set(phone.state.codes.values())
    shown = {word for item in phone.scene().placed for word in f"{item.cell.text} {item.cell.dress.detail}".split()}
    assert not codes & shown
    tap(phone, phone.state.people[0])
    assert f"My code is {phone.state.codes[phone.state.people[0]]}" in texts(phone)


# ------------------------------------------------------------------------------------------------------------- wordings


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_wordings_ask_for_the_same(template):
    known = WORDINGS[template.name]
    assert 5 <= len(known) <= 10
    assert len(set(known)) == len(known)
    assert known[0] == template.goal
    blanks = {frozenset({"count" if n == "times" else n for n in fields(one)}) for one in known}
    assert len(blanks) == 1


def fields(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_train_lacks_wordings_that_test_has():
    goals = {"train": set(), "test": set()}
    for split, number in (("train", 0), ("test", 1)):
        for seed in range(45):
            made = task("call", 3 * seed + number, split, "phone")
            goals[split].add(made.goal.replace(made.params["a"], "{a}"))
    assert goals["test"] == set(WORDINGS["call"])
    assert goals["train"] == set(WORDINGS["call"][:-HELD_BACK])


# ------------------------------------------------------------------------------------------------------------ recordings


def test_a_recording_passes_the_gate(tmp_path, dialogue):
    record(tmp_path / "data", 5, seed=3, style="phone")
    data = load_episodes(tmp_path / "data")
    assert {(s.screenshot.width, s.screenshot.height) for e in data.episodes for s in e.steps} == {(360, 800)}
    assert oracle_gate(data, dialogue)["TSR"] == 1.0
    assert max(probe["TSR"] for probe in blind_probes(data, dialogue).values()) == 0
    assert (
        json.loads(re.search(r"```json\n(.*?)```", (tmp_path / "data/DATASET.md").read_text(), re.S)[1])["style"]
        == "phone"
    )


def test_the_plain_styles_are_as_they_were():
    """Goals, actions and targets of these tasks, computed before there was a style "phone"."""
    seen = hashlib.sha256()
    for style in ("easy", "free"):
        for made in tasks(28, seed=9, style=style):
            seen.update(made.goal.encode())
            for _scene, move in demonstrate(made, Phone(made.start())):
                seen.update(repr((move.action, move.thought, move.target and move.target.box)).encode())
    assert seen.hexdigest() == PLAIN


PLAIN = "906e118288220e1ad71bd4978cfceeed67125cc6de91cfee9f4de3832668e37a"


# ---------------------------------------------------------------------------------------------------------- UI hierarchy


@pytest.mark.parametrize("style", ["easy", "phone"])
def test_the_dump_says_what_scrolls_and_what_can_be_held(style):
    phone = Phone(new_state(2, style))
    phone.open("Notes")
    nodes = [*ElementTree.fromstring(window_xml(phone).split("?>", 1)[1]).iter("node")]
    held = {node.get("text") for node in nodes if node.get("long-clickable") == "true"}
    assert held == set(phone.state.notes)
    assert not [node for node in nodes if node.get("scrollable") == "true"]
    phone.open("Shop")
    nodes = [*ElementTree.fromstring(window_xml(phone).split("?>", 1)[1]).iter("node")]
    (reel,) = [node for node in nodes if node.get("scrollable") == "true"]
    assert {node.get("text") for node in reel} == {i.cell.text for i in phone.scene().placed if i.layer == "list"}
    assert len([node for node in nodes if node.get("text")]) == len(elements(phone))
