"""Files of others, spoilt: every reader ends with a result, a SetupError, or a DataError that names its place."""

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.folder import one_episode, split_by, split_parts, stats
from guiderail.envs.imports.run import run_import
from guiderail.envs.imports.tfrecord import TFRecords, parse_example
from guiderail.envs.imports.uis1 import export_uis1
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.evaluate.rejudge import _answers
from guiderail.launch.report.pages import build as build_report
from guiderail.launch.submission import archive
from guiderail.launch.submission.board import board, pages
from guiderail.launch.submission.build import build
from guiderail.launch.submission.lint import lint
from guiderail.launch.submission.schema import Declarations
from guiderail.launch.submission.verify import MOST_PROBLEMS, verify
from guiderail.rl.runs.explain import explain, find
from guiderail.rl.runs.log import read_record, read_rollouts, reading
from guiderail.rl.score.profiles import PROFILES, rescore
from tests.envs.imports.public import example, record
from tests.fuzz.hostile import LONG, SHORT, fuzz, line, spoilt, torn
from tests.launch.submission.test_submission import live_run, sop_run

DECLARED = (SetupError, DataError)
OLD = Path(__file__).parents[1] / "data" / "version1"


def picture(width: int = 60, height: int = 120, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(file, kind)
    return file.getvalue()


def step(content: dict, name: str = "0.png", **more: Any) -> dict:
    return {"action_content": content, "screenshot": name, **more}


EPISODE = {
    "goal": "do it",
    "episode_id": 7,
    "split": "test",
    "subsplits": ["unseen"],
    "swipes": "inverted",
    "import": {"format": "uis1", "earlier": {"swipes": "finger"}},
    "steps": [
        step({"action": "click", "coordinate": [10, 20], "bbox": [5, 5, 30, 40]}, thought="why", box_origin="tree",
             check_options={"candidate_bbox": [[1, 2, 30, 40]]}, step_instruction="tap"),
        step({"action": "swipe", "coordinate": [30, 90], "coordinate2": [30, 20]}, "1.jpg", check_options={"direction": "down"}),
        step({"action": "type", "text": "hello"}),
        step({"action": "system_button", "button": "Back"}),
        step({"action": "long_press", "coordinate": [10, 20], "time": 2}),
        step({"action": "terminate", "status": "success"}),
    ],
}  # fmt: skip
ODYSSEY = {
    "episode_id": "e1",
    "device_info": {"device_name": "Pixel"},
    "task_info": {"instruction": "do it", "category": "x", "app": ["a"], "meta_task": "m"},
    "step_length": 3,
    "steps": [
        {"screenshot": "0.png", "action": "CLICK", "info": [[500, 500]], "sam2_bbox": [400, 400, 600, 600], "intention": "i"},
        {"screenshot": "1.jpg", "action": "SCROLL", "info": [[500, 800], [500, 200]]},
        {"screenshot": "0.png", "action": "TYPE", "info": "text"},
    ],
}  # fmt: skip
SPOT = [{"img_filename": "0.png", "bbox": [10, 20, 20, 30], "instruction": "there", "data_type": "icon", "data_source": "ios",
         "img_size": [60, 120], "id": "s1", "group": "Dev", "ui_type": "text"}]  # fmt: skip


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0.png").write_bytes(picture())
    (folder / "1.jpg").write_bytes(picture(kind="JPEG"))


def loader(folder: Path, data: bytes) -> None:
    pictures(folder)
    file = folder / "episodes.jsonl"
    file.write_bytes(data)
    for screen in (None, "infer", (60, 120)):
        for skip in (False, True):
            with suppress(*DECLARED):
                loaded = load_episodes(file, screen=screen, skip_bad=skip)
                for shot in (s.screenshot for e in loaded.episodes for s in e.steps if screen is None):
                    shot.image()
    for look in (stats, lambda f: one_episode(f, None), lambda f: one_episode(f, "7", "infer"),
                 lambda f: split_by(f, "split"), lambda f: split_parts(f, {"a": 0.5, "b": 0.5}),
                 lambda f: export_uis1(f, folder / "out.jsonl")):  # fmt: skip
        with suppress(*DECLARED):
            look(file)


def importer(name: str, folder: Path, data: bytes) -> None:
    pictures(folder / "screenshots")
    pictures(folder / "annotations")
    places = {"uis1": "annotations/a.jsonl", "odyssey": "annotations/0.json"}
    file = folder / places.get(name, "annotations/screenspot_mobile_v2.json")
    file.write_bytes(data)
    for number, options in enumerate((Options(), Options(skip_bad=True))):
        with suppress(*DECLARED):
            run_import(name, [file], folder / f"out{number}", options)


def tfrecord(name: str, folder: Path, data: bytes) -> None:
    file = folder / "android_control-00000-of-00020"
    file.write_bytes(data)
    for number, options in enumerate((Options(boxes=False), Options(check_crc=False, skip_bad=True, boxes=False))):
        with suppress(*DECLARED):
            run_import(name, [file], folder / f"out{number}", options)
    with suppress(*DECLARED):
        for payload in TFRecords(file, check=False):
            parse_example(payload, "f:1")


def bundle(folder: Path, data: bytes) -> None:
    (folder / "b.zip").write_bytes(data)
    with suppress(*DECLARED):
        checked = verify(folder / "b.zip")
        assert len(checked.problems) <= MOST_PROBLEMS
        lint(checked)
    assert not set("".join(pages(board(folder)).values())) & set("\x1b\x9b\u202e\0")


def run_folder(folder: Path, plots: bool = False) -> None:
    with suppress(*DECLARED):
        build(folder, Declarations())
    with suppress(*DECLARED), reading(folder):
        kind, answers, _ = _answers(folder, str(OLD / "data"), False)
        rescore(kind, answers, PROFILES["guiderail"])
    with suppress(*DECLARED):
        explained(folder)
    with suppress(*DECLARED):
        build_report([folder], folder.parent / "report", plots=plots)


def explained(folder: Path) -> None:
    from guiderail.rl.config import validated

    with reading(folder):
        record_ = read_record(folder)
        config = validated(record_.about.config or {}, folder / "run.json")
        first = next(read_rollouts(folder), None)
        if first is not None:
            row, rows = find(read_rollouts(folder), first["unit"], first["sample"], None, None)
            for turn in row["turns"]:
                explain(row, rows, turn["index"], config, record_.about.processes or 1)


# -------------------------------------------------------------------------------------------------------------- spoiling


def over(count: int, data: st.SearchStrategy[Any], check: Callable[[Path, Any], None]) -> None:
    @fuzz(count)
    @given(one=data)
    def run(one: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), one)

    run()


