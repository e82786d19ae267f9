"""Every model family's voice: what is said reads back, nothing it writes crashes, and the public mistakes stay out."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.parse import noisy_turns
from guiderail.agent.codec import action_to_json
from guiderail.agent.dialects import DIALECTS, Dialect
from guiderail.agent.dialects.base import MAX_TURN
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform, Vision
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import (
    BUTTONS,
    Action,
    Answer,
    Click,
    Completion,
    Direction,
    Episode,
    Key,
    LongPress,
    Message,
    Open,
    Picture,
    Point,
    Prompt,
    Screenshot,
    Step,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.recordings.replay import step_walk, walk

SCREEN = ScreenTransform(1092, 2408)
NAMES = sorted(DIALECTS)
VISION = Vision()

points = st.builds(Point, st.floats(0, 1), st.floats(0, 1))
texts = st.text(max_size=40)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Click, points),
    st.builds(LongPress, points, st.floats(0, 60)),
    st.builds(Swipe, points, points),
    st.builds(Type, texts),
    st.builds(Open, texts),
    st.builds(Answer, texts),
    st.builds(Key, texts),
    st.builds(SystemButton, st.sampled_from(BUTTONS)),
    st.builds(Wait, st.floats(0, 60)),
    st.builds(Terminate, st.sampled_from(["success", "failure"])),
)
KINDS: list[Action] = [
    Click(Point(0.5, 0.25)),
    LongPress(Point(0.5, 0.25)),
    Swipe(Point(0.5, 0.7), Point(0.5, 0.3)),
    Type("milk"),
    Open("Notes"),
    Answer("42"),
    Key("volume_up"),
    *(SystemButton(button) for button in BUTTONS),
    Wait(2.0),
    Terminate("success"),
    Terminate("failure"),
]
# What a family's own frame is made of cannot also be a thought in it.
FRAME = (
    "</think>",
    "<tool_call>",
    "actions:",
    "action:",
    "Action:",
    "pyautogui",
    "mobile",
    "browser",
    "answer",
    "terminate",
)
thoughts = st.none() | st.text(max_size=60).filter(lambda text: not any(word in text for word in FRAME))


def same(a: Action, b: Action, dialect: Dialect) -> bool:
    """Equal up to one unit of the family's coordinates, a millisecond, and what the family says it forgets."""
    unit = {"thousand": (1 / 999, 1 / 999), "unit": (1e-4, 1e-4)}.get(dialect.space, (1 / 1092, 1 / 2408))

    def close(p: Point, q: Point) -> bool:
        return abs(p.x - q.x) <= unit[0] and abs(p.y - q.y) <= unit[1]

    match a, b:
        case Click(p), Click(q):
            return close(p, q)
        case LongPress(p, s), LongPress(q, t):
            lasting = t == LongPress(q).seconds if "long_press.seconds" in dialect.forgets else abs(s - t) <= 0.2011
            return close(p, q) and lasting
        case Swipe(), Swipe() if "swipe.points" in dialect.forgets:
            return a.direction == b.direction
        case Swipe(p1, p2), Swipe(q1, q2):
            return close(p1, q1) and close(p2, q2)
        case Wait(s), Wait(t):
            return t == Wait().seconds if "wait.seconds" in dialect.forgets else abs(s - t) <= 0.001
    return a == b


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150)
@given(thought=thoughts, action=actions)
def test_what_is_said_reads_back(name: str, thought: str | None, action: Action) -> None:
    dialect = DIALECTS[name]
    assume(dialect.says(action))
    said = dialect.say(thought, action, SCREEN)
    reply = dialect.read(said, SCREEN)
    assert same(action, reply.action, dialect), said
    assert reply.thought == ((thought or "").strip() or None)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_said_is_declared_and_refused(name: str) -> None:
    dialect = DIALECTS[name]
    for action in KINDS:
        if dialect.says(action):
            assert type(dialect.read(dialect.say("why", action, SCREEN), SCREEN).action) is type(action)
        else:
            with pytest.raises(SetupError, match=rf"{name} cannot express {action.name}.*--dialect"):
                dialect.say("why", action, SCREEN)


