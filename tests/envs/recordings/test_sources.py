"""Recordings by name: what is exported for the Hub, read as a folder, a Hub id or a `datasets` object, is the same episodes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from typer.testing import CliRunner  # noqa: E402

import guiderail as gr  # noqa: E402
from guiderail.agent.disk import locked  # noqa: E402
from guiderail.agent.errors import DataError, SetupError  # noqa: E402
from guiderail.envs.imports import parquet  # noqa: E402
from guiderail.envs.imports.run import run_import  # noqa: E402
from guiderail.envs.recordings import sources  # noqa: E402
from guiderail.launch.cli import app  # noqa: E402
from guiderail.launch.report.runs import discover, recording  # noqa: E402
from tests.envs.imports.public import png  # noqa: E402
from tests.fake_hub import running  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDERAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recordings"


LINES = [
    {
        "goal": "Buy milk.",
        "swipes": "finger",
        "import": {"swipes": "inverted", "format": "uis1"},
        "params": {"n": 1.5, "list": [1, "a", None]},
        "steps": [
            {
                "action_content": {"action": "click", "coordinate": [40.25, 50], "bbox": [30, 40, 60, 70]},
                "check_options": {"candidate_bbox": [[30, 40, 60, 70], [0, 0, 90, 90]]},
                "thought": "Da ist’s: 牛乳",
                "step_instruction": "Tap it.",
                "box_origin": "tree",
                "elements": [{"text": "x", "bbox": [1, 2, 3, 4]}],
            },
            {
                "action_content": {"action": "swipe", "coordinate": [50, 80], "coordinate2": [50, 20]},
                "check_options": {"direction": "down"},
                "import": {"screenshot": "old/name.png"},
            },
            {"action_content": {"action": "type", "text": 'milk \u2028 \\ "'}},
        ],
    },
    {
        "goal": "Wait.",
        "episode_id": 7,
        "swipes": "finger",
        "steps": [{"action_content": {"action": "wait", "time": 3}}],
    },
]


@pytest.fixture
def data(tmp_path):
    """Two episodes in a file whose name gives one of them its id; two screenshots of which are the same picture."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines = json.loads(json.dumps(LINES))
    for number, step in enumerate(step for line in lines for step in line["steps"]):
        (folder / "images" / f"{number}.png").write_bytes(png(100, 200, text=str(min(number, 2))))
        step["screenshot"] = f"images/{number}.png"
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    return folder / "mine.jsonl"


def compared(episodes):
    """Everything of the episodes but where their pictures are."""
    fields = ("action", "boxes", "thought", "instruction", "scroll_label", "box_origin", "exchanged")
    return [
        (
            episode.id,
            episode.goal,
            episode.meta,
            [
                (step.screenshot.digest, step.screenshot.width, *(getattr(step, name) for name in fields))
                for step in episode.steps
            ],
        )
        for episode in episodes
    ]


def test_what_is_exported_comes_back(data, tmp_path):
    before = compared(gr.load_episodes(data).episodes)
    assert before[0][3][1][-1] is True, "the swipe of the first episode was stored inverted by its source"
    told = gr.export(data, tmp_path / "hf", split="test")
    assert told == {"written": str(tmp_path / "hf"), "episodes": 2, "steps": 4, "files": 1}
    assert compared(gr.load_episodes(tmp_path / "hf").episodes) == before
    (file,) = (tmp_path / "hf" / "data").iterdir()
    assert file.name == "test-00000-of-00001.parquet"
    assert compared(gr.load_episodes(file).episodes) == before
    assert "split: test" in (tmp_path / "hf" / "README.md").read_text()
    run_import("uis1", [file], tmp_path / "imported")
    assert [e.id for e in gr.load_episodes(tmp_path / "imported").episodes] == ["mine-1", "7"]
    with pytest.raises(SetupError, match="not an empty folder"):
        gr.export(data, tmp_path / "hf")


def test_files_and_row_groups_are_bounded(data, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 1)
    monkeypatch.setattr(parquet, "SHARD", 1)
    assert gr.export(data, tmp_path / "hf")["files"] == 2
    assert compared(gr.load_episodes(tmp_path / "hf").episodes) == compared(gr.load_episodes(data).episodes)