def lines(content: Any) -> st.SearchStrategy[bytes]:
    whole = line(content)
    return st.lists(spoilt(content).map(line) | st.just(whole) | torn(whole), min_size=1, max_size=3).map(b"".join)


def json_file(content: Any) -> st.SearchStrategy[bytes]:
    return spoilt(content).map(line) | torn(line(content))


def control_records() -> st.SearchStrategy[bytes]:
    actions = [{"action_type": "click", "x": 30, "y": 60}, {"action_type": "input_text", "text": "t"}]
    shots = [picture(), picture(kind="JPEG"), picture()]

    def made(actions: list[Any]) -> bytes:
        return example({"episode_id": [1], "goal": ["g"], "screenshots": shots, "step_instructions": ["a", "b"],
                        "actions": [json.dumps(one) for one in actions]})  # fmt: skip

    payload = made(actions)
    spoiled = torn(payload) | spoilt(actions).filter(lambda v: isinstance(v, list)).map(made)
    return spoiled.map(record) | torn(record(payload))


def aitw_records() -> st.SearchStrategy[bytes]:
    whole = {"episode_id": ["e"], "step_id": [0], "episode_length": [1], "goal_info": ["g"], "image/height": [4],
             "image/width": [2], "image/channels": [3], "image/encoded": [bytes(24)], "results/action_type": [4],
             "results/yx_touch": [0.1, 0.2], "results/yx_lift": [0.1, 0.2],
             "image/ui_annotations_positions": [0.1, 0.1, 0.5, 0.5]}  # fmt: skip
    nasty = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4) | st.lists(st.floats(width=32), max_size=4)
    nasty |= st.lists(st.binary(max_size=6), max_size=3)
    changed = st.dictionaries(st.sampled_from([*whole]), nasty, min_size=1, max_size=3)
    return (changed.map(lambda new: example(whole | new)) | torn(example(whole))).map(record)