def test_what_each_family_cannot_say() -> None:
    assert {name: set(dialect.cannot) for name, dialect in DIALECTS.items()} == {
        "guiderail": set(),
        "brief": set(),
        "qwen2_5_vl": {"answer"},
        "qwen3_vl": {"open", "key"},
        "ui_tars": {"answer", "key", "system_button Menu", "system_button Enter", "terminate failure"},
        "ui_tars_1_5": {"answer", "key", "system_button Menu", "system_button Enter", "terminate failure"},
        "os_atlas": {"answer", "key"},
        "os_genesis": {"key", "system_button Menu"},
        "agentcpm": {"open", "answer", "key", "system_button Menu"},
        "aguvis": {"answer", "key", "system_button Menu"},
    }


# ---------------------------------------------------------------------------------------- turns as the models write them

WRITTEN: list[tuple[str, str, Action]] = [
    (
        "qwen2_5_vl",
        '<tool_call>\n{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [546, 1204]}}\n</tool_call>',
        Click(Point(0.5, 0.5)),
    ),
    (
        "qwen2_5_vl",
        '<tool_call>\n{"name": "mobile_use", "arguments": {"action": "open", "text": "File Manager"}}',
        Open("File Manager"),
    ),
    (
        "qwen3_vl",
        "Thought: Search.\nAction: Tap it.\n<tool_call>\n"
        '{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [999, 333]}}\n</tool_call>',
        Click(Point(1.0, 333 / 999)),
    ),
    (
        "ui_tars",
        "Thought: x\nAction: click(start_box='<|box_start|>(197,525)<|box_end|>')",
        Click(Point(0.197, 0.525)),
    ),
    ("ui_tars", "Thought: x\nAction: click(start_box='(197,525)')", Click(Point(0.197, 0.525))),
    ("ui_tars", "Thought: x\nAction: click(start_box='[100, 200, 300, 400]')", Click(Point(0.2, 0.3))),
    ("ui_tars", "Action: long_press(start_box='(197,525)', time='')", LongPress(Point(0.197, 0.525))),
    ("ui_tars", "Action: open_app(app_name='Gmail')", Open("Gmail")),
    ("ui_tars", "Action: press_home()", SystemButton("Home")),
    ("ui_tars", "Action: finished()", Terminate("success")),
    ("ui_tars", "Action: type(content='a')\n\nclick(start_box='(1,2)')", Type("a")),
    (
        "ui_tars",
        "Action: drag(start_box='(100,900)', end_box='(100,200)')",
        Swipe(Point(0.1, 0.9), Point(0.1, 0.2)),
    ),
    ("ui_tars_1_5", "Thought: x\nAction: click(point='<point>546 1204</point>')", Click(Point(0.5, 0.5))),
    ("ui_tars_1_5", "Thought: x\nAction: click(start_box='(546,1204)')", Click(Point(0.5, 0.5))),
    ("ui_tars_1_5", r"Action: type(content='it\'s\n')", Type("it's\n")),
    ("os_atlas", "thoughts:\nx\nactions:\nCLICK <point>[[101, 872]]</point>", Click(Point(0.101, 0.872))),
    ("os_atlas", "Thoughts:\nx\nActions:\nOPEN_APP [Google Chrome]", Open("Google Chrome")),
    ("os_atlas", "actions:\nPRESS_BACK", SystemButton("Back")),
    ("os_atlas", "actions:\nTYPE [Shanghai [new] mall]", Type("Shanghai [new] mall")),
    ("os_atlas", "actions:\nCOMPLETE", Terminate("success")),
    (
        "os_genesis",
        'Low-level thought: Click it.\naction: {"action_type":"click","x":546,"y":1204.0}',
        Click(Point(0.5, 0.5)),
    ),
    ("os_genesis", 'action: {"action_type": "open_app", "app_name": "Gmail"}', Open("Gmail")),
    ("os_genesis", 'action: {"action_type": "type", "text": "hi", "x": 5, "y": 6}', Type("hi")),
    ("os_genesis", 'action: {"action_type": "status", "goal_status": "successful"}', Terminate("success")),
    ("agentcpm", '{"thought":"x","POINT":[480,320]}', Click(Point(0.48, 0.32))),
    ("agentcpm", '{"POINT":[480,320],"duration":200}', Click(Point(0.48, 0.32))),
    ("agentcpm", '{"POINT":[480,320],"duration":1000}', LongPress(Point(0.48, 0.32), 1.0)),
    ("agentcpm", '{"POINT":[500,200],"to":[500,800]}', Swipe(Point(0.5, 0.2), Point(0.5, 0.8))),
    ("agentcpm", '{"PRESS":"HOME"}', SystemButton("Home")),
    ("agentcpm", '{"duration":500}', Wait(0.5)),
    ("agentcpm", '{"STATUS":"finish"}', Terminate("success")),
    ("agentcpm", '{"STATUS":"impossible"}', Terminate("failure")),
    ("aguvis", "Thought: x\nAction: Click.\npyautogui.click(x=0.91, y=0.07)", Click(Point(0.91, 0.07))),
    ("aguvis", "all\nAction: Write.\nassistantos\npyautogui.write(message='hi')", Type("hi")),
    ("aguvis", "mobile.swipe(from_coord=[0.5, 0.7], to_coord=[0.5, 0.3])", Swipe(Point(0.5, 0.7), Point(0.5, 0.3))),
    ("aguvis", "mobile.open_app(app_name='Gmail')", Open("Gmail")),
    ("aguvis", "mobile.back()", SystemButton("Back")),
    ("aguvis", "pyautogui.click(0.91, 0.07)", Click(Point(0.91, 0.07))),
    ("aguvis", "mobile.wait(3)", Wait(3.0)),
    ("aguvis", "pyautogui.write('a, b=c')", Type("a, b=c")),
    ("aguvis", "mobile.swipe([0.5, 0.7], to_coord=[0.5, 0.3])", Swipe(Point(0.5, 0.7), Point(0.5, 0.3))),
]


