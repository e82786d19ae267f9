"""Counting divergences, by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guiderail.launch.report import atlas
from guiderail.launch.report.compare import comparable, compare, early_late
from guiderail.launch.report.overview import by_template, headline
from guiderail.launch.report.runs import Run
from guiderail.rl.runs.record import About, Leg, RunRecord
from guiderail.rl.score.statistics import wilson


def run_of(folder: Path, kind: str, **about: Any) -> Run:
    leg = Leg(
        command=(), started=None, seconds=None, versions={}, commit=None, dirty=None, about=About.model_validate(about)
    )
    return Run(folder.name, folder, RunRecord(kind=kind, legs=(leg,)), {})


def turn(
    t: int, outcome: str, name: str | None = "click", at: tuple[float, float] | None = None, why: str = ""
) -> dict:
    said: dict[str, Any] | None = None if name is None else {"name": name, "label": name}
    if said is not None and at is not None:
        said["at"] = list(at)
    return {"t": t, "outcome": outcome, "said": said, "why": why, "tokens": 1}


def entry(key: str, *walks: list[dict], template: str = "a", generation: int | None = None, steps: int = 3) -> dict:
    expert = {"name": "click", "label": "click", "at": [0.5, 0.5]}
    step = {"image": f"{key}.png", "w": 10, "h": 20, "expert": expert, "boxes": []}
    ended = [("finished" if all(t["outcome"] == "e" for t in turns) else "mismatch") for turns in walks]
    rollouts = [
        {"sample": i, "ended": end, "success": None, "turns": turns}
        for i, (turns, end) in enumerate(zip(walks, ended, strict=True))
    ]
    head = {"key": key, "episode": key, "goal": key, "generation": generation, "signal": None, "live": False}
    return head | {"template": template, "steps": [step] * steps, "rollouts": rollouts}


RIGHT = [turn(0, "e"), turn(1, "e"), turn(2, "e")]
LATE = [turn(0, "e"), turn(1, "t", at=(0.1, 0.2), why="clicked 0.31 away from 'x'")]
EARLY = [turn(0, "u", None, why="unreadable: no block")]


def test_first_divergence_counts_walks():
    found = atlas.first_divergence([entry("1", RIGHT, LATE), entry("2", EARLY, LATE)])
    assert (found["never"], found["walks"]) == (1, 4)
    assert [(bar["label"], bar["n"]) for bar in found["bars"]] == [("0", 1), ("1", 2)]


def test_confusion_rows_add_up_to_the_turns():
    rows = atlas.confusion([entry("1", RIGHT, LATE, EARLY)])
    assert rows["columns"] == ["click", "unreadable"]
    (row,) = rows["rows"]
    assert [(cell["n"], cell["exact"]) for cell in row["cells"]] == [(5, 4), (1, 0)]
    assert row["cells"][1]["link"] == ("1", 2, 0)


def test_heat_map_puts_the_worst_template_first():
    found = atlas.template_steps([entry("1", RIGHT, template="good"), entry("2", EARLY, LATE, template="bad")])
    assert [row["template"] for row in found["rows"]] == ["bad", "good"]
    assert found["rows"][0]["cells"][0] == {"n": 2, "exact": 1, "link": ("2", 0, 0)}
    assert found["rows"][0]["cells"][2] is None


def test_failures_alike_but_for_numbers_and_names_share_a_cluster():
    other = [turn(0, "t", why="clicked 0.7 away from 'another \\' name'")]
    found = atlas.clusters([entry("1", LATE), entry("2", other), entry("3", EARLY)])
    assert [(c["n"], c["said"], c["gist"]) for c in found] == [
        (2, "click", "clicked # away from …"),
        (1, "unreadable", "unreadable: no block"),
    ]
    assert found[0]["links"] == [("1", 0, 1), ("2", 0, 0)]


def test_screens_collect_where_the_finger_went_wrong():
    (found,) = atlas.screens([entry("1", RIGHT, LATE, EARLY)])
    assert (found["n"], found["visits"], found["points"]) == (2, 6, [[0.1, 0.2]])


@pytest.mark.parametrize(("factor", "suspicious"), [(1.0, False), (0.77, True)])
def test_coordinates_of_another_size_are_noticed(factor, suspicious):
    entries = []
    for i in range(20):
        x, y = 0.1 + 0.04 * i, 0.9 - 0.04 * i
        one = entry(str(i), [turn(0, "t", at=(factor * x, factor * y))])
        one["steps"][0] |= {"expert": {"name": "click", "label": "click", "at": [x, y]}}
        entries.append(one)
    found = atlas.offsets(entries)
    assert ("scaled" in found["words"]) is suspicious
    assert found["scale"] == pytest.approx([factor, factor])


def test_before_and_after_counts_what_mended_and_broke():
    run = run_of(Path("r"), "sop")
    before = [entry("1", RIGHT), entry("2", LATE), entry("3", EARLY), entry("4", RIGHT)]
    after = [entry("1", RIGHT), entry("2", RIGHT), entry("3", LATE), entry("4", EARLY), entry("5", RIGHT)]
    found = compare((run, before), (run, after))
    assert found["counts"] == {"both": 1, "broken": 1, "mended": 1, "neither": 1}
    assert found["broken"][0]["after"] == ("4", 0, 0)
    assert found["words"][1].startswith("TSR 50.0 % → 50.0 %: +0.0 points")
    assert "p = 1; not distinguishable on 4" in found["words"][1]
    assert "1 tasks were scored in only one of the two" in found["words"][2]


def test_a_model_comes_after_the_one_it_was_trained_from(tmp_path):
    """Whichever was scored first; and what was sampled is not compared with what was greedy."""
    trained = [
        run_of(tmp_path / "rl", "train", config={"model": {"path": "base"}}),
        run_of(tmp_path / "more", "train", config={"model": {"path": str(tmp_path / "rl" / "model")}}),
    ]
    scored = [
        run_of(tmp_path / f"{name}-{heat}", "pocket", model=model, temperature=heat, world={"tasks": 9})
        for heat in (0.0, 1.0)
        for name, model in (
            ("c", str(tmp_path / "more" / "model")),
            ("b", str(tmp_path / "rl" / "model")),
            ("a", "base"),
        )
    ]
    runs = trained + scored
    pairs = [(runs[a].name, runs[b].name) for a, b in comparable(runs)]
    assert pairs == [(f"{a}-{heat}", f"{b}-{heat}") for heat in (0.0, 1.0) for a, b in ("ab", "ac", "bc")]


def test_a_shorter_run_over_the_same_live_tasks_is_compared(tmp_path):
    def live(name: str, tasks: Any) -> Run:
        return run_of(tmp_path / name, "pocket", model=name, seed=1, world={"name": "pocket", "tasks": tasks})

    assert comparable([live("a", 700), live("b", 300)]) == [(0, 1)]
    assert comparable([live("a", "one,two"), live("b", "three")]) == []


@pytest.mark.parametrize(
    ("name", "change", "same"),
    [
        ("pocket", {"tasks": 300, "device": "adb"}, True),
        ("pocket", {"style": "phone"}, False),
        ("miniwob", {"suite": "tiny"}, False),
        ("miniwob", {"max_steps": 5}, False),
        ("miniwob", {"seeds": 20}, True),
        ("android-world", {"task_seed": 31}, False),
        ("android-world", {"device": "pocket"}, False),
        ("android-world", {"emulator": {"console_port": 5556}}, True),
        ("mobilegym", {"language": "en"}, False),
        ("mobilegym", {"commit": "b"}, False),
        ("aitw", {"judge": {"server": "b", "folder": "b", "model": "m", "mode": "final"}}, True),
        ("aitw", {"judge": {"server": "a", "folder": "a", "model": "other", "mode": "final"}}, False),
    ],
)
def test_runs_in_one_world_are_compared_and_only_those(tmp_path, name, change, same):
    world = {
        "name": name,
        "tasks": 100,
        "style": "easy",
        "suite": "smoke",
        "seeds": 3,
        "max_steps": 30,
        "task_seed": 30,
    }
    world |= {"device": "emulator", "emulator": {"console_port": 5554}, "language": "zh", "commit": "a"}
    world |= {"judge": {"server": "a", "folder": "a", "model": "m", "mode": "final"}}
    runs = [run_of(tmp_path / str(i), name, seed=1, world=world | more) for i, more in enumerate(({}, change))]
    assert comparable(runs) == ([(0, 1)] if same else [])


def live_entry(key: str, *right: bool) -> dict:
    made = entry(key, *([turn(0, "l")] for _ in right)) | {"live": True, "steps": []}
    for rollout, success in zip(made["rollouts"], right, strict=True):
        rollout["success"] = success
    return made


def test_attempts_at_one_task_are_no_draws_of_their_own():
    """Two of three tasks mended, ten times each: McNemar's test over attempts would say p = 2e-06."""
    run = run_of(Path("r"), "pocket")
    before = [live_entry("a", *[False] * 10), live_entry("b", *[False] * 10), live_entry("c", *[True] * 10)]
    after = [live_entry("a", *[True] * 10), live_entry("b", *[True] * 10), live_entry("c", *[True] * 9)]
    found = compare((run, before), (run, after))
    assert found["counts"]["mended"] == 20
    assert found["cls"] == "same"
    assert "p = " not in found["words"][0]
    assert found["words"][0].endswith("; not distinguishable on 3")
    assert "on the same 3\u00a0tasks" in found["sentence"]
    assert found["words"][1] == "1 attempts at 1 tasks were scored in only one of the two and are left out"