def test_datasets_shows_the_pictures_and_is_read(data, tmp_path):
    datasets = pytest.importorskip("datasets")
    gr.export(data, tmp_path / "hf")
    table = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "arrow"))
    assert [picture.size for picture in table[0]["screenshots"]] == [(100, 200)] * 3
    expected = compared(gr.load_episodes(data).episodes)
    assert compared(gr.load_episodes(table).episodes) == expected
    assert compared(gr.load_episodes(table.to_iterable_dataset()).episodes) == expected
    assert len(gr.load_episodes(table.select([1])).episodes) == 1
    with pytest.raises(SetupError, match=r"the splits train; give one of them, as in data\['train'\]"):
        gr.load_episodes(datasets.DatasetDict(train=table))


def test_an_object_may_name_pictures_of_this_machine(data, tmp_path, cache):
    datasets = pytest.importorskip("datasets")
    rows = [
        {
            "goal": "g",
            "steps": ['{"action_content": {"action": "wait"}}'],
            "screenshots": [str(data.parent / "images/0.png")],
        }
    ]
    features = datasets.Features(
        {
            "goal": datasets.Value("string"),
            "steps": datasets.List(datasets.Value("string")),
            "screenshots": datasets.List(datasets.Image()),
        }
    )
    table = datasets.Dataset.from_list(rows, features)
    (episode,) = gr.load_episodes(table).episodes
    assert episode.steps[0].screenshot.encoded() == (data.parent / "images/0.png").read_bytes()
    gr.load_episodes(table)
    assert len(list(cache.iterdir())) == 1
    table.to_parquet(tmp_path / "named.parquet")
    with pytest.raises(DataError, match="a table that only names image files cannot be imported"):
        gr.load_episodes(tmp_path / "named.parquet")
    with pytest.raises(SetupError, match=r"recordings are list, expected a path, a Hub id or a datasets.Dataset"):
        gr.load_episodes(rows)


def written(path, rows):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def row(**changes):
    return {"goal": "g", "steps": ['{"action_content": {"action": "wait"}}'], "screenshots": [png()], **changes}


def test_rows_with_objects_as_steps(tmp_path):
    steps = [
        {
            "action_content": {"action": "click", "coordinate": [54.0, 60.5]},
            "screenshot": {"bytes": png(), "path": None},
        },
        {"action_content": {"action": "type", "text": "hi"}, "screenshot": {"bytes": png(text="1"), "path": None}},
    ]
    file = written(tmp_path / "a.parquet", [{"goal": "g", "steps": steps, "source": {"app": "shop"}}])
    (episode,) = gr.load_episodes(file).episodes
    assert [step.action.name for step in episode.steps] == ["click", "type"]
    assert episode.meta == {"source": {"app": "shop"}}