@pytest.mark.parametrize(("name", "text", "action"), WRITTEN)
def test_turns_in_the_models_own_syntax(name: str, text: str, action: Action) -> None:
    assert DIALECTS[name].read(text, SCREEN).action == action


DOWN_THE_PAGE = {  # what is further down comes into view: the finger moves up
    "ui_tars": "Action: scroll(direction='down')",
    "ui_tars_1_5": "Action: scroll(point='<point>5 5</point>', direction='down')",
    "os_atlas": "actions:\nSCROLL [DOWN]",
    "os_genesis": 'action: {"action_type": "scroll", "direction": "down"}',
    "aguvis": "pyautogui.scroll(page=-0.5)",
}
OPPOSITE: dict[Direction, Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["up", "down", "left", "right"])
def test_four_directions_keep_the_fingers_motion(name: str, direction: Direction) -> None:
    """A swipe keeps its direction through every voice; a family that names the view writes the opposite word."""
    ends: dict[Direction, tuple[Point, Point]] = {
        "up": (Point(0.5, 0.8), Point(0.5, 0.2)),
        "down": (Point(0.5, 0.2), Point(0.5, 0.8)),
        "left": (Point(0.8, 0.5), Point(0.2, 0.5)),
        "right": (Point(0.2, 0.5), Point(0.8, 0.5)),
    }
    dialect = DIALECTS[name]
    said = dialect.say(None, Swipe(*ends[direction]), SCREEN)
    back = dialect.read(said, SCREEN).action
    assert isinstance(back, Swipe)
    assert back.direction == direction
    if dialect.swipe == "view":
        assert OPPOSITE[direction] in said.lower()
        assert direction not in said.lower()


@pytest.mark.parametrize(("name", "text"), sorted(DOWN_THE_PAGE.items()))
def test_scrolling_down_moves_the_finger_up(name: str, text: str) -> None:
    """B20: a scroll is a swipe, not a click at the centre."""
    action = DIALECTS[name].read(text, SCREEN).action
    assert isinstance(action, Swipe)
    assert action.direction == "up"


