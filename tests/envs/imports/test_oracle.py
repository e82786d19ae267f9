"""Every imported format through the oracle gate: each expert action said, read back and judged against itself."""

import json

import pytest

from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import FORMATS, run_import
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import oracle_gate
from tests.envs.imports.public import aitw, android_control, png, write_tfrecord
from tests.envs.imports.test_odyssey import annotation
from tests.envs.imports.test_screenspot import PRO, V2
from tests.envs.imports.test_uis1 import CLICK, DOWN, RIGHT, line


def androidcontrol(folder):
    write_tfrecord(folder / "android_control-00000-of-00001", [android_control(i) for i in range(3)])


def aitw_files(folder):
    kinds = [(4, (0.25, 0.5)), (4, (0.8, 0.5)), *((kind, (0.25, 0.5)) for kind in (3, 5, 6, 7, 10))]
    steps = [aitw("e", i, len(kinds), kind, lift=lift, text="rain") for i, (kind, lift) in enumerate(kinds)]
    write_tfrecord(folder / "general-00000-of-00001", steps)


def odyssey(folder):
    for name in ("annotations", "screenshots"):
        (folder / name).mkdir()
    (folder / "annotations" / "1.json").write_text(json.dumps(annotation()))
    for step in annotation()["steps"]:
        (folder / "screenshots" / step["screenshot"]).write_bytes(png(200, 400))


def screenspot(item):
    def write(folder):
        (folder / item["img_filename"]).parent.mkdir(exist_ok=True)
        (folder / item["img_filename"]).write_bytes(png(200, 400))
        (folder / "screenspot_items.json").write_text(json.dumps([item]))

    return write


def uis1(folder):
    (folder / "images").mkdir()
    source = line(*[DOWN] * 9, RIGHT, CLICK, {"action": "answer", "text": "42"}, {"action": "key", "text": "volume_up"})
    for step in source["steps"]:
        (folder / step["screenshot"]).write_bytes(png())
    (folder / "data.jsonl").write_text(json.dumps(source))


WRITERS = {
    "androidcontrol": androidcontrol,
    "aitw": aitw_files,
    "odyssey": odyssey,
    "screenspot-v2": screenspot(V2),
    "screenspot-pro": screenspot(PRO),
    "uis1": uis1,
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_passes_the_gate(tmp_path, dialogue, name):
    (tmp_path / "src").mkdir()
    WRITERS[name](tmp_path / "src")
    total = run_import(name, [tmp_path / "src"], tmp_path / "out", Options())
    data = load_episodes(tmp_path / "out")
    found = oracle_gate(data, dialogue)
    assert found["exact"] == found["steps"] == total["steps"] > 0
    assert (found["PG"], found["TSR"]) == (1.0, 1.0)
    assert data.swipes == "finger"
    assert sum(total["theirs"].values()) == total["steps"]
    known = {f"{row.theirs} -> {row.ours}" for row in FORMATS[name].actions}
    assert set(total["theirs"]) <= known