def test_one_attempt_at_each_task_keeps_its_exact_test():
    run = run_of(Path("r"), "pocket")
    before, after = ([live_entry(str(k), right) for k in range(8)] for right in (False, True))
    found = compare((run, before), (run, after))
    assert found["words"][0].endswith("p = 0.0078; better on 8")


def test_intervals_of_repeated_attempts_are_over_tasks():
    once = [live_entry(str(k), k == 0) for k in range(4)]
    often = [live_entry(str(k), *[k == 0] * 25) for k in range(4)]
    run = run_of(Path("r"), "pocket")
    for entries, n in ((once, 4), (often, 100)):
        (far,), (row,) = headline(replace(run, metrics=None), entries), by_template(entries)
        assert (row["value"], row["n"], far["value"]) == (0.25, n, 0.25)
        for one in (far, row):
            if n == 4:
                assert (one["low"], one["high"]) == wilson(1, 4)
            else:
                assert one["high"] - one["low"] >= 0.5, "four tasks say little, however often they are tried"


def test_early_against_late_needs_three_generations():
    entries = [entry(str(g), RIGHT if g else EARLY, generation=g) for g in range(3)]
    assert early_late(entries[:2]) == []
    assert [(row["name"], row["before"], row["after"]) for row in early_late(entries)] == [
        ("click", 0.0, 1.0),
        ("every action", 0.0, 1.0),
    ]