@pytest.mark.parametrize("direction", ["up", "down", "left", "right"])
def test_agentcpm_names_the_finger(direction: Direction) -> None:
    action = DIALECTS["agentcpm"].read(json.dumps({"POINT": [500, 500], "to": direction}), SCREEN).action
    assert isinstance(action, Swipe)
    assert action.direction == direction
    assert action.start == Point(0.5, 0.5)


# --------------------------------------------------------------------------------------------- the reference's mistakes


@pytest.mark.parametrize("name", [name for name in NAMES if "open" not in DIALECTS[name].cannot])
def test_b19_opening_an_app_is_not_lost(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.read(dialect.say("why", Open("Google Maps"), SCREEN), SCREEN).action == Open("Google Maps")


def test_b19_opening_an_app_is_read_even_where_the_prompt_does_not_offer_it() -> None:
    call = '<tool_call>{"name": "mobile_use", "arguments": {"action": "open", "text": "Gmail"}}</tool_call>'
    assert DIALECTS["qwen3_vl"].read(call, SCREEN).action == Open("Gmail")
    assert DIALECTS["agentcpm"].read('{"OPEN_APP":"Gmail"}', SCREEN).action == Open("Gmail")


NOTHING = [
    "",
    "   ",
    "I am not sure.",
    "{}",
    "[]",
    "null",
    '{"thought":"hm"}',
    '{"STATUS":"continue"}',
    "Action: fly()",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", NOTHING)
def test_b19_nothing_readable_is_never_a_pause(name: str, text: str) -> None:
    with pytest.raises(UnreadableAction) as caught:
        DIALECTS[name].read(text, SCREEN)
    assert str(caught.value)


HARD = "It's (as seen at (12, 34)) a \"list\", isn't it? [maybe] {so}: don't click(1,2)"


@pytest.mark.parametrize("name", NAMES)
def test_b22_parentheses_and_apostrophes_in_a_thought_change_nothing(name: str) -> None:
    dialect = DIALECTS[name]
    for action in filter(dialect.says, KINDS):
        reply = dialect.read(dialect.say(HARD, action, SCREEN), SCREEN)
        assert same(action, reply.action, dialect)
        assert reply.thought == HARD


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["don't (stop) now", "say \"hi\", then 'bye'", "a, b='c')", "line\nbreak\\n", "]}</x>"]
)
def test_b22_an_apostrophe_does_not_cut_a_text(name: str, text: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.read(dialect.say(None, Type(text), SCREEN), SCREEN).action == Type(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ui_tars", "Thought: it's here\nAction: type(content='don't stop')"),
        ("aguvis", "Thought: it's here\npyautogui.write(message='don't stop')"),
    ],
)
def test_b22_models_that_do_not_escape_are_understood(name: str, text: str) -> None:
    assert DIALECTS[name].read(text, SCREEN).action == Type("don't stop")


def words(prompt: Prompt) -> str:
    return "\n".join(part for message in prompt.messages for part in message.parts if isinstance(part, str))


@pytest.fixture
def recorded() -> Episode:
    """Every step carries expert words that no prompt of a walk may show."""
    screen = Screenshot(1080, 2400)
    did: list[Action] = [Click(Point(0.2, 0.2)), Type("milk"), Click(Point(0.7, 0.7)), Terminate("success")]
    steps = (Step(screen, action, (), "EXPERT THOUGHT", "EXPERT INSTRUCTION") for action in did)
    return Episode("e1", "add milk to the list", tuple(steps), "made.jsonl:1")


@pytest.mark.parametrize("name", NAMES)
def test_b21_a_walks_history_is_the_agents_own(name: str, recorded: Episode) -> None:
    dialect = DIALECTS[name]
    dialogue = Dialogue(VISION, dialect, dialect.images)
    going = walk(recorded, dialogue=dialogue)
    prompts = [next(going)]
    for index, step in enumerate(recorded.steps[:-1]):
        prompts.append(going.send(Completion(dialogue.say(f"own thought {index}", step.action, step.screenshot))))
    for number, prompt in enumerate(prompts):
        said = words(prompt)
        assert "EXPERT" not in said
        assert "add milk to the list" in said
        assert prompt.screen.screenshot == recorded.steps[0].screenshot
        assert len(prompt.pictures) == min(dialect.images, number + 1)
    if name != "agentcpm":  # trained without history
        assert "milk" in words(prompts[2]).replace("add milk to the list", "") or "own thought 1" in words(prompts[2])
        assert words(prompts[3]) != words(prompts[2])


