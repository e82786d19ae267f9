"""The same answers under other people's rules and protocols, and two runs against each other."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guiderail.agent.dialects import GUIDERAIL
from guiderail.agent.errors import DataError, SetupError, UnreadableAction
from guiderail.agent.types import (
    Action,
    Box,
    Click,
    Episode,
    LongPress,
    Open,
    Point,
    Screenshot,
    Step,
    Swipe,
    SystemButton,
    TargetBox,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.recordings.match import AGENTCPM, ALL_RULES, OS_ATLAS, RULES, SCREENSPOT, STRICT, judge
from guiderail.launch.cli import app
from guiderail.rl.score.profiles import PROFILES, Answers, compare, profile, read_steps, recorded, rescore
from guiderail.rl.score.statistics import mcnemar, paired_difference
from tests.conftest import REAL_DATA

SCREEN = Screenshot(1080, 2400)
AT, FAR = Point(0.5, 0.5), Point(0.9, 0.1)
UP, DOWN = Swipe(Point(0.5, 0.7), Point(0.5, 0.3)), Swipe(Point(0.5, 0.3), Point(0.5, 0.7))
BOX = TargetBox(Box(0.4, 0.45, 0.6, 0.55), "candidate")
THIN = TargetBox(Box(0.4, 0.499, 0.6, 0.501), "candidate")
STRICTLY, ATLAS, CPM = "strict", "os-atlas", "agentcpm"


def step(action: Action, *boxes: TargetBox) -> Step:
    return Step(SCREEN, action, boxes)


CELLS: list[tuple[str, Step, Action, set[str]]] = [
    ("click at 13 %, no box", step(Click(AT)), Click(Point(0.63, 0.5)), {ATLAS}),
    ("click at 15 %, no box", step(Click(AT)), Click(Point(0.65, 0.5)), set()),
    ("click near, no box", step(Click(AT)), Click(Point(0.53, 0.5)), {STRICTLY, ATLAS, CPM}),
    ("click in the box", step(Click(AT), BOX), Click(Point(0.59, 0.54)), {STRICTLY, ATLAS, CPM}),
    ("click on the box's edge", step(Click(AT), BOX), Click(Point(0.6, 0.55)), {STRICTLY, ATLAS, CPM}),
    ("click in the enlarged box", step(Click(AT), BOX), Click(Point(0.61, 0.5)), {ATLAS, CPM}),
    ("click near, beside a thin box", step(Click(AT), THIN), Click(Point(0.5, 0.53)), {ATLAS, CPM}),
    ("click for a long press", step(LongPress(AT)), Click(AT), {CPM}),
    ("long press for a long press", step(LongPress(AT)), LongPress(AT), {STRICTLY, ATLAS}),
    ("same text", step(Type("Milk")), Type("Milk"), {STRICTLY, ATLAS, CPM}),
    ("same text, a blank more", step(Type("Milk")), Type("Milk "), {STRICTLY, CPM}),
    ("same text in other case", step(Type("Milk")), Type("milk"), {ATLAS, CPM}),
    ("same first word", step(Type("miles davis")), Type("miles away"), {ATLAS}),
    ("only the first word", step(Type("miles davis")), Type("miles"), {CPM}),
    ("part of a text", step(Type("miles davis")), Type("davis"), {CPM}),
    ("same app", step(Open("Zoho Meeting")), Open("Zoho Meeting"), {STRICTLY, ATLAS, CPM}),
    ("wait for an end", step(Terminate("success")), Wait(), {CPM}),
    ("end for a wait", step(Wait()), Terminate("failure"), {CPM}),
    ("other end", step(Terminate("success")), Terminate("failure"), {CPM}),
    ("reversed swipe", step(UP), DOWN, set()),
    ("same swipe", step(UP), UP, {STRICTLY, ATLAS, CPM}),
]


@pytest.mark.parametrize(("at", "said", "rules"), [cell[1:] for cell in CELLS], ids=[cell[0] for cell in CELLS])
def test_which_rules_accept(at: Step, said: Action, rules: set[str]) -> None:
    assert {r.name for r in (STRICT, OS_ATLAS, AGENTCPM) if judge(at, said, r).exact} == rules


def test_screenspot_wants_the_point_in_the_box_and_nothing_else() -> None:
    at = step(Click(AT), BOX)
    for said, right in (
        (Click(Point(0.4, 0.55)), True),
        (Click(Point(0.61, 0.5)), False),
        (LongPress(AT), False),
        (Type("x"), False),
    ):
        assert judge(at, said, SCREENSPOT).exact is right


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@example(0.1, 0.3, 0.2, 0.7)
def test_every_corner_of_the_box_is_in_the_box(x1: float, y1: float, x2: float, y2: float) -> None:
    box = Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    at = step(Click(box.center), TargetBox(box, "annotation"))
    assert all(judge(at, Click(Point(x, y)), SCREENSPOT).exact for x in (x1, x2) for y in (y1, y2))


def test_another_button_is_another_kind_of_action_for_os_atlas_only() -> None:
    at = step(SystemButton("Back"))
    assert not judge(at, SystemButton("Home"), OS_ATLAS).type_ok
    assert judge(at, SystemButton("Home"), AGENTCPM).type_ok


def test_every_table_keeps_its_names() -> None:
    assert set(RULES) < set(ALL_RULES)
    assert all(name == rules.name for name, rules in ALL_RULES.items())
    assert all(name == one.name and one.about for name, one in PROFILES.items())
    assert profile("uis1-released-validation").rules is RULES["uis1-released-validation"]
    with pytest.raises(SetupError, match=r"'os-atlsa', did you mean 'os-atlas'"):
        profile("os-atlsa")


# ----------------------------------------------------------------------------------------------------------- protocols

FIRST: list[Action] = [Open("Notes"), Click(AT), Wait(), Terminate("success")]
SECOND: list[Action] = [Click(AT), Type("milk tea")]


def episode(name: str, actions: list[Action]) -> Episode:
    return Episode(name, f"goal {name}", tuple(map(step, actions)), f"made.jsonl:{name}")


ONE, TWO = episode("7", FIRST), episode("8", SECOND)


def single_steps(changes: dict[tuple[str, int], Action | UnreadableAction]) -> list[Answers]:
    """Every step answered as the expert did it, but for `changes`."""
    return [
        Answers(e, i, (changes.get((e.id, i), e.steps[i].action),), "finished")
        for e in (ONE, TWO)
        for i in range(len(e.steps))
    ]


def test_each_protocol_counts_its_own_steps() -> None:
    steps = single_steps({})
    listed = frozenset({("8", 0), ("8", 1), ("99", 0)})
    counted = {name: rescore("offline", steps, one, listed)["n"] for name, one in PROFILES.items()}
    assert {name for name, n in counted.items() if n == 6} == {
        "guiderail",
        "uis1-paper",
        "uis1-released-training",
        "uis1-released-sop",
        "uis1-sop-as-written",
        "strict",
    }
    assert counted["os-atlas"] == counted["androidcontrol-8444"] == 5
    assert counted["androidcontrol-7708"] == 2
    assert counted["agentcpm"] == 5
    row = rescore("offline", steps, PROFILES["androidcontrol-7708"], listed)
    assert (row["steps"], row["protocol_steps"]) == (2, 7708)


def test_a_listed_protocol_wants_its_list() -> None:
    with pytest.raises(SetupError, match="--steps"):
        rescore("offline", single_steps({}), PROFILES["androidcontrol-7708"])


def test_exact_type_and_hit_are_told_apart() -> None:
    steps = single_steps({("7", 1): Click(FAR), ("8", 0): UnreadableAction("no JSON object"), ("8", 1): Wait()})
    row = rescore("offline", steps, PROFILES["guiderail"])
    assert (row["SR"], row["TM"], row["hit"], row["GR"]) == (3 / 6, 4 / 6, 5 / 6, 0.0)
    assert row["intervals"]["hit"][0] < 5 / 6 < row["intervals"]["hit"][1]


def test_os_atlas_grounds_only_clicks_that_were_clicks() -> None:
    steps = single_steps({("7", 1): Wait(), ("8", 0): Click(Point(0.6, 0.5))})
    assert rescore("offline", steps, PROFILES["guiderail"])["GR"] == 0.0
    assert rescore("offline", steps, PROFILES["os-atlas"])["GR"] == 1.0


def test_a_crashed_step_is_unscored_under_every_profile() -> None:
    steps = [*single_steps({})[:-1], Answers(TWO, 1, (), "crashed")]
    row = rescore("offline", steps, PROFILES["guiderail"])
    assert (row["n"], row["unscored"], row["SR"], row["hit"]) == (5, 1, 1.0, 1.0)


def test_walks_are_as_long_as_the_steps_that_count() -> None:
    """Under AgentCPM the app-opening step is no step, so a walk that only missed there has come all the way."""
    missed_open = Answers(ONE, 0, (Wait(), *FIRST[1:]), "mismatch")
    ours = rescore("sop", [missed_open], PROFILES["guiderail"])
    theirs = rescore("sop", [missed_open], PROFILES["agentcpm"])
    assert (ours["PG"], ours["TSR"]) == (0.0, 0.0)
    assert (theirs["PG"], theirs["TSR"], theirs["open_ended"]) == (1.0, 1.0, 0)
    assert rescore("sop", [missed_open], PROFILES["os-atlas"])["PG"] == 0.0


def test_a_walk_that_stopped_too_early_for_another_rule_is_a_lower_bound() -> None:
    stopped = Answers(ONE, 0, (FIRST[0], Click(Point(0.6, 0.5))), "mismatch")
    assert rescore("sop", [stopped], PROFILES["guiderail"])["open_ended"] == 0
    row = rescore("sop", [stopped], PROFILES["os-atlas"])
    assert (row["open_ended"], row["PG"]) == (1, 2 / 3)


def test_an_error_wipes_a_walk_only_where_the_rules_say_so() -> None:
    broken = Answers(ONE, 0, (*FIRST[:2], UnreadableAction("no action")), "mismatch")
    assert rescore("sop", [broken], PROFILES["guiderail"])["PG"] == 0.5
    assert rescore("sop", [broken], PROFILES["uis1-released-sop"])["PG"] == 0.0
    unjudgeable = Answers(ONE, 0, tuple(FIRST), "finished")  # the expert's end raises in the released evaluator
    assert rescore("sop", [unjudgeable], PROFILES["uis1-released-sop"])["PG"] == 0.0
    assert rescore("sop", [unjudgeable], PROFILES["guiderail"])["PG"] == 1.0


def test_step_lists_are_read_and_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "steps.txt"
    path.write_text("episode_140_screenshot_0\n140 12\n\n")
    assert read_steps(path) == {("140", 0), ("140", 12)}
    path.write_text("episode_140_screenshot_0\nepisode_x\n")
    with pytest.raises(DataError, match=r"steps.txt:2: 'episode_x', expected"):
        read_steps(path)
    with pytest.raises(SetupError, match="--steps"):
        read_steps(tmp_path / "none.txt")
    path.write_bytes(b"140 12\n\xff\n")
    with pytest.raises(DataError, match=r"steps.txt:2: not UTF-8 text"):
        read_steps(path)


def test_answers_of_unknown_episodes_are_refused() -> None:
    rows = [{"unit": "unknown", "turns": [], "ended": "crashed"}]
    with pytest.raises(DataError, match=r"rollouts.jsonl:1.*unknown"):
        recorded("sop", rows, [ONE], GUIDERAIL)


# ----------------------------------------------------------------------------------------------------------- comparing


def test_mcnemar_against_worked_values() -> None:
    """Ten pairs that disagree, nine of them one way: 2 * (C(10,9) + C(10,10)) / 2^10."""
    pairs = [(True, False)] * 9 + [(False, True)] + [(True, True)] * 50
    assert mcnemar(pairs) == pytest.approx(22 / 1024)
    assert mcnemar([(True, True), (False, False)]) == 1.0
    assert mcnemar([]) == 1.0


def test_paired_intervals_are_narrower_than_the_spread_of_what_they_pair() -> None:
    rng = random.Random(0)
    base = [rng.random() * 0.9 for _ in range(80)]
    low, high = paired_difference([(str(i), value + 0.05 + rng.random() * 0.02, value) for i, value in enumerate(base)])
    assert 0.05 < low < high < 0.07


def test_paired_intervals_do_not_claim_certainty_from_equal_differences() -> None:
    low, high = paired_difference([(str(i), 1.0, 1.0) for i in range(20)])
    assert (low, high) == (-high, high)
    assert 0.1 < high < 0.2


def test_paired_intervals_cover_the_difference_about_95_times_in_100() -> None:
    rng, hits = random.Random(1), 0
    for trial in range(100):
        pairs = [(str(i), float(rng.random() < 0.6), float(rng.random() < 0.5)) for i in range(60)]
        low, high = paired_difference(pairs, resamples=400, seed=trial)
        hits += low <= 0.1 <= high
    assert 88 <= hits <= 100


def walks(right: list[bool]) -> list[Answers]:
    return [
        Answers(episode(str(i), SECOND), 0, tuple(SECOND) if ok else (Wait(),), "finished" if ok else "mismatch")
        for i, ok in enumerate(right)
    ]


def test_two_runs_are_compared_on_the_same_episodes() -> None:
    better = walks([True] * 30 + [False] * 10)
    worse = walks([True] * 15 + [False] * 25)
    found = compare("sop", better, worse, PROFILES["guiderail"])["metrics"]
    assert found["TSR"]["distinguishable"]
    assert found["TSR"]["p"] == pytest.approx(2 / 2**15)
    assert found["TSR"]["words"].startswith("TSR: the first run is better, +37.5 points [")
    assert compare("sop", worse, better, PROFILES["guiderail"])["metrics"]["PG"]["words"].startswith(
        "PG: the second run"
    )


def test_what_chance_explains_is_not_distinguishable() -> None:
    one, other = walks([True] * 21 + [False] * 19), walks([False] * 2 + [True] * 18 + [False] * 20)
    found = compare("sop", one, other, PROFILES["guiderail"])["metrics"]
    assert [metric["distinguishable"] for metric in found.values()] == [False, False]
    assert found["TSR"]["words"].startswith("TSR: not distinguishable, +7.5 points [")


def test_only_what_both_runs_scored_is_compared() -> None:
    one, other = walks([True] * 10), walks([True] * 10)
    other[3] = Answers(other[3].episode, 0, (), "crashed")
    found = compare("sop", one, other[:8], PROFILES["guiderail"])
    assert (found["n"], found["left_out"]) == (7, 3)
    steps = compare("offline", single_steps({}), single_steps({("8", 1): Wait()}), PROFILES["agentcpm"])
    assert steps["n"] == 5
    assert steps["metrics"]["SR"]["difference"] == pytest.approx(1 / 5)


# --------------------------------------------------------------------------------------------------- from the command line


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Run folders of the expert and of chance on forty real episodes."""
    source = REAL_DATA / "android_control_eval_sample.jsonl"
    if not source.is_file():
        pytest.skip("needs ../shared/data")
    data = tmp_path / "sample.jsonl"
    data.write_text("".join(source.read_text().splitlines(keepends=True)[:40]))
    folders = tmp_path / "expert", tmp_path / "random"
    for agent, dialect, out in (("expert", "ui_tars", folders[0]), ("random", "guiderail", folders[1])):
        said = ["--agent", agent, "--dialect", dialect, "--screen", "infer", "--out", str(out), "--json"]
        result = CliRunner().invoke(app, ["evaluate", "offline", str(data), *said])
        assert result.exit_code == 0, result.output
    return folders


