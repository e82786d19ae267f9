"""UI-S1's public matchers as total functions over answers: worked cases, seen by running that code, and our exceptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import Vision
from guiderail.agent.types import Completion, Episode, Point, Step, Swipe, Turn, Verdict
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.recordings.episodes import Dataset, load_episodes
from guiderail.envs.recordings.gate import oracle_gate
from guiderail.envs.recordings.match import RULES, MatchRules, judge
from guiderail.envs.recordings.progress import agreed
from guiderail.envs.recordings.saving import save_episodes
from guiderail.rl.credit.uis1 import RELEASED, step_reward
from tests.conftest import REAL_DATA

TRAIN, VALIDATION = RULES["uis1-released-training"], RULES["uis1-released-validation"]
SOP, WRITTEN = RULES["uis1-released-sop"], RULES["uis1-sop-as-written"]
DIALOGUE = Dialogue(Vision())
SAMPLE = REAL_DATA / "android_control_train_sample.jsonl"
real = pytest.mark.skipif(not SAMPLE.is_file(), reason="the AndroidControl samples are not here")

CLICK = {"action": "click", "coordinate": [540, 1200]}
PRESS = {"action": "long_press", "coordinate": [540, 1200], "time": 1}
UP = {"action": "swipe", "coordinate": [540, 1800], "coordinate2": [540, 600]}
TYPE, OPEN = {"action": "type", "text": "Jazz"}, {"action": "open", "text": "Zoho Mail"}
WAIT, BACK = {"action": "wait", "time": 2}, {"action": "system_button", "button": "Back"}
END, ANSWER = {"action": "terminate", "status": "success"}, {"action": "answer", "text": "42"}
KEY = {"action": "key", "text": "camera"}


def loaded(folder: Path, *lines: Any, swipes: Literal["detect", "finger", "inverted"] = "detect") -> Dataset:
    path = folder / "episodes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_episodes(path, screen=(1080, 2400), swipes=swipes)


def episode(folder: Path, *contents: dict[str, Any], **more: Any) -> Episode:
    line = {"goal": "go", "steps": [{"action_content": content, **more} for content in contents]}
    return loaded(folder, line).episodes[0]


def verdict_of(step: Step, text: str, rules: MatchRules) -> tuple[Verdict, str | None]:
    """The verdict on a turn, and its thought."""
    prompt = DIALOGUE.prompt("go", [step.screenshot], [])
    try:
        reply = DIALOGUE.read(Completion(text), prompt.screen)
        return judge(step, reply, rules), reply.thought
    except UnreadableAction as error:
        return judge(step, error, rules), error.thought


def reward(step: Step, text: str, rules: MatchRules) -> float:
    verdict, thought = verdict_of(step, text, rules)
    prompt = DIALOGUE.prompt("go", [step.screenshot], [])
    return round(step_reward(Turn(0, prompt, Completion(text), thought, None, verdict), RELEASED), 9)


def outcome(step: Step, text: str, rules: MatchRules) -> str:
    verdict, _ = verdict_of(step, text, rules)
    if not verdict.judgeable:
        assert not verdict.type_ok
        return "raises"
    return "exact" if verdict.exact else "type" if verdict.type_ok else "wrong"


# ----------------------------------------------------------------------------------------------------- worked cases

# Each line: the expert's action, the JSON that was said behind a thought; the released reward, the released SOP's outcome.
CASES: list[tuple[str, dict[str, Any], str, float, str]] = [
    ("a name of no matcher", CLICK, '{"action": "tap", "coordinate": [546, 1204]}', 0.19, "wrong"),
    ("a name in capitals", CLICK, '{"action": "Click", "coordinate": [546, 1204]}', 0.19, "wrong"),
    ("a name that is a number", CLICK, '{"action": 5}', 0.19, "wrong"),
    ("a key name for an answer", ANSWER, '{"action": "tap"}', 0.19, "raises"),
    ("no action", CLICK, '{"coordinate": [546, 1204]}', 0.1, "raises"),
    ("a list", CLICK, '[{"action": "click"}]', 0.1, "raises"),
    ("a string", CLICK, '"click"', 0.1, "raises"),
    ("null", WAIT, "null", 0.1, "raises"),
    ("not JSON", CLICK, "click(546, 1204)", 0.0, "raises"),
    ("cut off", CLICK, '{"action": "click", "coordinate": [546, 12', 0.0, "raises"),
    ("a click without a point", CLICK, '{"action": "click"}', 0.1, "raises"),
    ("a click without a point for a wait", WAIT, '{"action": "click"}', 0.19, "wrong"),
    ("a click with one number", CLICK, '{"action": "click", "coordinate": [546]}', 0.1, "raises"),
    ("a click with three numbers", CLICK, '{"action": "click", "coordinate": [546, 1204, 7]}', 1.0, "exact"),
    ("a click with numbers as text", CLICK, '{"action": "click", "coordinate": ["546", "1204"]}', 0.1, "raises"),
    ("a click at NaN", CLICK, '{"action": "click", "coordinate": [NaN, 1204]}', 0.55, "type"),
    ("a click at infinity", CLICK, '{"action": "click", "coordinate": [1e999, 1204]}', 0.55, "type"),
    (
        "a click with an endless integer",
        CLICK,
        f'{{"action": "click", "coordinate": [1{"0" * 400}, 1204]}}',
        0.1,
        "raises",
    ),
    ("a click outside the screen", CLICK, '{"action": "click", "coordinate": [9999, -5]}', 0.55, "type"),
    ("a wait with a broken point", WAIT, '{"action": "wait", "coordinate": null}', 0.1, "raises"),
    ("typing with a broken second point", TYPE, '{"action": "type", "text": "jazz", "coordinate2": []}', 0.1, "raises"),
    ("typing with a point", TYPE, '{"action": "type", "text": "jazz", "coordinate": [1, 2]}', 1.0, "exact"),
    ("typing without text", TYPE, '{"action": "type"}', 0.1, "raises"),
    ("typing a number", TYPE, '{"action": "type", "text": 5}', 0.1, "raises"),
    ("typing half a surrogate pair", TYPE, '{"action": "type", "text": "jazz \\ud800"}', 1.0, "exact"),
    ("opening without text where typing was wanted", TYPE, '{"action": "open"}', 0.19, "wrong"),
    ("opening without text", OPEN, '{"action": "open", "text": null}', 0.1, "raises"),
    ("a click without a point for an app", OPEN, '{"action": "click"}', 0.19, "wrong"),
    (
        "a long press with words for seconds",
        PRESS,
        '{"action": "long_press", "coordinate": [546, 1204], "time": "long"}',
        1.0,
        "exact",
    ),
    ("a wait with words for seconds", WAIT, '{"action": "wait", "time": "2s"}', 1.0, "exact"),
    ("a wait of a negative time", WAIT, '{"action": "wait", "time": -1}', 1.0, "exact"),
    ("a swipe without points", UP, '{"action": "swipe"}', 0.1, "exact"),
    ("a swipe without an end", UP, '{"action": "swipe", "coordinate": [546, 1806]}', 0.1, "exact"),
    ("a swipe to NaN", UP, '{"action": "swipe", "coordinate": [546, 1806], "coordinate2": [546, NaN]}', 0.55, "exact"),
    (
        "a swipe with a broken end",
        UP,
        '{"action": "swipe", "coordinate": [546, 1806], "coordinate2": "up"}',
        0.1,
        "raises",
    ),
    ("a swipe in words", UP, '{"action": "swipe", "direction": "up"}', 0.1, "exact"),
    ("a button with blanks", BACK, '{"action": "system_button", "button": " back "}', 1.0, "exact"),
    ("an unknown button", BACK, '{"action": "system_button", "button": "Recents"}', 0.55, "type"),
    ("an unknown button for a click", CLICK, '{"action": "system_button", "button": "Recents"}', 0.19, "wrong"),
    ("a button without a name", BACK, '{"action": "system_button"}', 0.1, "raises"),
    ("an end without a status", END, '{"action": "terminate"}', 1.0, "raises"),
    ("an end with another status", END, '{"action": "terminate", "status": "done"}', 1.0, "raises"),
    ("an answer without text for an answer", ANSWER, '{"action": "answer"}', 0.19, "raises"),
    ("typing without text for an answer", ANSWER, '{"action": "type"}', 0.1, "raises"),
    ("typing for a key", KEY, '{"action": "type", "text": "cam"}', 1.0, "raises"),
]


@pytest.mark.parametrize(("expert", "said", "paid", "sop"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_an_answer_is_worth_what_the_public_code_pays(
    tmp_path: Path, expert: dict[str, Any], said: str, paid: float, sop: str
) -> None:
    text = f"<think>why</think>\n<action>\n{said}\n</action>"
    (step,) = episode(tmp_path, expert).steps
    assert (reward(step, text, TRAIN), reward(step, text, VALIDATION)) == (paid, paid)
    assert (outcome(step, text, SOP), outcome(step, text, WRITTEN)) == (sop, sop)


# Each line: a whole turn, where the expert waited; the released reward and the released SOP's outcome.
TURNS: list[tuple[str, float, str]] = [
    ('<action>{"action": "wait"}</action><think>why</think>', 1.0, "exact"),
    ('<think>why <action>{"action": "wait"}</action></think>', 1.0, "exact"),
    (
        '<think>why <action>{"action": "wait"}</action></think><action>{"action": "type", "text": "a"}</action>',
        1.0,
        "exact",
    ),
    ('<think>why <action>{</action></think><action>{"action": "wait"}</action>', 0.0, "raises"),
    ('<action>{"action": "wait"}', 0.0, "raises"),
    ('{"action": "wait"}', 0.0, "raises"),
    ('<action>\xa0{"action": "wait"}</action>', 0.9, "exact"),
    ('<think> </think><action>{"action": "tap"}</action>', 0.09, "wrong"),
    ('<action>{"action": "wait"}</action><action>{"action": "tap"}</action>', 0.9, "exact"),
    ("", 0.0, "raises"),
]


@pytest.mark.parametrize(("text", "paid", "sop"), TURNS)
def test_the_first_think_and_the_first_action_block_count_wherever_they_stand(
    tmp_path: Path, text: str, paid: float, sop: str
) -> None:
    (step,) = episode(tmp_path, WAIT).steps
    assert (reward(step, text, TRAIN), outcome(step, text, SOP)) == (paid, sop)


def test_an_app_is_opened_by_a_click_on_its_icon_only_where_the_click_has_a_point(tmp_path: Path) -> None:
    (step,) = episode(tmp_path, OPEN, check_options={"candidate_bbox": [[100, 100, 200, 200]]}).steps
    hit = '<action>{"action": "click", "coordinate": [150, 150]}</action>'
    assert (outcome(step, hit, WRITTEN), outcome(step, hit, SOP)) == ("exact", "wrong")
    assert outcome(step, '<action>{"action": "click"}</action>', WRITTEN) == "raises"
    assert outcome(step, '<action>{"action": "click"}</action>', SOP) == "wrong"


def test_our_own_rules_and_other_dialects_read_as_strictly_as_ever(tmp_path: Path) -> None:
    (step,) = episode(tmp_path, WAIT).steps
    for name in ("guiderail", "uis1-paper"):
        verdict, _ = verdict_of(step, '<action>{"action": "wait", "time": "2s"}</action>', RULES[name])
        assert (verdict.readable, verdict.exact, verdict.judgeable) == (False, False, True)
    with pytest.raises(UnreadableAction) as other:
        DIALECTS["qwen2_5_vl"].read("nothing", _screen(step))
    assert judge(step, other.value, SOP) == Verdict(False, False, False, f"unreadable: {other.value}", judgeable=False)


def _screen(step: Step) -> Any:
    from guiderail.agent.dialogue import transform

    return transform(DIALOGUE.vision.picture(step.screenshot))


@pytest.mark.parametrize("word", ["\ud800", "x" * 100_000])
def test_reasons_can_be_written_and_stay_short(tmp_path: Path, word: str) -> None:
    for step, content in zip(
        episode(tmp_path, BACK, CLICK, TYPE, CLICK).steps,
        ({"action": "system_button", "button": word}, {"action": word}, {"action": "type", "text": word}, {word: word}),
        strict=True,
    ):
        verdict, _ = verdict_of(step, f"<action>{json.dumps(content)}</action>", TRAIN)
        assert 0 < len(verdict.why.encode()) < 300


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
names = st.sampled_from(["click", "long_press", "swipe", "type", "open", "answer", "key", "wait", "system_button"])
answers = values | st.fixed_dictionaries(
    {"action": names | values},
    optional=dict.fromkeys(("coordinate", "coordinate2", "text", "button", "status", "time"), values),
)
EXPERTS = (CLICK, PRESS, UP, TYPE, OPEN, WAIT, BACK, END, ANSWER, KEY)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Step, ...]:
    return episode(tmp_path_factory.mktemp("experts"), *EXPERTS).steps


@given(answers, st.integers(0, len(EXPERTS) - 1), st.sampled_from([TRAIN, VALIDATION, SOP, WRITTEN]))
def test_any_json_has_a_verdict_that_hangs_together(
    experts: tuple[Step, ...], content: Any, index: int, rules: MatchRules
) -> None:
    step, text = experts[index], f"<think>why</think><action>{json.dumps(content)}</action>"
    verdict, _ = verdict_of(step, text, rules)
    assert verdict.exact <= verdict.type_ok <= verdict.readable
    assert not (verdict.type_ok and not verdict.judgeable)
    assert reward(step, text, rules) in (0.1, 0.19, 0.55, 1.0), "a thought and any JSON earn something"


# ---------------------------------------------------------------------------------------------------------- progress


def said(name: str, **more: Any) -> str:
    return f"<action>{json.dumps({'action': name, **more})}</action>"


def test_progress_is_wiped_where_the_public_code_raises_and_nowhere_else(tmp_path: Path) -> None:
    """Two of four steps agree, then comes the answer."""
    steps = episode(tmp_path, WAIT, WAIT, CLICK, WAIT).steps
    for text, expected in (
        (said("tap"), (2, False)),
        (said("system_button", button="Recents"), (2, False)),
        (said("type"), (2, False)),
        (said("click"), (2, True)),
        (said("wait", coordinate=None), (2, True)),
        ("<action>{</action>", (2, True)),
        ("I give up", (2, True)),
    ):
        verdicts = [verdict_of(s, t, SOP)[0] for s, t in zip(steps, (said("wait"), said("wait"), text), strict=False)]
        assert agreed(verdicts, SOP) == expected, text
        assert agreed(verdicts, RULES["guiderail"]) == (2, False)


def test_what_comes_after_the_first_mismatch_wipes_nothing() -> None:
    right, wrong = Verdict(True, True, True, ""), Verdict(True, False, False, "")
    raised = Verdict(False, False, False, "", judgeable=False)
    assert agreed([right, wrong, raised], SOP) == (1, False)
    assert agreed([right, raised, right], SOP) == (1, True)
    assert agreed([right, None, raised], SOP) == (1, False)
    assert agreed([right, right], SOP) == (2, False)


def test_verdicts_recorded_before_loose_rules_count_as_they_did() -> None:
    """Bundles hold their rules by field; the older ones lack `loose`, and say of no answer that the code raises."""
    fields = {"name": SOP.name, "answers": "error", "status": "error", "error_zeroes_progress": True}
    old = MatchRules(**fields)  # type: ignore[arg-type]
    assert agreed([Verdict(True, True, True, ""), Verdict(False, False, False, "unreadable: x")], old) == (1, True)
    assert agreed([Verdict(True, True, True, ""), Verdict(True, False, False, "wrong")], old) == (1, False)


# ------------------------------------------------------------------------------------------------------------ swipes

DOWN = {"action": "swipe", "coordinate": [540, 600], "coordinate2": [540, 1800]}
LEFT = {"action": "swipe", "coordinate": [900, 1200], "coordinate2": [100, 1200]}
STILL = {"action": "swipe", "coordinate": [540, 600], "coordinate2": [540, 600]}
FINGER = {"up": UP, "down": DOWN, "left": LEFT}
# What the public training wants, by what the file stores: up and down exchanged. Without motion the matcher sees "up".
WANTED = (("up", UP, "down"), ("down", DOWN, "up"), ("left", LEFT, "left"), ("still", STILL, "down"))


@pytest.mark.parametrize("swipes", ["detect", "finger", "inverted"])
@pytest.mark.parametrize("file", ["stored as finger motion", "stored inverted", "undetermined"])
@pytest.mark.parametrize("way", ["loaded", "saved and loaded"])
def test_released_training_exchanges_once_however_a_file_was_loaded(
    tmp_path: Path, swipes: Literal["detect", "finger", "inverted"], file: str, way: str
) -> None:
    padding = {"stored as finger motion": [UP] * 30, "stored inverted": [DOWN] * 30, "undetermined": []}[file]
    steps = [{"action_content": content} for content in (UP, DOWN, LEFT, STILL, *padding)]
    data = loaded(tmp_path, {"goal": "scroll", "steps": steps}, swipes=swipes)
    if way == "saved and loaded":
        save_episodes(tmp_path / "again.jsonl", data.episodes)
        data = load_episodes(tmp_path / "again.jsonl", screen=(1080, 2400))
    for step, (stored, _, wanted) in zip(data.episodes[0].steps, WANTED, strict=False):
        for rules in (TRAIN, VALIDATION):
            right = [
                name for name, answer in FINGER.items() if outcome(step, said(**_as_said(answer)), rules) == "exact"
            ]
            assert right == [wanted], (stored, rules.name)
        for rules in (SOP, WRITTEN):
            assert all(outcome(step, said(**_as_said(answer)), rules) == "exact" for answer in FINGER.values())


def _as_said(content: dict[str, Any]) -> dict[str, Any]:
    return {"name" if key == "action" else key: value for key, value in content.items()}


def test_a_scroll_label_is_exchanged_by_the_rule_alone(tmp_path: Path) -> None:
    """Stored along the label, so the loader exchanges; the public matcher exchanges the label."""
    step = episode(tmp_path, DOWN, check_options={"direction": "down"}).steps[0]
    assert step.exchanged
    assert isinstance(step.action, Swipe)
    assert step.action.direction == "up"
    assert outcome(step, said(**_as_said(UP)), TRAIN) == "exact"
    assert outcome(step, said(**_as_said(DOWN)), TRAIN) == "type"


@real
@pytest.mark.parametrize("swipes", ["detect", "finger"])
def test_released_training_wants_the_real_finger_motion_of_its_own_sample(
    tmp_path: Path, swipes: Literal["detect", "finger"]
) -> None:
    """19 swipes, all stored downward for a finger that went up."""
    data = load_episodes(SAMPLE, screen="infer", swipes=swipes)
    swiped = [step for e in data.episodes for step in e.steps if isinstance(step.action, Swipe)]
    up, down = Swipe(Point(0.5, 0.8), Point(0.5, 0.2)), Swipe(Point(0.5, 0.2), Point(0.5, 0.8))
    for rules in (TRAIN, VALIDATION):
        assert [judge(step, up, rules).exact for step in swiped] == [True] * 19
        assert [judge(step, down, rules).exact for step in swiped] == [False] * 19
    row = oracle_gate(data, DIALOGUE, TRAIN)["by_action"]["swipe"]
    assert (row["steps"], row["exact"]) == (19, 19 if swipes == "detect" else 0)


@real
def test_an_imported_sample_is_judged_like_its_source(tmp_path: Path) -> None:
    run_import("uis1", [SAMPLE], tmp_path / "made", Options(screen="infer"))
    data = load_episodes(tmp_path / "made", screen="infer")
    assert data.swipes == "finger"
    row = oracle_gate(data, DIALOGUE, TRAIN)["by_action"]["swipe"]
    assert (row["steps"], row["exact"]) == (19, 19)


# -------------------------------------------------------------------------- exceptions, by the names of docs/rules.md


def test_exception_boxes_in_the_answer(tmp_path: Path) -> None:
    """The public code divides an answer's own `candidate_bbox` by the screen, and raises where it cannot."""
    (step,) = episode(tmp_path, WAIT).steps
    assert outcome(step, said("wait", candidate_bbox=5), TRAIN) == "exact"