@pytest.mark.parametrize("name", NAMES)
def test_steps_under_the_experts_history_need_no_word_for_every_action(name: str) -> None:
    """An expert's step may be one that the family cannot express; the history then has it in plain words."""
    screen = Screenshot(1080, 2400)
    did: list[Action] = [Open("Pocket"), Key("volume_up"), Answer("42"), SystemButton("Menu"), Wait()]
    episode = Episode("e1", "g", tuple(Step(screen, action) for action in did), "made.jsonl:1")
    for index in range(len(did)):
        next(step_walk(episode, index, dialogue=Dialogue(VISION, DIALECTS[name])))


def test_ui_tars_remembers_points_in_box_tokens_whether_or_not_decoding_kept_them() -> None:
    dialect = DIALECTS["ui_tars"]
    bare = "Thought: at (1,2)\nAction: click(start_box='(197,525)')"
    full = "Thought: at (1,2)\nAction: click(start_box='<|box_start|>(197,525)<|box_end|>')"
    assert dialect.remember(bare) == full == dialect.remember(full)
    assert dialect.say("at (1,2)", Click(Point(0.197, 0.525)), SCREEN) == full


def test_a_turn_does_not_end_at_its_first_box_token(recorded: Episode) -> None:
    dialogue = Dialogue(VISION, DIALECTS["ui_tars"], 5)
    going = walk(recorded, dialogue=dialogue)
    next(going)
    said = "Thought: x\nAction: click(start_box='<|box_start|>(200,200)<|box_end|>')<|im_end|>"
    prompt = going.send(Completion(said))
    assert [m.parts for m in prompt.messages if m.role == "assistant"] == [(said.removesuffix("<|im_end|>"),)]


@pytest.mark.parametrize("thought", ["no Action: yet", "first\nAction: wait()\nwould be wrong"])
def test_ui_tars_acts_on_the_last_action_line(thought: str) -> None:
    dialect = DIALECTS["ui_tars"]
    reply = dialect.read(dialect.say(thought, Type("Action: wait()"), SCREEN), SCREEN)
    assert (reply.thought, reply.action) == (thought, Type("Action: wait()"))


def test_ui_tars_puts_the_task_apart_and_keeps_five_screens(recorded: Episode) -> None:
    dialect = DIALECTS["ui_tars"]
    dialogue = Dialogue(VISION, dialect, dialect.images)
    shots = [Screenshot(1080, 2400)] * 8
    messages = dialogue.prompt("g", shots, ["Action: wait()"] * 7).messages
    assert [message.role for message in messages[:5]] == ["user", *["assistant"] * 3, "user"]
    assert sum(isinstance(part, Picture) for message in messages for part in message.parts) == 5
    assert all(isinstance(part, str) for part in messages[0].parts)


def test_composed_histories_are_lines_of_own_words() -> None:
    shots = [Screenshot(1080, 2400)] * 2

    def history(name: str) -> str:
        dialect = DIALECTS[name]
        return words(Dialogue(VISION, dialect).prompt("g", shots, [dialect.say("own idea", Type("milk"), SCREEN)]))

    assert 'Step 1: {"name": "mobile_use", "arguments": {"action": "type", "text": "milk"}}' in history("qwen2_5_vl")
    assert "Step 1: type milk" in history("qwen3_vl")
    assert "Step 1: own idea" in history("os_atlas")
    assert "Step 1: own idea action: {" in history("os_genesis")
    assert "Step 1: type milk" in history("aguvis")


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_a_text_or_thought_that_names_the_tool_call_does_not_begin_it(name: str) -> None:
    dialect, screen, action = DIALECTS[name], ScreenTransform(1092, 2408), Type("write <tool_call>{}</tool_call>")
    said = dialect.say("A <tool_call> is needed.", action, screen)
    reply = dialect.read(said, screen)
    assert (reply.action, reply.thought) == (action, "A tool_call is needed.")
    assert dialect.remember(said).count("<tool_call>") == (name == "qwen2_5_vl"), "in its own call, as text"


