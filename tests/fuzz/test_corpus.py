"""Every input that once hung, crashed or was believed (tests/data/hostile, named after its defect), and those that are made here
because they are links, pipes, or large."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.errors import DataError, GuiderailError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import printable
from guiderail.envs.imports import tfrecord
from guiderail.envs.imports.draft import Options, encoded
from guiderail.envs.imports.folder import one_episode, stats
from guiderail.envs.imports.run import run_import
from guiderail.envs.imports.tfrecord import TFRecords, parse_example
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch import cli
from guiderail.rl.runs.log import read_json, read_record, read_rollouts
from tests.envs.imports.public import crc32c, example, feature, masked, message
from tests.fuzz.test_files import EPISODE, ODYSSEY, importer, line, loader, pictures, run_folder, step
from tests.fuzz.test_texts import DIALECTS, read_answer, read_text

CORPUS = Path(__file__).parents[1] / "data" / "hostile"


def files(kind: str) -> list[Path]:
    return sorted((CORPUS / kind).iterdir())


@pytest.mark.parametrize("file", files("episodes"), ids=lambda f: f.stem)
def test_episodes_and_their_import(tmp_path, file):
    loader(tmp_path / "load", file.read_bytes())
    importer("uis1", tmp_path / "import", file.read_bytes())


@pytest.mark.parametrize("file", files("odyssey"), ids=lambda f: f.stem)
def test_odyssey(tmp_path, file):
    importer("odyssey", tmp_path, file.read_bytes())


@pytest.mark.parametrize("file", files("screenspot"), ids=lambda f: f.stem)
def test_screenspot(tmp_path, file):
    importer("screenspot-v2", tmp_path, file.read_bytes())


@pytest.mark.parametrize("file", files("answers"), ids=lambda f: f.stem)
def test_answers_of_servers(file):
    read_answer(file.read_bytes())


@pytest.mark.parametrize("file", files("texts"), ids=lambda f: f.stem)
def test_texts_of_models(file):
    for name in DIALECTS:
        read_text(name, file.read_text("utf-8", "surrogateescape"))


@pytest.mark.parametrize("folder", files("runs"), ids=lambda f: f.name)
def test_run_folders(tmp_path, folder):
    run = tmp_path / "run"
    run.mkdir()
    for file in folder.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    run_folder(run)
    with pytest.raises(GuiderailError):
        read_all(run)


def read_all(run: Path) -> None:
    read_record(run)
    read_json(run / "metrics.json")
    list(read_rollouts(run))


# --------------------------------------------------------------------------------------------------------------- pictures

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 120\n%%EndComments\nshowpage\n%%EOF\n"
DDS = b"DDS " + struct.pack("<I", 124) + bytes(120)


@pytest.mark.parametrize(
    "data", [EPS, DDS, b"P6 60 120 255\n" + bytes(21600), b"II*\0" + bytes(40)], ids=["eps", "dds", "ppm", "tiff"]
)
def test_pictures_of_other_formats_start_no_other_program(tmp_path, data, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail(f"started {a}"))
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail(f"started {a}"))
    with pytest.raises(DataError, match="it is not a PNG, JPEG, WEBP or GIF image"):
        Screenshot(60, 120, data=data).image()
    with pytest.raises(DataError, match="it is not a PNG, JPEG, WEBP or GIF image"):
        encoded(data, "f:1")
    (tmp_path / "0.png").write_bytes(data)
    (tmp_path / "episodes.jsonl").write_bytes(line({"goal": "g", "steps": [step({"action": "wait"})]}))
    with pytest.raises(DataError, match="it is not a PNG or JPEG image"):
        load_episodes(tmp_path)


def test_a_pipe_as_screenshot_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "episodes.jsonl").write_bytes(line({"goal": "g", "steps": [step({"action": "wait"})]}))
    with pytest.raises(DataError, match=r"0\.png cannot be read: not a regular file"):
        load_episodes(tmp_path)
    with pytest.raises(SetupError, match="has no image"):
        Screenshot(60, 120, tmp_path / "0.png").image()
    (tmp_path / "0.json").write_bytes(json.dumps(ODYSSEY).encode())
    with pytest.raises(DataError, match="cannot be read: not a regular file"):
        run_import("odyssey", [tmp_path / "0.json"], tmp_path / "out", Options(images=tmp_path))


def test_a_file_too_large_for_a_screenshot_is_not_read(tmp_path):
    with (tmp_path / "0.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="1099511627776 bytes, at most 67108864 are allowed"):
        Screenshot(60, 120, tmp_path / "0.png").image()


# ------------------------------------------------------------------------------------------------------------------ places


@pytest.mark.parametrize("how", ["file", "folder"])
def test_links_do_not_lead_out_of_the_data(tmp_path, how):
    pictures(tmp_path / "private")
    data = tmp_path / "data"
    data.mkdir()
    name = "0.png" if how == "file" else "images/0.png"
    (data / name.split("/")[0]).symlink_to(tmp_path / "private" / ("0.png" if how == "file" else ""))
    (data / "episodes.jsonl").write_bytes(line({"goal": "g", "steps": [step({"action": "wait"}, name)]}))
    with pytest.raises(DataError, match="link that leaves the folder of the data"):
        load_episodes(data)
    with pytest.raises(
        DataError, match="not in the folder of the data, and is not copied; name its folder with --images"
    ):
        run_import("uis1", [data], tmp_path / "out")


def test_the_links_of_a_hub_cache_are_followed(tmp_path):
    pictures(tmp_path / "datasets--x" / "blobs")
    data = tmp_path / "datasets--x" / "snapshots" / "abc"
    data.mkdir(parents=True)
    (data / "0.png").symlink_to("../../blobs/0.png")
    (data / "episodes.jsonl").write_bytes(line({"goal": "g", "steps": [step({"action": "wait"})]}))
    assert load_episodes(data).episodes[0].steps[0].screenshot.width == 60


def test_a_picture_named_by_its_absolute_path_is_not_copied(tmp_path):
    pictures(tmp_path / "private")
    data = tmp_path / "data"
    pictures(data)
    named = str(tmp_path / "private" / "0.png")
    (data / "episodes.jsonl").write_bytes(line({"goal": "g", "steps": [step({"action": "wait"}, named)]}))
    assert load_episodes(data).episodes[0].steps[0].screenshot.path == Path(named)
    with pytest.raises(DataError, match="is not in the folder of the data, and is not copied"):
        run_import("uis1", [data], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))
    run_import("uis1", [data], tmp_path / "asked", Options(images=tmp_path / "private"))
    assert len(list((tmp_path / "asked").rglob("*.png"))) == 1


def test_a_shown_episode_stays_in_its_folder(tmp_path):
    pictures(tmp_path)
    (tmp_path / "data").mkdir()
    content = {"goal": "g", "swipes": "finger", "steps": [step({"action": "wait"}, "../0.png")]}
    (tmp_path / "data" / "episodes.jsonl").write_bytes(line(content))
    with pytest.raises(DataError, match="leaves the folder of the data"):
        one_episode(tmp_path / "data", None)


# ----------------------------------------------------------------------------------------------------------------- records


def test_a_record_that_expands_a_thousandfold_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_FREE", 2**20)
    length = struct.pack("<Q", 2**29 - 20)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = squeeze.compress(length + masked(length))
    for _ in range(30):
        data += squeeze.compress(bytes(2**20))
    (tmp_path / "a.tfrecord").write_bytes(data + squeeze.flush())
    assert (tmp_path / "a.tfrecord").stat().st_size < 40_000
    with pytest.raises(DataError, match="expands more than 64 times"):
        next(iter(TFRecords(tmp_path / "a.tfrecord")))


def test_a_plain_record_longer_than_its_file_is_not_allocated(tmp_path):
    length = struct.pack("<Q", 2**28)
    (tmp_path / "a.tfrecord").write_bytes(length + masked(length) + b"x" * 50)
    with pytest.raises(DataError, match="the file ends after 50 of"):
        next(iter(TFRecords(tmp_path / "a.tfrecord")))


@pytest.mark.parametrize("value", [b"", 1.0, 1], ids=["bytes", "floats", "integers"])
def test_a_record_of_very_many_values_is_not_built(value, monkeypatch):
    monkeypatch.setattr(tfrecord, "_MOST_VALUES", 2000)
    payload = message(1, message(1, message(1, b"x") + message(2, feature([value] * 2_001))))
    with pytest.raises(DataError, match="more than 2000 values"):
        parse_example(memoryview(payload), "f:1")
    assert len(parse_example(memoryview(example({"x": [value] * 1_900})), "f:1")["x"]) == 1_900


def test_checksums_of_large_records_are_those_of_the_whole():
    from guiderail.envs.imports.tfrecord import crc32c as ours

    data = bytes(range(256)) * 4096
    assert ours(data) == crc32c(data)


# ------------------------------------------------------------------------------------------------------------- last resort


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "uis1", "{data}", "--out", "{file}"], "is a file; give --out another name"),
        (["import", "uis1", "{data}", "--out", "{file}/x"], "is a file, or lies in one"),
        (["submit", "build", "{data}", "--out", "{file}/x.zip"], "run.json is not there"),
        (["submit", "verify", "{data}"], "no bundle at"),
        (["submit", "verify", "{long}"], "no bundle at"),
        (["data", "stats", "{long}"], "too long|no recorded episodes"),
        (["data", "export", "{data}", "--out", "{file}/x.jsonl"], "there is a file of this name"),
        (["data", "show", "{data}", "--out", "{data}"], "this is a folder; give a file"),
    ],
)
def test_what_the_system_says_of_a_path_is_one_line(tmp_path, words, said, monkeypatch, capfd):
    pictures(tmp_path / "data")
    (tmp_path / "data" / "episodes.jsonl").write_bytes(line(EPISODE))
    (tmp_path / "file").write_text("x")
    places = {"data": tmp_path / "data", "file": tmp_path / "file", "long": "/tmp/" + "x" * 5000}
    monkeypatch.setattr(sys, "argv", ["guiderail", *(word.format(**places) for word in words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = " ".join(capfd.readouterr().err.split())
    assert "Traceback" not in error
    assert any(part in error for part in said.split("|")), error


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capfd):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    pictures(tmp_path)
    (tmp_path / "episodes.jsonl").write_bytes(line(EPISODE))
    monkeypatch.setattr(sys, "argv", ["guiderail", "data", "show", str(tmp_path), "--out", "/dev/full"])
    monkeypatch.setattr(Image.Image, "save", lambda *_: Path("/dev/full").write_bytes(b"x" * 100_000))
    with pytest.raises(SystemExit):
        cli.main()
    assert "No space left on device" in capfd.readouterr().err


def test_statistics_count_what_is_odd(tmp_path):
    odd = EPISODE | {"split": ["x"], "subsplits": 5, "import": [1]}
    odd["steps"] = [step({"action": "click"}, "x" * 5000, check_options=[1]), step({"action": None}, "a\0b")]
    (tmp_path / "episodes.jsonl").write_bytes(line(odd))
    assert stats(tmp_path)["screenshots"] == {"distinct": 2, "missing": 2}
    assert CliRunner().invoke(cli.app, ["data", "stats", str(tmp_path)]).exit_code == 0


def test_text_that_steers_a_terminal_is_shown_as_a_mark():
    assert (
        printable("a\x1b[31m\u202eb\u200b\ud800\x9b c\n\u00e9\u4f60")
        == "a\ufffd[31m\ufffdb\ufffd\ufffd\ufffd c\n\u00e9\u4f60"
    )
