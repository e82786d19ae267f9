"""Hugging Face tables on disk: parquet and Arrow, streamed."""

import base64
import json

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from guiderail.agent.errors import DataError  # noqa: E402
from guiderail.envs.imports.run import run_import  # noqa: E402
from guiderail.envs.recordings import tables  # noqa: E402
from guiderail.envs.recordings.episodes import load_episodes  # noqa: E402
from tests.envs.imports.public import ALL_ACTIONS, png  # noqa: E402


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def stream(path, rows):
    """As datasets.save_to_disk writes it."""
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def file(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def control(id_, **changes):
    return {
        "episode_id": id_,
        "goal": "Write a note",
        "screenshots_b64": [base64.b64encode(png(text=f"{id_}{i}")).decode() for i in range(len(ALL_ACTIONS) + 1)],
        "actions": [{"x": None, "y": None, "text": None, **action} for action in ALL_ACTIONS],
        "step_instructions": [f"do {i}" for i in range(len(ALL_ACTIONS))],
        **changes,
    }


@pytest.mark.parametrize(("write", "name"), [(parquet, "a.parquet"), (stream, "a.arrow"), (file, "b.arrow")])
def test_android_control_rows(tmp_path, write, name):
    path = write(tmp_path / name, [control(i) for i in range(40)])
    total = run_import("androidcontrol", [path], tmp_path / "out")
    assert (total["episodes"], total["steps"], total["boxes"]) == (40, 40 * 13, {})
    first = load_episodes(tmp_path / "out").episodes[0]
    names = ["open", "click", "long_press", *["swipe"] * 4, "type", "type", *["system_button"] * 2, "wait", "terminate"]
    assert [step.action.name for step in first.steps] == names


def test_actions_as_json_texts_and_images_as_cells(tmp_path):
    cells = [{"bytes": png(text=str(i)), "path": None} for i in range(2)]
    row = control(
        1, screenshots_b64=None, screenshots=cells, actions=[json.dumps(ALL_ACTIONS[1])], step_instructions=["x"]
    )
    run_import("androidcontrol", [parquet(tmp_path / "a.parquet", [row])], tmp_path / "out")
    assert load_episodes(tmp_path / "out").episodes[0].steps[0].action.name == "click"


def test_an_instruction_that_is_null_is_none(tmp_path):
    row = control(1, step_instructions=[None, *("x" for _ in ALL_ACTIONS[1:])])
    run_import("androidcontrol", [parquet(tmp_path / "a.parquet", [row])], tmp_path / "out")
    assert [step.instruction for step in load_episodes(tmp_path / "out").episodes[0].steps[:2]] == [None, "x"]


def test_screenspot_rows(tmp_path):
    row = {"image": {"bytes": png(200, 400), "path": "a.png"}, "bbox": [50, 100, 20, 40], "instruction": "close",
           "data_type": "icon"}  # fmt: skip
    run_import("screenspot-v2", [parquet(tmp_path / "test.parquet", [row] * 3)], tmp_path / "out")
    episodes = load_episodes(tmp_path / "out").episodes
    assert [e.id for e in episodes] == ["test-1", "test-2", "test-3"]
    assert episodes[0].steps[0].action.point.y == pytest.approx(0.3)


def test_standard_rows(tmp_path):
    steps = [
        {
            "action_content": {"action": "click", "coordinate": [54.0, 60.5]},
            "screenshot": {"bytes": png(), "path": "0.png"},
        },
        {"action_content": {"action": "type", "text": "hi"}, "screenshot": {"bytes": png(text="1"), "path": "1.png"}},
    ]
    run_import("uis1", [parquet(tmp_path / "train.parquet", [{"goal": "g", "steps": steps}] * 2)], tmp_path / "out")
    line = json.loads((tmp_path / "out" / "episodes.jsonl").read_text().splitlines()[1])
    assert [s["action_content"] for s in line["steps"]] == [
        {"action": "click", "coordinate": [54.0, 60.5]},
        {"action": "type", "text": "hi"},
    ]
    assert line["episode_id"] == "train-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal": None}, ":1: no column goal; the row has"),
        ({"screenshots_b64": ["not base64!"] * 13}, ":1: an image is neither bytes nor base64"),
    ],
)
def test_broken_rows_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        run_import("androidcontrol", [parquet(tmp_path / "a.parquet", [control(1, **change)])], tmp_path / "out")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_that_is_cut_off_is_named(tmp_path, name):
    whole = (parquet if name.endswith("parquet") else stream)(tmp_path / name, [control(i) for i in range(3)])
    whole.write_bytes(whole.read_bytes()[:-4000])
    with pytest.raises(DataError, match=f"{name}:1: cannot be read as"):
        run_import("androidcontrol", [whole], tmp_path / "out")


@pytest.fixture
def small(monkeypatch):
    """Limits that a test need not fill with hundreds of megabytes."""
    monkeypatch.setattr(tables, "SMALL", 2**20)
    monkeypatch.setattr(tables, "MOST_TIMES", 10)
    monkeypatch.setattr(tables, "MOST_ROWS", 1000)


def test_a_small_parquet_file_cannot_expand_without_limit(tmp_path, small, monkeypatch):
    """A dictionary and run lengths store one value once, and the file says nothing of how often it comes."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"episode_id": ["x" * 10_000] * 500}), path)
    assert path.stat().st_size < 5_000
    with pytest.raises(
        DataError, match=r"a.parquet:97: the table has 1\d{6} bytes, at most 1048576 are read from a file"
    ):
        [*tables.rows(path)]
    monkeypatch.setattr(tables, "MOST_TIMES", 10_000)
    assert sum(1 for _ in tables.rows(path)) == 500


def test_a_parquet_file_that_says_it_is_large_is_refused_before_it_is_read(tmp_path, small, monkeypatch):
    path = tmp_path / "a.parquet"
    table = pa.table({"episode_id": ["x" * 10_000] * 500})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    with pytest.raises(DataError, match=r"a.parquet:1: the table has 5\d{6} bytes, at most 1048576 are read"):
        [*tables.rows(path)]


def test_a_parquet_file_has_at_most_so_many_rows(tmp_path, small):
    path = parquet(tmp_path / "a.parquet", [{"n": None}] * 1001)
    with pytest.raises(DataError, match=r"a.parquet:1: the table has 1001 rows, at most 1000 are read"):
        [*tables.rows(path)]