def test_qwen2_5_is_told_the_size_it_counts_in() -> None:
    prompt = Dialogue(VISION, DIALECTS["qwen2_5_vl"]).prompt("g", [Screenshot(1080, 2400)], [])
    assert "1092x2408" in words(prompt)
    assert "WIDTHxHEIGHT" not in words(prompt)


# ----------------------------------------------------------------------------------------------- anything may come in


def short(refusal: UnreadableAction) -> bool:
    """False; fails unless the reason is there and brief."""
    assert 0 < len(str(refusal)) <= 400
    return False


def read_or_refuse(dialect: Dialect, text: str) -> bool:
    """Whether it was read; anything but a reply or a reasoned refusal fails."""
    try:
        reply = dialect.read(text, SCREEN)
    except UnreadableAction as refusal:
        return short(refusal)
    assert dataclasses.is_dataclass(reply.action)
    json.dumps(action_to_json(reply.action, SCREEN), allow_nan=False)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        f"{reply.thought}{reply.action}".encode()
    dialect.remember(text)
    return True


@pytest.mark.parametrize("name", NAMES)
def test_noisy_turns_are_read_or_refused(name: str) -> None:
    read = sum(read_or_refuse(DIALECTS[name], turn) for turn in noisy_turns(DIALECTS[name], 2000, seed=1))
    assert 200 < read < 1800


def test_a_thought_that_json_spells_as_half_a_character_can_be_stored() -> None:
    reply = DIALECTS["agentcpm"].read('{"thought":"a\\ud800b","POINT":[1,2]}', SCREEN)
    assert reply.thought == "a?b"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_noisy_turns_are_read_or_refused(name: str) -> None:
    read = sum(read_or_refuse(DIALECTS[name], turn) for turn in noisy_turns(DIALECTS[name], 100_000, seed=2))
    assert 10_000 < read < 90_000


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    read_or_refuse(DIALECTS[name], text)


BOMBS = [
    "(",
    "'",
    '"',
    "\\",
    "[",
    "{",
    "Action:",
    "\nAction:",
    "a='",
    "a=",
    ",",
    " ",
    ")\n\n",
    "action: {",
    "<tool_call>",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "unit", [*BOMBS, "pyautogui.", "actions:\n", '{"a":', "click(start_box='(", "\\'", "1", "<|box_start|>"]
)
def test_repetition_costs_linear_time(name: str, unit: str) -> None:
    dialect = DIALECTS[name]
    heads = ["", "Action: type(content='", "Action: click(start_box='", "pyautogui.write(message='", "actions:\nTYPE ["]
    start = time.perf_counter()
    for head in heads:
        body = head + unit * ((MAX_TURN - len(head) - 5) // len(unit))
        for tail in ("", ")", "')", "']"):
            read_or_refuse(dialect, body + tail)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"guiderail", "brief"}))
def test_overlong_turns_are_refused(name: str) -> None:
    with pytest.raises(UnreadableAction, match="characters"):
        DIALECTS[name].read("x" * (MAX_TURN + 1), SCREEN)


def test_brief_prompts_of_a_group_differ_only_after_pictures_and_goal() -> None:
    talk = Dialogue(ORIGINAL_SIZE, DIALECTS["brief"], 2)
    shots = [Screenshot(32, 64, f"{n}.png") for n in range(3)]
    ours, theirs = (talk.prompt("call Anna", shots, [first, "b"]) for first in ("a", "other"))
    assert [p.screenshot for p in ours.pictures] == shots[1:]
    assert ours.messages[0] == theirs.messages[0] == Message("user", (*ours.pictures, "call Anna"))
    assert [m.role for m in ours.messages[1:]] == ["assistant", "user"] * 2
    assert ours.messages[1] != theirs.messages[1]
