"""ScreenSpot-v2 is xywh, ScreenSpot-Pro is xyxy; mixing them up must not go unnoticed."""

import json

import pytest

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Box
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.recordings.episodes import load_episodes
from tests.envs.imports.public import png

V2 = {
    "img_filename": "a.png",
    "bbox": [50, 100, 20, 40],
    "instruction": "close this",
    "data_type": "icon",
    "data_source": "ios",
}
PRO = {
    "id": "cad_7",
    "img_filename": "autocad/a.png",
    "img_size": [200, 400],
    "bbox": [50, 100, 70, 140],
    "instruction": "draw a line",
    "application": "autocad",
    "platform": "windows",
    "group": "CAD",
    "ui_type": "icon",
}


@pytest.fixture
def v2(tmp_path):
    def run(*items, name="screenspot_mobile_v2.json", kind="screenspot-v2", **options):
        (tmp_path / "v2" / "screenspotv2_image").mkdir(parents=True, exist_ok=True)
        (tmp_path / "v2" / "screenspotv2_image" / "a.png").write_bytes(png(200, 400))
        (tmp_path / "v2" / name).write_text(json.dumps(items))
        run_import(kind, [tmp_path / "v2"], tmp_path / "out", Options(**options))
        return load_episodes(tmp_path / "out").episodes

    return run


@pytest.fixture
def pro(tmp_path):
    def run(*items, kind="screenspot-pro", **options):
        (tmp_path / "pro" / "images" / "autocad").mkdir(parents=True, exist_ok=True)
        (tmp_path / "pro" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "pro" / "images" / "autocad" / "a.png").write_bytes(png(200, 400))
        (tmp_path / "pro" / "annotations" / "autocad_windows.json").write_text(json.dumps(items))
        run_import(kind, [tmp_path / "pro"], tmp_path / "out", Options(**options))
        return load_episodes(tmp_path / "out").episodes

    return run


def test_both_formats_mean_the_same_box(v2, pro, tmp_path):
    (a,) = v2(V2)
    (tmp_path / "out").rename(tmp_path / "out-v2")
    (b,) = pro(PRO)
    for episode in (a, b):
        (step,) = episode.steps
        assert {target.box for target in step.boxes} == {Box(0.25, 0.25, 0.35, 0.35)}
        assert (step.action.point.x, step.action.point.y) == pytest.approx((0.3, 0.3))
    assert (a.id, a.goal, a.meta["data_type"], a.meta["data_source"]) == (
        "screenspot_mobile_v2-1",
        "close this",
        "icon",
        "ios",
    )
    assert (b.id, b.meta["group"], b.meta["application"], b.meta["ui_type"]) == ("cad_7", "CAD", "autocad", "icon")
    line = json.loads((tmp_path / "out" / "episodes.jsonl").read_text())
    assert line["steps"][0]["box_origin"] == "annotation"


def test_pro_boxes_read_as_v2_are_noticed(v2, tmp_path):
    with pytest.raises(
        DataError, match=r":1: bbox \[150, 300, 190, 390\] is not \[x, y, width, height\].*screenspot-pro"
    ):
        v2({**V2, "bbox": [150, 300, 190, 390]})


def test_v2_boxes_read_as_pro_are_noticed(pro):
    with pytest.raises(DataError, match=r":1: bbox \[50, 100, 20, 40\] is not \[x1, y1, x2, y2\].*screenspot-v2"):
        pro({**PRO, "bbox": [50, 100, 20, 40]})


BROKEN = {
    "fractions": ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "looks like fractions"),
    "three": ({"bbox": [1, 2, 3]}, "expected four numbers"),
    "empty": ({"bbox": [50, 100, 0, 40]}, "is no"),
    "no goal": ({"instruction": None}, "instruction is None"),
    "blank goal": ({"instruction": "  "}, "goal is blank"),
    "no image": ({"img_filename": "b.png"}, "image b.png is in none of .*--images"),
    "outside": ({"img_filename": "../a.png"}, "leaves the folder"),
    "absolute": ({"img_filename": "/etc/a.png"}, "leaves the folder"),
    "nameless": ({"img_filename": 3}, "expected an object with img_filename"),
    "size": ({"img_size": [1, 2]}, "200x400, img_size says"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_item_is_named_and_nothing_is_published(v2, tmp_path, change, message):
    with pytest.raises(DataError, match=rf"screenspot_mobile_v2\.json:2: .*{message}"):
        v2(V2, {**V2, **change})
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


def test_splits_make_no_sense_here(v2):
    with pytest.raises(SetupError, match="without splits"):
        v2(V2, split="test")


def test_no_list(tmp_path):
    (tmp_path / "screenspot_web_v2.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="a JSON dict, expected a list"):
        run_import("screenspot-v2", [tmp_path], tmp_path / "out")
