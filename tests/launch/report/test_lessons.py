"""What a teacher said, in the report: every lesson at its turn, bounded, and shown as text."""

import json
import math
from pathlib import Path

import pytest

from guiderail.agent.errors import DataError
from guiderail.launch.report import lessons
from tests.launch.report.browser import BROWSER, DRIVER, Browser
from tests.launch.report.conftest import EVIL
from tests.launch.report.synthetic import training_run


def put(file: Path) -> list:
    text = file.read_text(encoding="utf-8")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


def shown_lessons(run: Path, out: Path) -> list[tuple[str, int, dict]]:
    """(taught, shown or step; its number of tokens; the lesson) of every pointer in the report of one run."""
    from guiderail.launch.report.pages import build

    build([run], out, plots=False)
    found = []
    for file in (out / "data").glob("chunk-*.js"):
        for entry in put(file):
            pointers = [
                (kind, t[kind])
                for r in entry["rollouts"]
                for t in r["turns"]
                for kind in ("taught", "shown")
                if kind in t
            ]
            pointers += [("step", step["taught"]) for step in entry["steps"] if "taught" in step]
            found += [(kind, put(out / "data" / f"{name}.js")[place]) for kind, (name, place) in pointers]
    return [(kind, one["n"], one) for kind, one in found]


def token(text: str, student: float | None, teacher: float | None, best: str, best_p: float) -> dict:
    return {"text": text, "student": student, "teacher": teacher, "best": best, "best_p": best_p}


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A run whose turns have token ids; a lesson on each turn of the first line, one on an expert's answer after the same
    history, and one on an expert's answer of that recording."""
    folder = training_run(data, tmp_path / "run", generations=2, groups=2)
    rows = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    for number, row in enumerate(rows):
        for turn in row["turns"]:
            turn["token_ids"] = [number, turn["index"]]
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first = rows[0]
    where = {"generation": first["generation"], "unit": first["unit"]}
    said = [token("tap", 0.5, 0.25, "hold", 0.75), token(EVIL, 0.2, None, EVIL, 1.0)]
    written = [
        where | {"sample": first["sample"], "index": t["index"], "token_ids": t["token_ids"], "tokens": said}
        for t in first["turns"]
    ]
    written[0] |= {"answer": f"answer {EVIL}"}
    expert = [token("swipe", None, 0.125, "swipe", 0.125)]
    written += [where | {"sample": first["sample"], "index": 0, "token_ids": [9, 9, 9], "tokens": expert}]
    written += [where | {"sample": -1, "index": 0, "token_ids": [9, 9, 8], "tokens": expert * 500}]
    written += [
        where | {"unit": "an episode that nobody walked", "sample": -1, "index": 0, "token_ids": [], "tokens": []}
    ]
    (folder / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    return folder


def test_every_lesson_is_at_its_turn(run: Path, tmp_path: Path) -> None:
    turns = len(json.loads((run / "rollouts.jsonl").read_text(encoding="utf-8").split("\n")[0])["turns"])
    found = shown_lessons(run, tmp_path / "out")
    assert sorted((kind, n) for kind, n, _ in found) == sorted([("taught", 2)] * turns + [("shown", 1), ("step", 500)])
    answered = [one for _, _, one in found if "answer" in one]
    assert [one["answer"] for one in answered] == [f"answer {EVIL}"]
    assert answered[0]["tokens"] == [["tap", 0.5, 0.25, "hold", 0.75], [EVIL, 0.2, None, EVIL, 1.0]]
    assert len(next(one for kind, _, one in found if kind == "step")["tokens"]) == lessons.TOKENS
    for script in (tmp_path / "out").rglob("data/*.js"):
        assert not set(script.read_text(encoding="utf-8")) & set("<>&\u2028\u2029")
    index = (tmp_path / "out" / "data" / "index.js").read_text()
    assert index.count('"taught":true') == 1


def test_a_large_file_is_shown_of_every_second_generation(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "READ_BYTES", math.ceil((run / "lessons.jsonl").stat().st_size / 1.5))
    assert shown_lessons(run, tmp_path / "out") == []  # all are of generation 0, the last is 1
    assert "one generation in 2" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_a_broken_lesson_is_named_by_its_line(run: Path, tmp_path: Path) -> None:
    with (run / "lessons.jsonl").open("a") as file:
        file.write('{"generation": 0, "unit"')
    number = (run / "lessons.jsonl").read_text().count("\n") + 1
    with pytest.raises(DataError, match=rf"lessons.jsonl:{number}"):
        shown_lessons(run, tmp_path / "out")
    (run / "metrics.json").unlink()  # it is under way: what is whole is shown
    assert len(shown_lessons(run, tmp_path / "live")) > 2
    assert "read up to here" in (tmp_path / "live" / "index.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with chromedriver on this machine")
def test_taught_tokens_in_the_viewer(run: Path, tmp_path: Path) -> None:
    shown_lessons(run, tmp_path / "out")
    first = json.loads((run / "rollouts.jsonl").read_text(encoding="utf-8").split("\n")[0])
    window = Browser(tmp_path / "profile", (390, 900))
    try:
        window.open(tmp_path / "out" / "walks.html")
        window.until("document.querySelector('.entries a')")
        key = json.dumps(f"{first['unit']}@{first['visit']}")
        window.run(f"location.hash = '#' + encodeURIComponent({key}) + '/{first['sample']}/0'")
        window.until("document.querySelectorAll('.taught p.tokens').length === 3")
        spans = "document.querySelectorAll('.taught p.tokens')[0].children"
        assert window.run(f"return {spans}[0].title") == (
            "student 0.500, teacher 0.250, log ratio −0.69; the teacher's choice: hold (0.750)"
        )
        assert window.run(f"return [{spans}[0].className, {spans}[1].className]") == ["b2", "unknown"]
        assert window.run(f"return {spans}[1].textContent") == EVIL
        assert window.run("return document.querySelector('.taught pre').textContent") == f"answer {EVIL}"
        window.run("document.querySelector('.taught summary').focus()")
        window.press(" ")  # the numbers are reached without a mouse
        cells = "[...document.querySelectorAll('.taught tbody tr')[0].children].map(c => c.textContent)"
        assert window.until(f"document.querySelector('.taught tbody') && {cells}") == [
            "0",
            "tap",
            "0.500",
            "0.250",
            "−0.69",
            "hold 0.750",
        ]
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert window.run(f"return {wide}") <= 0
        window.run(
            "const s = document.getElementById('outcome'); s.value = 'taught'; s.dispatchEvent(new Event('change'))"
        )
        assert window.run("return document.querySelectorAll('.entries li').length") == 1
        assert window.run("return window.hacked === undefined")
        assert window.messages() == []
    finally:
        window.close()