def test_a_click_off_to_one_side_is_said_in_words():
    entries = [entry(str(i), [turn(0, "t", at=(0.53, 0.5))]) for i in range(3)]
    assert atlas.offsets(entries)["words"] == "the median click lands 3.0 % of the screen right of the expert's point"


def test_what_a_machine_crashed_is_neither_wrong_nor_right():
    crashed = entry("x", [turn(0, "e")], template="b")
    crashed["rollouts"][0]["ended"] = "crashed"
    entries = [entry("y", [turn(0, "e"), turn(1, "e")]), crashed]
    found = atlas.first_divergence(entries)
    assert (found["never"], found["walks"]) == (1, 1)
    assert [row["name"] for row in by_template(entries)] == ["a"]


@pytest.mark.parametrize("expert", [True, False])
def test_live_turns_that_nobody_judged_do_not_disagree(tmp_path, expert):
    run = run_of(tmp_path, "train", config={"online": {"expert": expert}, "method": {"algorithm": "online"}})
    attempts = live_entry("a@0", True, False) | {"generation": 3}
    for rollout in attempts["rollouts"]:
        rollout["turns"] = [turn(0, "e" if expert else "l")]
    found = [(row["name"], row["value"]) for row in headline(run, [attempts])]
    agreement = [
        (f"{what}, generation 3", 1.0) for what in ("Turns that agree with the expert", "Rollouts right to the end")
    ]
    assert found == agreement * expert + [("Live success, generation 3", 0.5)]