def test_a_split_is_chosen_by_name(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        written(tmp_path / "d" / f"{name}.parquet", [row(goal=name)])
    goals = [episode.goal for episode in gr.load_episodes(f"{tmp_path}/d:train").episodes]
    assert goals == ["train-00000-of-00002", "train-00001-of-00002"]
    with pytest.raises(
        SetupError, match="has several splits; its tables are test, train; add one to its name, as in NAME:train"
    ):
        gr.load_episodes(tmp_path / "d")
    with pytest.raises(SetupError, match="no split val; its tables are test, train"):
        gr.load_episodes(f"{tmp_path}/d:val")


BROKEN = [
    ({"goal": None}, "a.parquet:1: no column goal|goal is None"),
    ({"steps": []}, "a.parquet:1: steps is no list with at least one step"),
    ({"steps": ["{"]}, "a.parquet:1: step 0 is not JSON"),
    ({"steps": ["[]"]}, "a.parquet:1: step 0 is a JSON list, expected an object"),
    ({"steps": [1]}, "a.parquet:1: a step is neither an object nor the JSON text of one"),
    ({"screenshots": [png(), png()]}, "a.parquet:1: 2 screenshots for 1 steps"),
    ({"screenshots": [b"GIF89a"]}, "a.parquet:1 step 0: the screenshot cannot be decoded"),
    ({"screenshots": [{"bytes": None, "path": "/etc/hostname"}]}, "a.parquet:1 step 0: an image is neither bytes nor"),
    ({"meta": "3"}, "a.parquet:1: meta is a JSON int, expected an object"),
    ({"extra": b"\x00"}, "a.parquet:1: cannot be written as JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_broken_rows_are_named(tmp_path, change, message, cache):
    with pytest.raises(DataError, match=message):
        gr.load_episodes(written(tmp_path / "a.parquet", [row(**change)]))
    assert not list(cache.glob("*/episodes.jsonl")) or "goal" in message


def test_another_process_that_unpacks_is_waited_for(tmp_path, monkeypatch):
    file = written(tmp_path / "a.parquet", [row()])
    monkeypatch.setattr(sources, "WAIT", 0.1)
    kept = gr.load_episodes(file).episodes[0].steps[0].screenshot.path.parents[2]
    (kept / "episodes.jsonl").unlink()
    with locked(kept), pytest.raises(SetupError, match="is being written by another process"):
        sources.recordings_file(file)
    monkeypatch.setattr(sources, "WAIT", 20.0)
    found = []
    with locked(kept):
        thread = threading.Thread(target=lambda: found.append(sources.recordings_file(file)))
        thread.start()
        time.sleep(0.2)
        assert not found
    thread.join(20)
    assert found == [kept / "episodes.jsonl"]
    os.utime(file, (1, 1))
    assert sources.recordings_file(file) != found[0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("GUIDERAIL_CACHE", str(tmp_path / "full"))
    with pytest.raises(SetupError, match=r"cannot be written .*; set GUIDERAIL_CACHE=FOLDER"):
        gr.load_episodes(written(tmp_path / "a.parquet", [row()]))


CODE = """
import sys
import guiderail as gr
for name in sys.argv[1:]:
    try:
        print(name, [episode.goal for episode in gr.load_episodes(name).episodes])
    except gr.SetupError as error:
        print(name, error)
assert "torch" not in sys.modules
"""


def test_a_data_set_of_the_hub(data, tmp_path):
    """As parquet and as JSONL with pictures; then without the network, from what was downloaded."""
    gr.export(data, tmp_path / "hf")
    with running() as (hub, environment):
        for name, folder in (("me/screens", tmp_path / "hf"), ("me/lines", data.parent)):
            files = [path for path in folder.rglob("*") if path.is_file()]
            named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
            hub.repos[f"datasets/{name}"] = named
        environment = os.environ | environment | {"HF_HOME": str(tmp_path / "hub")}
        names = ["me/screens", "me/lines:mine", "me/none"]
        said = load(names, environment)
        assert said[0] == "me/screens ['Buy milk.', 'Wait.']"
        assert said[1] == "me/lines:mine ['Buy milk.', 'Wait.']"
        assert "no recorded episodes at me/none, and no data set of this name can be read from the Hub (404" in said[2]
        assert not [path for path in hub.asked if "README" in path]
        asked = len(hub.asked)
        offline = load(names, environment | {"HF_HUB_OFFLINE": "1"})
        assert offline[:2] == said[:2]
        assert "or unset HF_HUB_OFFLINE" in offline[2]
        assert len(hub.asked) == asked


def load(names, environment):
    done = subprocess.run([sys.executable, "-c", CODE, *names], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_path_that_does_not_exist_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("data/train", "nowhere", "a/b/c", "a/b.jsonl"):
        with pytest.raises(SetupError, match=f"no recorded episodes at {name}.*; give a .jsonl file"):
            gr.load_episodes(name)


def test_the_commands(data, tmp_path):
    def told(*words):
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    folder = str(tmp_path / "hf")
    assert told("data", "export", str(data), "--to", "hf", "--out", folder)["steps"] == 4
    assert told("data", "stats", folder)["actions"] == told("data", "stats", str(data))["actions"]
    assert told("gate", folder)["oracle"]["exact"] == 4
    wrong = CliRunner().invoke(app, ["data", "export", folder, "--to", "parquet", "--out", str(tmp_path / "x")])
    assert "expected uis1 or hf" in str(wrong.exception)


def test_a_report_finds_recordings_in_a_table(data, tmp_path):
    gr.export(data, tmp_path / "hf")
    words = ["evaluate", "sop", str(tmp_path / "hf"), "--agent", "random", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, words).exit_code == 0
    found = recording(discover([tmp_path / "run"])[0], None)
    assert (found.found, set(found.episodes)) == (True, {"mine-1", "7"})
    gone = tmp_path / "elsewhere"
    (tmp_path / "hf").rename(gone)
    assert "recording not found" in recording(discover([tmp_path / "run"])[0], None).state
    assert recording(discover([tmp_path / "run"])[0], str(gone)).found


def test_configurations_of_a_data_set_are_not_mixed(tmp_path):
    for name in ("en", "zh"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for part in range(2):
            written(tmp_path / "d" / name / f"train-{part:05d}-of-00002.parquet", [row(goal=f"{name} {part}")])
    with pytest.raises(SetupError, match="several splits; its tables are en/train, zh/train"):
        gr.load_episodes(tmp_path / "d")
    goals = [episode.goal for episode in gr.load_episodes(f"{tmp_path}/d:zh/train").episodes]
    assert goals == ["zh 0", "zh 1"]
