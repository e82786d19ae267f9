"""A bundle can be made twice, checked by anybody, and not be bent without the place being named."""

import contextlib
import errno
import hashlib
import io
import json
import shutil
import struct
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.disk import locked, write_pieces
from guiderail.agent.errors import DataError, GuiderailError, SetupError
from guiderail.agent.shipped import SHIPPED
from guiderail.envs.recordings.match import ALL_RULES, GUIDERAIL
from guiderail.launch.cli import app
from guiderail.launch.submission import archive
from guiderail.launch.submission.archive import Refused
from guiderail.launch.submission.board import board, pages
from guiderail.launch.submission.build import build
from guiderail.launch.submission.compare import compare
from guiderail.launch.submission.export import EXPORTS, SHEET, export
from guiderail.launch.submission.lint import board_of, lint
from guiderail.launch.submission.redact import Redactor
from guiderail.launch.submission.schema import Declarations, canonical
from guiderail.launch.submission.verify import verify
from guiderail.rl.live.score import live_score
from guiderail.rl.score.statistics import wilson


def png(colour: int, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def live_run(folder: Path, outcomes: dict[str, list[bool | None]], kind: str = "android-world", **record) -> Path:
    """A finished live run: task -> success per trial."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for task, trials in outcomes.items():
        for trial, success in enumerate(trials):
            shots = [png(len(rows)), png(100 + trial)]
            for shot in shots:
                (folder / "images" / f"{hashlib.sha256(shot).hexdigest()}.png").write_bytes(shot)
            turns = [
                {
                    "index": i,
                    "screenshot": hashlib.sha256(shot).hexdigest(),
                    "screen": [8, 8],
                    "text": f"<action>{task} {i}</action>",
                    "thought": None,
                    "action": {"action": "wait"},
                    "note": "",
                }
                for i, shot in enumerate(shots)
            ]
            ended = "crashed" if success is None else "finished" if success else "out_of_steps"
            reason = "adb died in /home/ann/emu/adb" if success is None else ""
            row = {"unit": task, "sample": trial, "ended": ended, "goal": f"do {task}", "reason": reason}
            row |= {"outcome": None if success is None else {"success": success, "checked_by": "state"}}
            rows.append(row | {"template": task.split("_")[0], "tries": 0, "turns": turns})
    scored = [row["outcome"]["success"] for row in rows if row["outcome"] is not None]
    about = {
        "model": "/home/ann/models/walker",
        "voice": {"dialect": "guiderail"},
        "seed": 3,
        "repeats": max(map(len, outcomes.values())),
        "world": {"name": kind, "max_steps": 10},
    }
    leg = {
        "command": ["evaluate", kind, "--model", "/home/ann/models/walker", "--token hf_abcdefghijklmnopqrstuv"],
        "started": "2026-01-02T03:04:05Z",
        "seconds": 61.5,
        "versions": {"python": "3.11"},
        "commit": "abc",
        "dirty": False,
        "about": about | record,
    }
    metrics = {"success": sum(scored) / len(scored) if scored else None, "n": len(scored)}
    write(folder, {"version": 2, "kind": kind, "legs": [leg]}, rows, metrics)
    return folder


def sop_run(folder: Path, matched: dict[str, tuple[int, int]], crashed: tuple[str, ...] = (), **record) -> Path:
    """A finished SOP run: episode -> (matched, steps)."""
    folder.mkdir()
    verdict = {"readable": True, "type_ok": True, "why": "x", "judgeable": True}
    rows = []
    for name, (right, steps) in matched.items():
        exact = [True] * right + [False] * (right < steps)
        turns = [
            {"index": i, "text": "a", "tokens": 5, "screen": [8, 8], "thought": None, "action": {"action": "wait"}}
            | {"verdict": verdict | {"exact": ok}}
            for i, ok in enumerate(exact)
        ]
        ended = "crashed" if name in crashed else "finished" if right == steps else "mismatch"
        rows.append({"unit": name, "sample": 0, "steps": steps, "ended": ended, "turns": turns})
    fine = [name for name in matched if name not in crashed]
    tsr = sum(matched[name][0] == matched[name][1] for name in fine) / len(fine)
    write(folder, recorded("sop", record), rows, {"TSR": tsr, "n": len(fine)})
    return folder


def offline_run(folder: Path, right: dict[str, list[bool]], **record) -> Path:
    """A finished run over single steps: episode -> whether each step was right."""
    folder.mkdir()
    turn = {"text": "a", "tokens": 5, "screen": [8, 8], "thought": None, "action": {"action": "wait"}}
    rows = []
    for name, steps in right.items():
        for i, ok in enumerate(steps):
            verdict = {"readable": True, "type_ok": True, "exact": ok, "why": "x"}
            row = {
                "unit": name,
                "start": i,
                "sample": 0,
                "steps": len(steps),
                "ended": "finished" if ok else "mismatch",
            }
            rows.append(row | {"turns": [turn | {"index": i, "verdict": verdict}]})
    every = [ok for steps in right.values() for ok in steps]
    write(folder, recorded("offline", record), rows, {"SR": sum(every) / len(every), "n": len(every)})
    return folder


def recorded(kind: str, about: dict) -> dict:
    """The record of a run along recordings."""
    about = {"model": "m", "voice": {"dialect": "guiderail"}, "seed": 0, "rules": asdict(GUIDERAIL)} | about
    about = {"data": {"path": "d", "digest": "0" * 64}} | about
    leg = dict.fromkeys(("started", "seconds", "commit", "dirty")) | {"command": [], "versions": {}, "about": about}
    return {"version": 2, "kind": kind, "legs": [leg]}


def write(folder: Path, record: dict, rows: list[dict], metrics: dict) -> None:
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text(json.dumps(metrics | {"unscored": len(rows) - metrics["n"]}))
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


OUTCOMES: dict[str, list[bool | None]] = {"a": [True, True], "b": [True, False], "c": [False, None]}


@pytest.fixture
def run(tmp_path) -> Path:
    return live_run(tmp_path / "run", OUTCOMES)


@pytest.fixture
def members(run) -> dict[str, bytes]:
    return build(run, Declarations())


def packed(tmp_path: Path, members: dict[str, bytes], name: str = "b.zip") -> Path:
    archive.write(tmp_path / name, members)
    return tmp_path / name


def problems(tmp_path: Path, members: dict[str, bytes], resum: bool = True) -> list[tuple[str, str]]:
    """What verify says of these members, packed like a bundle; resum: with SHA256SUMS made to fit, as a forger would."""
    if resum:
        members[archive.SUMS] = archive.sums(archive.digests(members))
    return [(p.place, p.what) for p in verify(packed(tmp_path, members)).problems]


# -------------------------------------------------------------------------------------------------------------- honest


def test_the_same_run_gives_the_same_bytes_and_verifies(tmp_path, run):
    first = packed(tmp_path, build(run, Declarations()), "1.zip")
    lines = (run / "rollouts.jsonl").read_text().splitlines(keepends=True)
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    (moved / "rollouts.jsonl").write_text("".join(reversed(lines)))
    second = packed(tmp_path, build(moved, Declarations()), "2.zip")
    assert first.read_bytes() == second.read_bytes()
    checked = verify(first)
    assert checked.problems == []
    assert zipfile.ZipFile(first).testzip() is None


def test_crashed_attempts_are_counted_both_ways(tmp_path, members):
    scores = verify(packed(tmp_path, members)).manifest.scores
    assert scores["success"] == 3 / 5
    assert scores["with_crashes_as_failures"] == 3 / 6
    assert (scores["n"], scores["unscored"]) == (5, 1)
    assert scores["mean_over_tasks"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["flip_rate"] == 0.5
    assert scores["pass_at"] == {"1": pytest.approx(0.5)}


def test_tasks_of_one_template_are_draws_from_it_as_in_the_run(tmp_path):
    outcomes = {f"{name}_{k}": [name == "A" or k == 0] for name in "AB" for k in range(10)}
    run = live_run(tmp_path / "run", outcomes)
    manifest = verify(packed(tmp_path, build(run, Declarations()))).manifest
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    found = live_score(rows, {row["unit"]: [f"task:{row['template']}"] for row in rows})
    assert manifest.scores["interval"] == list(found["interval"])
    assert manifest.scores["by_group"]["B"] == {"success": 0.1, "n": 10}
    assert found["interval"][1] - found["interval"][0] < 0.7 * (wilson(11, 20)[1] - wilson(11, 20)[0])


def test_sop_numbers_are_those_of_the_rows(tmp_path):
    run = sop_run(tmp_path / "run", {"1": (4, 4), "2": (1, 4), "3": (0, 2), "4": (2, 2)}, crashed=("4",))
    checked = verify(packed(tmp_path, build(run, Declarations())))
    assert checked.problems == []
    found = checked.manifest.scores
    assert found["PG"] == pytest.approx((1 + 0.25 + 0) / 3)
    assert found["TSR"] == pytest.approx(1 / 3)
    assert found["with_crashes_as_failures"] == 1 / 4
    assert found["tokens"] == 5 * found["turns"]


def test_secrets_and_paths_stay_at_home(tmp_path, members):
    everything = b"".join(members.values())
    assert b"/home/ann" not in everything
    assert b"hf_abcdef" not in everything
    manifest = verify(packed(tmp_path, members)).manifest
    assert manifest.name == ".../walker"
    assert manifest.redactions == {"paths": 4, "secrets": 1}
    cleaner = Redactor()
    assert (
        cleaner.secrets("open /sdcard/Download, key sk-proj-abcdefghijklmnopqrst")
        == "open /sdcard/Download, key [redacted]"
    )
    assert cleaner.everything("at C:\\Users\\ann\\run\\x.py") == "at .../x.py"
    assert (
        cleaner.everything("https://bob:hunter2@host/v1 and /sdcard/Music")
        == "https://[redacted]@host/v1 and /sdcard/Music"
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("file:///home/ann/x", "file://.../x"),
        ("file://localhost/home/ann/x", "file://localhost.../x"),
        ("open:/home/ann/x", "open:.../x"),
        ("PYTHONPATH=/a:/home/ann/lib", "PYTHONPATH=/a:.../lib"),
        ("http://host:8000/v1/models and HTTPS://host/a/b", "http://host:8000/v1/models and HTTPS://host/a/b"),
        ("pull:/sdcard/Music/a.mp3", "pull:/sdcard/Music/a.mp3"),
    ],
)
def test_a_path_behind_a_colon_is_one_and_a_url_is_none(text, cleaned):
    assert Redactor().everything(text) == cleaned


def test_a_signature_binds_key_and_contents(tmp_path, run):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    members = build(run, Declarations(), key=tmp_path / "key.pem")
    assert verify(packed(tmp_path, members)).signed_by == key.public_key().public_bytes_raw().hex()
    manifest = json.loads(members[archive.MANIFEST])
    manifest["declarations"]["notes"] = "better than it is"
    forged = members | {archive.MANIFEST: json.dumps(manifest).encode()}
    assert problems(tmp_path, forged)[0][0] == archive.SIGNATURE
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(SetupError, match="openssl genpkey"):
        build(run, Declarations(), key=tmp_path / "key.pem")


def test_a_run_whose_number_is_not_its_rows_is_not_bundled(run):
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"success": 0.9}))
    with pytest.raises(DataError, match=r"metrics.json:1: success is 0.9, its rollouts give 0.6"):
        build(run, Declarations())


def test_a_missing_screenshot_is_named(run):
    next((run / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="screenshot of a recorded turn is missing"):
        build(run, Declarations())


# ------------------------------------------------------------------------------------------------------ bent, and where


def edited(members: dict[str, bytes], number: int, edit) -> dict[str, bytes]:
    lines = members[archive.ATTEMPTS].decode().splitlines()
    row = json.loads(lines[number - 1])
    edit(row)
    lines[number - 1] = canonical(row)
    return members | {archive.ATTEMPTS: ("\n".join(lines) + "\n").encode()}


def test_one_byte_of_a_screenshot(tmp_path, members):
    name = next(name for name in members if name.startswith("screenshots/"))
    bent = bytearray(members[name])
    bent[-20] ^= 1
    file = packed(tmp_path, members)
    raw = file.read_bytes()
    at = raw.index(members[name])
    file.write_bytes(raw[:at] + bytes(bent) + raw[at + len(bent) :])
    with pytest.raises(Refused, match=name):
        verify(file)
    found = problems(tmp_path, members | {name: bytes(bent)}, resum=False)
    assert {place for place, _ in found} == {name}
    assert problems(tmp_path, members | {name: bytes(bent)}) == [(name, "its bytes are not those its name stands for")]


def test_one_success_flag(tmp_path, members):
    bent = edited(members, 4, lambda row: row.update(outcome={"success": True}, ended="finished"))
    assert (archive.ATTEMPTS in {place for place, _ in problems(tmp_path, dict(bent), resum=False)}) is True
    found = dict(problems(tmp_path, bent))
    assert "'b' sample 1: edited" in found["attempts.jsonl:4"]
    assert found["manifest.json scores.success"] == "claimed 0.6, the attempts give 0.8"
    bent = edited(members, 4, lambda row: row.update(outcome={"success": True}))
    assert "it ended with out_of_steps" in dict(problems(tmp_path, bent))["attempts.jsonl:4 outcome"]
    bent = edited(members, 4, lambda row: row.update(outcome=None))
    assert "null exactly after a crash" in dict(problems(tmp_path, bent))["attempts.jsonl:4 outcome"]
    bent = edited(members, 6, lambda row: row.update(outcome={"success": False}))
    assert "null exactly after a crash" in dict(problems(tmp_path, bent))["attempts.jsonl:6 outcome"]


def test_one_success_flag_of_a_walk_contradicts_its_verdicts(tmp_path):
    members = build(sop_run(tmp_path / "run", {"1": (4, 4), "2": (1, 4)}), Declarations())
    bent = edited(members, 2, lambda row: row.update(outcome={"success": True}))
    found = dict(problems(tmp_path, bent))["attempts.jsonl:2 outcome"]
    assert "success is True; along a recording only the verdicts say, here False" in found


def test_one_seed(tmp_path, members):
    bent = edited(members, 2, lambda row: row.update(seed=4))
    assert dict(problems(tmp_path, bent))["attempts.jsonl:2 seed"] == "'a' sample 1: 4, the manifest declares 3"


@pytest.mark.parametrize("key", ["success", "n", "unscored", "with_crashes_as_failures", "mean_over_tasks", "turns"])
def test_one_total(tmp_path, members, key):
    manifest = json.loads(members[archive.MANIFEST])
    manifest["scores"][key] += 1
    bent = members | {archive.MANIFEST: json.dumps(manifest).encode()}
    assert [place for place, _ in problems(tmp_path, bent)] == [f"manifest.json scores.{key}"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"exact": True, "type_ok": False}, "turn 1 is exact without type_ok"),
        ({"readable": False}, "turn 1 has type_ok without readable"),
        ({}, "turn 1 is readable with action null"),
    ],
)
def test_a_verdict_that_no_rules_give(tmp_path, change, what):
    members = build(sop_run(tmp_path / "run", {"1": (1, 4)}), Declarations())

    def edit(row: dict) -> None:
        row["turns"][1]["verdict"].update(change)
        row["turns"][1]["action"] = {"action": "wait"} if change else None

    assert what in dict(problems(tmp_path, edited(members, 1, edit)))["attempts.jsonl:1 outcome"]


def test_loose_rules_read_an_answer_without_an_action(tmp_path):
    rules = asdict(ALL_RULES.find("uis1-released-sop"))
    run = sop_run(tmp_path / "run", {"1": (1, 4)}, rules=rules)
    lines = (run / "rollouts.jsonl").read_text()
    (run / "rollouts.jsonl").write_text(lines.replace('{"action": "wait"}', "null"))
    assert rules["loose"]
    assert verify(packed(tmp_path, build(run, Declarations()))).problems == []


def test_only_an_interval_may_be_near(tmp_path):
    """Whatever the submitter calls a group."""
    run = live_run(tmp_path / "run", {"interval_1": [True], "interval_2": [False]})
    members = build(run, Declarations())
    manifest = json.loads(members[archive.MANIFEST])
    manifest["scores"]["by_group"]["interval"]["success"] += 0.015
    manifest["scores"]["interval"][0] += 0.015
    bent = members | {archive.MANIFEST: json.dumps(manifest).encode()}
    assert [place for place, _ in problems(tmp_path, bent)] == ["manifest.json scores.by_group.interval.success"]


def test_an_attempt_left_out_or_made_twice(tmp_path, members):
    lines = members[archive.ATTEMPTS].decode().splitlines(keepends=True)
    short = members | {archive.ATTEMPTS: "".join(lines[1:]).encode()}
    assert ("attempts.jsonl", "no attempt at 'a' sample 0, which is declared") in problems(tmp_path, short)
    twice = members | {archive.ATTEMPTS: "".join([lines[0], *lines]).encode()}
    assert ("attempts.jsonl:2", "second attempt at 'a' sample 0") in problems(tmp_path, twice)


def test_more_turns_than_the_budget(tmp_path, members):
    bent = edited(members, 1, lambda row: row.update(budget=1))
    assert "2 turns, the budget is 1" in dict(problems(tmp_path, bent))["attempts.jsonl:1 turns"]


def test_steps_and_samples_cannot_be_renumbered(tmp_path, members):
    bent = edited(members, 1, lambda row: row.update(start=0))
    found = dict(problems(tmp_path, bent))
    assert "only a single step of a recording has a start" in found["attempts.jsonl:1 start"]
    assert "'a/0' sample 0 is not declared" in " ".join(what for _, what in problems(tmp_path, bent))
    bent = edited(members, 1, lambda row: row["turns"][1].update(index=5))
    assert "turns are not numbered 0, 1, 2" in dict(problems(tmp_path, bent))["attempts.jsonl:1 turns"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"outcome": {"success": 1}}, "outcome.success: Input should be a valid boolean"),
        ({"outcome": {"success": True, "progress": 1.5}}, "outcome.progress: Input should be less than or equal to 1"),
        ({"outcome": {"success": True, "checked_by": "me"}}, "outcome.checked_by: Input should be 'state'"),
        ({"outcome": {"success": True, "bonus": 1}}, "outcome.bonus: Extra inputs are not permitted"),
        ({"ended": "won"}, "ended: Input should be 'finished'"),
        ({"sample": -1}, "sample: Input should be greater than or equal to 0"),
        ({"unit": "u" * 1001}, "unit: String should have at most 1000 characters"),
        ({"success": True}, "success: Extra inputs are not permitted"),
    ],
)
def test_a_line_is_held_to_its_schema(tmp_path, members, change, what):
    bent = edited(members, 1, lambda row: row.update(change))
    assert any(place == "attempts.jsonl:1" and what in said for place, said in problems(tmp_path, bent))


def test_a_number_beyond_floats_is_no_progress(tmp_path, members):
    line = members[archive.ATTEMPTS].replace(b'"progress":null', b'"progress":1e999', 1)
    assert line != members[archive.ATTEMPTS]
    found = dict(problems(tmp_path, members | {archive.ATTEMPTS: line}))
    assert "1e999 is too large a number" in found["attempts.jsonl:1"]


def test_local_changes_and_legs_are_told(tmp_path):
    run = live_run(tmp_path / "run", OUTCOMES)
    record = json.loads((run / "run.json").read_text())
    (leg,) = record["legs"]
    for second, commit, said in (
        ({"dirty": True}, "abc", "local changes"),
        ({"commit": "def"}, None, "no source commit"),
    ):
        (run / "run.json").write_text(json.dumps(record | {"legs": [leg | {"seconds": None}, leg | second]}))
        checked = verify(packed(tmp_path, build(run, Declarations())))
        assert checked.manifest.provenance["commit"] == commit
        assert [one["seconds"] for one in checked.manifest.provenance["legs"]] == [None, 61.5]
        assert said in "\n".join(lint(checked))


@pytest.mark.parametrize("model", ["tiny-sft", None])
def test_the_weights_of_a_shipped_model_are_hashed_and_of_no_model_nothing(tmp_path, monkeypatch, model):
    (tmp_path / "model.safetensors").write_bytes(b"a file beside the command, no model of this run")
    monkeypatch.chdir(tmp_path)
    checked = verify(packed(tmp_path, build(live_run(tmp_path / "run", OUTCOMES, model=model), Declarations())))
    found = checked.manifest.provenance["weights"]
    if model is None:
        assert found is None
    else:
        weights = (SHIPPED[model] / "model.safetensors").read_bytes()
        assert found["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert ("no weight hashes" in "\n".join(lint(checked))) == (model is None)


@pytest.mark.parametrize(
    "line", ['{"unit": 1}', "{", "[" * 100_000, '{"a":1,"a":2}', '{"seed":NaN}', "\udcff", "null", '{"turns":[{}]}']
)
def test_a_line_that_is_no_attempt(tmp_path, members, line):
    bent = members | {archive.ATTEMPTS: members[archive.ATTEMPTS] + line.encode("utf-8", "surrogateescape") + b"\n"}
    assert any(place == "attempts.jsonl:7" for place, _ in problems(tmp_path, bent))


# ------------------------------------------------------------------------------------------------------------- hostile


def zipped(path: Path, members: list[tuple[str, bytes]], **how) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = how.get("mode", 0o100644) << 16
            info.compress_type = how.get("compress", zipfile.ZIP_STORED)
            info.create_system = 3
            file.writestr(info, data)
    return path


def giant_png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


BAD_NAMES = ["../out.txt", "/abs.txt", "..\\out.txt", "C:\\out.txt", "screenshots/../../out.png", "manifest.json/",
             "screenshots/" + "A" * 64 + ".png", "screenshots/" + "a" * 64 + ".svg", "run.pkl"]  # fmt: skip


def hostile(kind: str, tmp_path: Path, members: dict[str, bytes]) -> Path:
    path, whole = tmp_path / "hostile.zip", sorted(members.items())
    if kind in BAD_NAMES:
        return zipped(path, [*whole, (kind, b"x")])
    if kind == "link":
        return zipped(path, whole, mode=0o120777)
    if kind == "device":
        return zipped(path, whole, mode=0o020666)
    if kind == "bomb":
        return zipped(path, [*whole[:-1], (whole[-1][0], b"\0" * 10_000_000)], compress=zipfile.ZIP_DEFLATED)
    if kind == "twice":
        with pytest.warns(UserWarning, match="Duplicate"):
            return zipped(path, [*whole, whole[0]])
    if kind == "missing":
        return zipped(path, whole[1:])
    if kind in PICTURES:
        data = {
            "giant": giant_png(200_000, 1),
            "large": giant_png(10_000, 10_000),
            "flat": giant_png(0, 5),
            "not a picture": b"GIF89a" * 20,
        }[kind]
        members = members | {f"screenshots/{hashlib.sha256(data).hexdigest()}.png": data}
        members[archive.SUMS] = archive.sums(archive.digests(members))
        archive.write(path, members)
        return path
    archive.write(path, members)
    raw = path.read_bytes()
    end = raw.rindex(b"PK\5\6")
    swapped = {
        "truncated": raw[: len(raw) // 2],
        "empty": b"",
        "no archive": b"hello" * 100,
        "prefix": b"#!/bin/sh\n" + raw,
        "suffix": raw + b"more",
        "comment": raw[:-2] + b"\2\0hi",
        "overlap": raw[: end + 16] + struct.pack("<I", 0) + raw[end + 20 :],
        "encrypted": raw.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
        "many": raw[: end + 8] + b"\xff\xff\xff\xff" + raw[end + 12 :],
        "nul in a name": raw.replace(b"SHA256SUMS", b"SHA256S\0MS"),
        "size lies": raw[:18] + b"\xff\xff\xff\x7f" + raw[22:],
    }
    path.write_bytes(swapped[kind])
    return path


PICTURES = ["giant", "large", "flat", "not a picture"]
REASONS = {
    "link": "not a plain file",
    "device": "not a plain file",
    "bomb": "compressed or encrypted",
    "encrypted": "compressed or encrypted",
    "twice": "named twice",
    "missing": "is missing",
    "suffix": "data after the end",
    "nul in a name": "no member of that name",
}
HOSTILE = [*BAD_NAMES, "link", "device", "bomb", "twice", "missing", *PICTURES, "truncated",
           "empty", "no archive", "prefix", "suffix", "comment", "overlap", "encrypted", "many", "nul in a name", "size lies"]  # fmt: skip


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused_and_nothing_is_written(tmp_path, members, kind, monkeypatch):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    path = hostile(kind, tmp_path / "in" / "deep", members)
    monkeypatch.chdir(tmp_path / "in" / "deep")
    before = files(tmp_path)
    if kind in PICTURES:
        assert any(place.startswith("screenshots/") and "no turn" not in what for place, what in
                   [(p.place, p.what) for p in verify(path).problems])  # fmt: skip
    else:
        with pytest.raises(Refused, match=REASONS.get(kind, "no member of that name" if kind in BAD_NAMES else None)):
            verify(path)
    result = CliRunner().invoke(app, ["submit", "verify", str(path)])
    assert result.exit_code != 0
    assert files(tmp_path) == before


def test_there_are_more_than_twenty_of_them():
    assert len(set(HOSTILE)) > 20


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(st.text(min_size=1, max_size=40), st.from_regex(r"(\.\./|/|\\|screenshots/)+[a-f0-9.]*(png)?")))
def test_no_name_but_a_bundles_own_gets_in(tmp_path, members, name):
    folder = tmp_path / "names"
    folder.mkdir(exist_ok=True)
    try:
        path = zipped(folder / "n.zip", [*sorted(members.items()), (name, b"x")])
    except (ValueError, UnicodeError):
        return
    with pytest.raises(Refused):
        verify(path)
    assert [p.name for p in folder.iterdir()] == ["n.zip"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_no_single_bit_can_change_unnoticed(tmp_path, members, place, bit):
    file = packed(tmp_path, members, "bit.zip")
    raw = bytearray(file.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    file.write_bytes(raw)
    with contextlib.suppress(Refused):
        assert verify(file).problems


# ------------------------------------------------------------------------------------------- lint, export, compare, board


def checked(tmp_path: Path, name: str, outcomes, declared: Declarations | None = None, **record):
    run = live_run(tmp_path / name, outcomes, **record)
    return verify(packed(tmp_path, build(run, declared or Declarations(), name), f"{name}.zip"))


def test_lint_asks_what_a_reader_would(tmp_path):
    one = checked(
        tmp_path, "one", {"a": [True], "b": [None]}, Declarations(best_of=8, human_help=True), temperature=0.7
    )
    said = "\n".join(lint(one, one.screenshots))
    for expected in (
        "subset of tasks: 2 of 116",
        "best of 8 is not pass@1",
        "single trial per task",
        "declared: human help",
        "not declared: training on test tasks",
        "train/test overlap: 3 of 3",
        "1 of 2 attempts crashed",
        "no weight hashes",
        "temperature 0.7",
    ):
        assert expected in said
    manifest = one.manifest.model_copy(
        update={"provenance": one.manifest.provenance | {"judge": {"model": "m"}, "model": "m"}}
    )
    assert "judge equals policy" in "\n".join(lint(type(one)(**{**vars(one), "manifest": manifest})))


def test_export_for_the_android_world_sheet(tmp_path):
    one = checked(tmp_path, "=walker\t1", OUTCOMES)
    made = export(one, "android-world")
    head, row = (line.split("\t") for line in made["android_world.tsv"].splitlines())
    assert tuple(head) == SHEET
    cells = dict(zip(head, row, strict=True))
    assert cells["Success rate (pass@1)"] == "50.0"
    assert cells["Number of trials"] == "2"
    assert cells["Model"] == "'=walker 1"
    assert one.root in made["issue.md"]
    with pytest.raises(SetupError, match="BrowserGym takes results on miniwob"):
        export(one, "browsergym")


def test_export_for_the_other_boards(tmp_path):
    web = checked(tmp_path, "web", OUTCOMES, kind="miniwob")
    entry = json.loads(export(web, "browsergym")["miniwob.json"])[0]
    assert (entry["score"], entry["benchmark"], entry["reproducible"]) == (50.0, "MiniWoB", "No")
    text = export(web, "hf-eval")[".eval_results/miniwob.yaml"]
    assert "value: 60.0" in text
    table = export(web, "csv")["attempts.csv"].splitlines()
    assert len(table) == 7
    assert table[-1].startswith("c,1,3,,crashed,2,10,c,")
    assert set(EXPORTS) == {"android-world", "mobilegym", "screenspot-pro", "browsergym", "hf-eval", "csv"}


def test_export_for_screenspot_pro(tmp_path):
    folder = sop_run(tmp_path / "spot", {"1": (1, 1), "2": (0, 1), "3": (1, 1)})
    members = build(folder, Declarations(link="https://x"))
    for number, group in enumerate(("Dev text", "Dev icon", "OS text"), 1):
        members = edited(members, number, lambda row, group=group: row.update(group=group))
    manifest = json.loads(members[archive.MANIFEST]) | {"kind": "screenspot"}
    lines = members[archive.ATTEMPTS].splitlines()
    for claim, line in zip(manifest["attempts"], lines, strict=True):
        claim["sha256"] = hashlib.sha256(line).hexdigest()
    from guiderail.launch.submission.facts import facts
    from guiderail.launch.submission.schema import Attempt, parse
    from guiderail.launch.submission.scores import numbers

    manifest["scores"] = numbers("screenspot", [facts(parse(Attempt, line)) for line in lines], None)
    members[archive.MANIFEST] = json.dumps(manifest).encode()
    members[archive.SUMS] = archive.sums(archive.digests(members))
    made = export(verify(packed(tmp_path, members)), "screenspot-pro")
    results = json.loads(made["leaderboard.json"])["m"]["results"]
    assert results["group"] == {"Dev": {"text": 100.0, "icon": 0.0, "avg": 50.0}, "OS": {"text": 100.0, "avg": 100.0}}
    assert results["overall"] == {"text": 100.0, "icon": 0.0, "avg": 66.7}
    assert len(json.loads(made["raw_responses.json"])) == 3


def test_two_bundles_compared_in_words(tmp_path):
    tasks = [str(i) for i in range(20)]
    good = checked(tmp_path, "good", {t: [True] for t in tasks})
    bad = checked(tmp_path, "bad", {t: [int(t) < 8] for t in tasks})
    near = checked(tmp_path, "near", {t: [int(t) != 3] for t in tasks}, seed=9)
    found = compare(good, bad)
    assert found["distinguishable"]
    assert found["flip_rate"] == 0.6
    assert "the first is better: +60.0 points" in found["words"]
    assert compare(bad, good)["words"].startswith("the second is better")
    assert compare(good, near)["words"].startswith("not distinguishable")
    assert "the seeds differ" in compare(good, near)["words"]
    with pytest.raises(SetupError, match="no attempt is in both"):
        compare(good, checked(tmp_path, "other", {"x": [True]}))


def bundled(tmp_path: Path, run: Path):
    return verify(packed(tmp_path, build(run, Declarations()), f"{run.name}.zip"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"path": "d", "digest": "1" * 64}}, f"data.digest is '{'0' * 64}' in the first, '{'1' * 64}' in the second"),
        ({"rules": asdict(ALL_RULES.find("uis1-paper"))}, "rules.name is 'guiderail' in the first, 'uis1-paper'"),
        ({"rules": asdict(GUIDERAIL) | {"radius": 0.5}}, "rules.radius is '0.04' in the first, '0.5' in the second"),
    ],
)  # fmt: skip
def test_results_on_other_recordings_or_under_other_rules_are_not_compared(tmp_path, change, said):
    one = bundled(tmp_path, sop_run(tmp_path / "one", {"0": (1, 1)}))
    other = bundled(tmp_path, sop_run(tmp_path / "other", {"0": (1, 1)}, **change))
    with pytest.raises(SetupError) as error:
        compare(one, other)
    assert said in str(error.value)
    assert compare(one, one)["n"] == 1


@pytest.mark.parametrize(
    ("kind", "change", "same"),
    [
        ("android-world", {"task_seed": 31}, False),
        ("android-world", {"device": "pocket"}, False),
        ("android-world", {"combinations": 2}, True),
        ("pocket", {"split": "heldout"}, False),
        ("pocket", {"device": "adb"}, True),
        ("miniwob", {"max_steps": 5}, False),
        ("miniwob", {"seeds": 5}, True),
        ("aitw", {"judge": {"server": "b", "model": "m", "mode": "final"}}, True),
        ("aitw", {"judge": {"server": "a", "model": "m", "mode": "rubric"}}, False),
    ],
)
def test_results_in_other_worlds_are_not_compared(tmp_path, monkeypatch, kind, change, same):
    monkeypatch.setattr("guiderail.launch.submission.build._known", lambda record: {})
    world = {"name": kind, "task_seed": 30, "combinations": 1, "device": "emulator", "split": "test", "seeds": 3}
    world |= {"max_steps": 10, "judge": {"server": "a", "model": "m", "mode": "final"}}
    one, other = (
        checked(tmp_path, name, OUTCOMES, kind=kind, world=world | more)
        for name, more in (("one", {}), ("other", change))
    )
    if same:
        assert compare(one, other)["n"] == 5
    else:
        with pytest.raises(SetupError, match=next(iter(change))):
            compare(one, other)


def test_steps_of_one_episode_are_no_draws_of_their_own(tmp_path):
    """Twelve steps of two episodes: McNemar's test would say p = 2 / 2 ** 12."""
    good, bad = ({name: [ok] * 6 for name in "ab"} for ok in (True, False))
    found = compare(
        bundled(tmp_path, offline_run(tmp_path / "good", good | {"c": [True]})),
        bundled(tmp_path, offline_run(tmp_path / "bad", bad | {"c": [True]})),
    )
    assert (found["n"], found["p"]) == (13, None)
    assert found["interval"][0] == 0.0  # all three draws may be of c
    assert not found["distinguishable"]


@pytest.mark.parametrize(
    ("kind", "world", "name"),
    [
        ("pocket", {"split": "heldout", "style": "phone"}, "pocket heldout phone"),
        ("miniwob", {"suite": "tiny"}, "miniwob tiny"),
        ("miniwob", {}, "miniwob"),
        ("android-world", {"split": "x"}, "android-world"),
        ("mobilegym", {"split": "\ud800", "language": "zh"}, "mobilegym \ufffd zh"),
        ("pocket", {"split": "\ud800"}, "pocket \ufffd"),
    ],
)
def test_a_board_is_named_after_what_makes_results_comparable(tmp_path, monkeypatch, kind, world, name):
    monkeypatch.setattr("guiderail.launch.submission.build._known", lambda record: {})
    one = checked(tmp_path, "one", OUTCOMES, kind=kind, world={"name": kind})
    settings = {"settings": world}
    manifest = one.manifest.model_copy(update={"provenance": one.manifest.provenance | settings})
    assert board_of(type(one)(**{**vars(one), "manifest": manifest})) == name


def test_a_bundle_says_which_checkout_of_a_world_it_ran_on(tmp_path, monkeypatch):
    monkeypatch.setattr("guiderail.launch.submission.build._known", lambda record: {})
    world = {"name": "mobilegym", "commit": "0123abc", "without_data": ["maps"]}
    settings = checked(tmp_path, "one", OUTCOMES, kind="mobilegym", world=world).manifest.provenance["settings"]
    assert (settings["commit"], settings["without_data"]) == ("0123abc", ["maps"])


def test_a_board_of_recordings_is_named_after_data_and_rules(tmp_path):
    """The default rules are not named; changed ones do not stand beside those whose name they borrow."""
    rules = {"plain": asdict(GUIDERAIL), "paper": asdict(ALL_RULES.find("uis1-paper"))}
    rules["bent"] = rules["plain"] | {"radius": 0.5}
    made = {n: bundled(tmp_path, sop_run(tmp_path / n, {"0": (1, 1)}, rules=r)) for n, r in rules.items()}
    names = {n: board_of(one) for n, one in made.items()}
    assert (names["plain"], names["paper"]) == ("sop 00000000", "sop 00000000 uis1-paper")
    assert names["bent"].startswith("sop 00000000 guiderail ")
    assert [*board(tmp_path)["worlds"]] == sorted(names.values())


def test_a_board_ranks_what_verifies_and_escapes_what_it_shows(tmp_path):
    out = tmp_path / "bundles"
    out.mkdir()
    evil = "<script>alert(1)</script> | <img src=x onerror=y>"
    for name, outcomes in ((evil, {"a": [True]}), ("plain", {"a": [False]})):
        run = live_run(tmp_path / str(len(name)), outcomes)
        archive.write(out / f"{len(name)}.zip", build(run, Declarations(), name))
    (out / "broken.zip").write_bytes(b"no")
    bent = edited(build(tmp_path / "5", Declarations()), 1, lambda row: row.update(seed=8))
    bent[archive.SUMS] = archive.sums(archive.digests(bent))
    archive.write(out / "bent.zip", bent)
    content = board(out)
    assert [row["name"] for row in content["worlds"]["android-world"]] == [evil, "plain"]
    assert {row["file"] for row in content["refused"]} == {"broken.zip", "bent.zip"}
    made = pages(content)
    for name in ("index.html", "README.md"):
        assert "<script>" not in made[name]
        assert "<img" not in made[name]
        assert "not re-scored" in made[name]
    assert "&lt;script&gt;" in made["index.html"]
    assert str(tmp_path) not in "".join(made.values())
    assert json.loads(made["board.json"])["published"]["UI-S1-7B"]["TSR"] == 16.3


def test_the_published_rows_are_whole():
    from guiderail.launch.submission.published import published

    rows = published()
    assert len(rows) == 24
    assert rows["Qwen2.5VL-7B"] == {"PG": 17.4, "TSR": 9.8, "AITW-Gen": 49.0, "AITW-Web": 20.0, "MiniWob++": 54.0, "AndroidWorld": 22.0}  # fmt: skip
    assert rows["UI-TARS-7B"]["Odyssey SR"] == 87.0


def test_the_commands(tmp_path, run):
    def call(*words: object) -> dict:
        result = CliRunner().invoke(app, ["submit", *map(str, words), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    bundle = tmp_path / "out" / "b.zip"
    assert call("build", run, "--out", bundle, "--no-human-help", "--not-trained-on-test")["ok"]
    assert call("verify", bundle)["attempts"] == 6
    assert "not declared: human help" not in call("lint", bundle)["findings"]
    assert call("export", bundle, "--to", "csv", "--out", tmp_path / "csv")["files"] == [
        str(tmp_path / "csv/attempts.csv")
    ]
    assert call("compare", bundle, bundle)["flip_rate"] == 0
    assert call("board", bundle.parent, "--out", tmp_path / "board")["refused"] == []
    assert {p.name for p in (tmp_path / "board").iterdir()} == {"index.html", "README.md", "board.json"}
    unsigned = CliRunner().invoke(app, ["submit", "verify", str(bundle), "--key", "ab"])
    assert unsigned.exit_code == 1
    assert "not signed" in unsigned.output
    for words in (["verify", "nowhere.zip"], ["export", str(bundle), "--to", "csvv", "--out", "x"]):
        assert isinstance(CliRunner().invoke(app, ["submit", *words]).exception, GuiderailError)


def test_recordings_bring_their_screenshots_and_show_an_overlap(tmp_path):
    """A real SOP run of the expert on recorded Pocket episodes, bundled with and without its data."""
    pytest.importorskip("android_env")

    def call(*words: object) -> dict:
        result = CliRunner().invoke(app, [*map(str, words), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    data, run = tmp_path / "data", tmp_path / "run"
    call("record", "pocket", "--episodes", 2, "--out", data)
    call("evaluate", "sop", data, "--agent", "expert", "--out", run)
    plain, whole = tmp_path / "plain.zip", tmp_path / "whole.zip"
    assert call("submit", "build", run, "--out", plain)["screenshots"] == 0
    made = call("submit", "build", run, "--out", whole, "--data", data)
    assert made["screenshots"] > 5
    assert made["scores"]["TSR"] == 1
    assert "overlap" in "\n".join(call("submit", "lint", whole, "--train", data)["findings"])
    call("record", "pocket", "--episodes", 1, "--seed", 9, "--out", tmp_path / "other")
    wrong = CliRunner().invoke(
        app, ["submit", "build", str(run), "--out", str(plain), "--data", str(tmp_path / "other")]
    )
    assert "is not the data of this run" in str(wrong.exception)


def test_a_persons_help_is_no_part_of_an_evaluation(tmp_path, members):
    bent = edited(members, 1, lambda row: row["turns"][0].update(by="person"))
    assert "an evaluation is the agent's alone" in dict(problems(tmp_path, bent))["attempts.jsonl:1 outcome"]


def test_a_run_that_is_being_written_is_not_bundled(tmp_path, run):
    with locked(run):
        said = CliRunner().invoke(app, ["submit", "build", str(run), "--out", str(tmp_path / "b.zip")]).exception
    assert f"{run} is being written by another process" in str(said)
    assert not (tmp_path / "b.zip").exists()


def test_a_bundle_is_there_whole_or_not_at_all(tmp_path, run, monkeypatch):
    def full(path, pieces):
        def torn():
            yield next(iter(pieces))
            raise OSError(errno.ENOSPC, "No space left on device")

        write_pieces(path, torn())

    monkeypatch.setattr(archive, "write_pieces", full)
    said = CliRunner().invoke(app, ["submit", "build", str(run), "--out", str(tmp_path / "new" / "b.zip")]).exception
    assert "no space left on the disk" in str(said)
    assert list((tmp_path / "new").iterdir()) == []


def test_folders_are_written_by_one_process_and_each_command_says_the_next(tmp_path, run):
    def call(*words: object):
        return CliRunner().invoke(app, ["submit", *map(str, words)])

    bundle, board = tmp_path / "b.zip", tmp_path / "board"
    assert f"next: guiderail submit verify {bundle}" in call("build", run, "--out", bundle).stderr
    assert f"next: guiderail submit lint {bundle}" in call("verify", bundle).stderr
    assert f"next: guiderail submit export {bundle} --to BOARD" in call("lint", bundle).stderr
    for words in (["board", tmp_path], ["export", bundle, "--to", "csv"]):
        with locked(board):
            assert "is being written by another process" in str(call(*words, "--out", board).exception)
        assert call(*words, "--out", board).exit_code == 0