def test_one_prediction_file_is_scored_side_by_side(runs: tuple[Path, Path]) -> None:
    expert, chance = runs
    shown = CliRunner().invoke(app, ["rejudge", str(expert), "--rules", "all", "--json"])
    rows = json.loads(shown.stdout)
    assert set(rows) == {name for name, one in PROFILES.items() if not one.listed}
    assert all(rows[name]["SR"] == 1.0 for name in rows if name != "agentcpm")
    assert rows["agentcpm"]["n"] < rows["guiderail"]["n"]
    against = CliRunner().invoke(
        app, ["rejudge", str(expert), "--rules", "guiderail", "os-atlas", "--against", str(chance), "--json"]
    )
    found = json.loads(against.stdout)["against"]
    assert {name: found[name]["metrics"]["SR"]["distinguishable"] for name in found} == {
        "guiderail": True,
        "os-atlas": True,
    }


def test_an_expert_of_the_real_data_is_right_in_the_os_atlas_subset(runs: tuple[Path, Path], tmp_path: Path) -> None:
    ids = [json.loads(line)["episode_id"] for line in (tmp_path / "sample.jsonl").read_text().splitlines()]
    (tmp_path / "steps.txt").write_text("".join(f"episode_{name}_screenshot_0\n" for name in ids[:30]))
    call = ["rejudge", str(runs[0]), "--rules", "androidcontrol-7708", "--steps", str(tmp_path / "steps.txt"), "--json"]
    row = json.loads(CliRunner().invoke(app, call).stdout)["androidcontrol-7708"]
    assert (row["n"], row["SR"], row["protocol_steps"]) == (30, 1.0, 7708)