def test_exception_points_beyond_the_edge(tmp_path: Path) -> None:
    """The expert's point is (1084, 1200) of 1080x2400 for the public code, and (1080, 1200) here."""
    (step,) = episode(tmp_path, {"action": "click", "coordinate": [1084, 1200]}).steps
    assert step.action == episode(tmp_path, {"action": "click", "coordinate": [1080, 1200]}).steps[0].action


def test_exception_boxes_of_the_step(tmp_path: Path) -> None:
    """The public evaluator raises on a step with a `bbox` of its own; here the box is not used."""
    (step,) = episode(tmp_path, CLICK, bbox=[0, 0, 1080, 2400]).steps
    far = said("click", coordinate=[10, 10])
    assert (outcome(step, far, SOP), outcome(step, far, TRAIN)) == ("type", "type")
    (flat,) = episode(tmp_path, CLICK, check_options={"candidate_bbox": [0, 0, 1080, 2400]}).steps
    assert (outcome(flat, far, TRAIN), outcome(flat, far, WRITTEN)) == ("type", "exact")


def test_exception_annotations(tmp_path: Path) -> None:
    """The public reward is 1 - A on a step marked HARMFUL and 0.5 on a NEUTRAL one."""
    (step,) = episode(tmp_path, WAIT, annotation="HARMFUL").steps
    assert reward(step, said("wait"), TRAIN) == 0.9


def test_exception_other_dialects(tmp_path: Path) -> None:
    """The public code reads one format. An answer in another dialect is judged by its action alone."""
    (step,) = episode(tmp_path, WAIT).steps
    dialect = DIALECTS["qwen2_5_vl"]
    said_there = dialect.say("why", step.action, _screen(step))
    assert judge(step, dialect.read(said_there, _screen(step)), SOP).exact


def test_each_exception_is_named_in_the_document() -> None:
    text = (Path(__file__).parents[3] / "docs" / "rules.md").read_text("utf-8")
    listed = [line for line in text.splitlines() if line.startswith("- **")]
    tests = [name for name in globals() if name.startswith("test_exception_")]
    assert len(listed) == len(tests)
    for name in tests:
        words = name.removeprefix("test_exception_").replace("_", " ")
        assert any(line.lower().startswith(f"- **{words}**") for line in listed), words