@st.composite
def bundles(draw: st.DrawFn, members: dict[str, bytes]) -> bytes:
    """A bundle with spoilt contents, whose hashes fit; or spoilt bytes of one."""
    made = dict(members)
    if draw(st.booleans()):
        made[archive.MANIFEST] = json.dumps(draw(spoilt(json.loads(made[archive.MANIFEST])))).encode()
    if draw(st.booleans()):
        rows = [json.loads(text) for text in made[archive.ATTEMPTS].splitlines()]
        made[archive.ATTEMPTS] = b"".join(map(line, draw(spoilt(rows).filter(lambda v: isinstance(v, list)))))
    name = draw(st.sampled_from(sorted(made)))
    if draw(st.integers(0, 3)) == 0:
        made[name] = draw(torn(made[name]))
    if draw(st.integers(0, 3)):
        made[archive.SUMS] = archive.sums(archive.digests(made))
    whole = b"".join(archive.pieces(made))
    return draw(torn(whole)) if draw(st.integers(0, 3)) == 0 else whole


@st.composite
def run_files(draw: st.DrawFn, folder: Path) -> dict[str, bytes]:
    """The files of a run, one or two of them spoilt."""
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".json", ".jsonl") and p.is_file()}
    for name in draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True)):
        if name.endswith(".json"):
            files[name] = draw(json_file(json.loads(files[name])))
        else:
            rows = [json.loads(text) for text in files[name].splitlines()][:6]
            index = draw(st.integers(0, len(rows) - 1))
            texts = [*map(line, rows)]
            texts[index] = draw(spoilt(rows[index]).map(line) | torn(texts[index]))
            files[name] = b"".join(texts)
    return files


def runs(count: int, source: Path) -> None:
    def check(folder: Path, files: dict[str, bytes]) -> None:
        run = folder / "run"
        run.mkdir()
        for name, data in files.items():
            (run / name).write_bytes(data)
        run_folder(run)

    over(count, run_files(source), check)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    live = live_run(folder / "live", {"a": [True, True], "b": [True, False], "c": [False, None]})
    walks = sop_run(folder / "walks", {"1": (4, 4), "2": (1, 4)})
    for name in ("sop", "offline", "pocket", "rl"):
        shutil.copytree(OLD / name, folder / name)
    return {"live": live, "walks": walks} | {name: folder / name for name in ("sop", "offline", "pocket", "rl")}


CASES: dict[str, Callable[[int, dict[str, Path]], None]] = {
    "loader": lambda n, _: over(n, lines(EPISODE), loader),
    "uis1": lambda n, _: over(n, lines(EPISODE), lambda f, d: importer("uis1", f, d)),
    "odyssey": lambda n, _: over(n, json_file(ODYSSEY), lambda f, d: importer("odyssey", f, d)),
    "screenspot-v2": lambda n, _: over(n, json_file(SPOT), lambda f, d: importer("screenspot-v2", f, d)),
    "screenspot-pro": lambda n, _: over(n, json_file(SPOT), lambda f, d: importer("screenspot-pro", f, d)),
    "androidcontrol": lambda n, _: over(n, control_records(), lambda f, d: tfrecord("androidcontrol", f, d)),
    "aitw": lambda n, _: over(n, aitw_records(), lambda f, d: tfrecord("aitw", f, d)),
    "pictures": lambda n, _: over(n, torn(picture()) | torn(picture(kind="JPEG")) | torn(picture(kind="WEBP")), _decoded),
    "live bundle": lambda n, made: over(n, bundles(build(made["live"], Declarations())), bundle),
    "sop bundle": lambda n, made: over(n, bundles(build(made["walks"], Declarations())), bundle),
    "live run": lambda n, made: runs(n, made["live"]),
    "sop run": lambda n, made: runs(n, made["sop"]),
    "offline run": lambda n, made: runs(n, made["offline"]),
    "pocket run": lambda n, made: runs(n, made["pocket"]),
    "training run": lambda n, made: runs(n, made["rl"]),
}  # fmt: skip


def _decoded(_: Path, data: bytes) -> None:
    with suppress(DataError):
        Screenshot(60, 120, data=data).image()


@pytest.mark.parametrize("name", CASES)
def test_what_is_spoilt_is_named(name, made):
    CASES[name](5 if "run" in name else 10 if "bundle" in name else SHORT, made)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_spoilt_is_named_for_long(name, made):
    CASES[name](LONG // 10 if "run" in name else LONG // 2, made)
