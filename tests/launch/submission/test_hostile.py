"""Whatever a bundle holds, verify, lint and board end soon, in little memory, with at most 50 problems and no traceback."""

import hashlib
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.errors import GuiderailError
from guiderail.launch.cli import app
from guiderail.launch.submission import archive
from guiderail.launch.submission.archive import Refused
from guiderail.launch.submission.board import board, pages
from guiderail.launch.submission.build import build
from guiderail.launch.submission.lint import lint
from guiderail.launch.submission.schema import Declarations, canonical
from guiderail.launch.submission.signature import small_order
from guiderail.launch.submission.verify import MOST_PROBLEMS, verify
from tests.launch.submission.test_submission import live_run, sop_run

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Members:
    folder = tmp_path_factory.mktemp("live") / "run"
    return build(live_run(folder, {"a": [True, True], "b": [True, False], "c": [False, None]}), Declarations())


@pytest.fixture(scope="module")
def sop(tmp_path_factory) -> Members:
    return build(sop_run(tmp_path_factory.mktemp("sop") / "run", {"1": (4, 4), "2": (1, 4)}), Declarations())


def changed(members: Members, **values: object) -> Members:
    """With other values in the manifest; a forger would make the hashes fit."""
    manifest = json.loads(members[archive.MANIFEST]) | values
    return members | {archive.MANIFEST: json.dumps(manifest).encode()}


def forged(members: Members, *rows: dict, **values: object) -> Members:
    """With these attempts, listed as they are."""
    lines = [canonical(row) for row in rows]
    keys = ("unit", "start", "sample")
    claims = [
        {key: row.get(key) for key in keys} | {"sha256": hashlib.sha256(line.encode()).hexdigest()}
        for row, line in zip(rows, lines, strict=True)
    ]
    made = changed(members, attempts=claims, **values)
    return made | {archive.ATTEMPTS: "".join(line + "\n" for line in lines).encode()}


def packed(path: Path, members: Members, fit: bool = True) -> Path:
    if fit:
        members = members | {archive.SUMS: archive.sums(archive.digests(members))}
    path.write_bytes(b"".join(archive.pieces(members)))
    return path


def said(tmp_path: Path, members: Members) -> dict[str, str]:
    """Place -> what; and the commands say it too, without a traceback."""
    path = packed(tmp_path / "b.zip", members)
    for words in (["lint"], ["verify", "--json"]):
        result = CliRunner().invoke(app, ["submit", *words, str(path)])
        assert result.exit_code == 0 or isinstance(result.exception, SystemExit | GuiderailError), result.exception
        harmless(result.output)
    harmless("".join(pages(board(tmp_path)).values()))
    problems = json.loads(result.stdout)["problems"]
    assert len(problems) <= MOST_PROBLEMS
    return {problem["place"]: problem["what"] for problem in problems}


def harmless(text: str) -> None:
    assert not set(text) & set("\x1b\x9b\u202e\u2066\u200b\0")


ROW = {"unit": "a", "sample": 0, "ended": "finished", "outcome": {"success": True}, "seed": 3, "turns": []}
BIG = int("1" + "0" * 400)


@pytest.mark.parametrize(
    ("values", "place", "what"),
    [
        ({"samples": 10**9}, "manifest.json", "samples"),
        ({"samples": 20_000}, "attempts.jsonl", "which is declared"),
        ({"scores": {"success": BIG}}, "manifest.json", "too large a number"),
        ({"seed": 2**60}, "manifest.json", "seed"),
        ({"scores": {"success": "abc"}}, "manifest.json scores.success", "claimed abc"),
        ({"scores": {}}, "manifest.json scores.success", "missing"),
        ({"kind": "SOP"}, "manifest.json", "kind"),
        ({"kind": "my-board"}, "manifest.json", "kind"),
        ({"kind": "sop"}, "attempts.jsonl:1 outcome", "along a recording only the verdicts say"),
        ({"rules": {"name": "x"}}, "manifest.json rules", "a live run is not matched with rules"),
        ({"tasks": ["a", "b", "c", "a"]}, "manifest.json tasks", "declared twice"),
        ({"tasks": ["a", "b", "c", "a\u200b"]}, "manifest.json tasks", "two tasks look alike: 'a\\u200b'"),
        ({"tasks": ["a", "b", "c", "\u00e9", "e\u0301"]}, "manifest.json tasks", "two tasks look alike"),
    ],
)
def test_a_hostile_manifest_is_named(tmp_path, live, values, place, what):
    assert what in said(tmp_path, changed(live, **values)).get(place, "")


def test_a_number_as_true_is_not_one(tmp_path, live):
    scores = json.loads(live[archive.MANIFEST])["scores"]
    found = said(tmp_path, changed(live, scores=scores | {"pass_at": {"1": True}}))
    assert "claimed True" in found["manifest.json scores.pass_at.1"]
    assert said(tmp_path, changed(live, scores=scores | {"turns": float(scores["turns"])})) == {}


def test_a_deeply_nested_manifest_is_named(tmp_path, live):
    text = live[archive.MANIFEST].replace(b'"link": ""', b'"link": ' + b"[" * 900 + b"]" * 900, 1)
    assert said(tmp_path, live | {archive.MANIFEST: text}) == {"manifest.json": "nested more than 40 deep"}
    text = live[archive.MANIFEST].replace(b'"link": ""', b'"link": ' + b"[" * 90_000 + b"]" * 90_000, 1)
    assert said(tmp_path, live | {archive.MANIFEST: text}) == {"manifest.json": "nested too deeply"}


@pytest.mark.parametrize(
    "rules", [None, {"name": 5}, {"name": "x", "radius": True}, {"name": "x", "boxes": "all"}, {"no": 1}]
)
def test_rules_of_recordings_are_rules(tmp_path, sop, rules):
    assert "manifest.json rules" in said(tmp_path, changed(sop, rules=rules))


def test_borrowed_names_of_rules_are_remarked(tmp_path, sop):
    rules = json.loads(sop[archive.MANIFEST])["rules"]
    assert not any("match rules" in line for line in lint(verify(packed(tmp_path / "b.zip", sop))))
    loose = changed(sop, rules=rules | {"radius": 0.5})
    remarks = lint(verify(packed(tmp_path / "b.zip", loose)))
    assert "match rules 'guiderail' are not those that come with Guiderail under this name" in remarks


def test_a_live_attempt_with_verdicts_is_named(tmp_path, live):
    verdict = {"readable": True, "type_ok": True, "exact": True, "why": ""}
    turn = {"index": 0, "screen": [8, 8], "text": "", "thought": None, "action": None, "verdict": verdict}
    made = forged(live, ROW | {"turns": [turn]}, tasks=["a"], samples=1)
    assert "a turn has a verdict" in said(tmp_path, made)["attempts.jsonl:1 outcome"]


def test_half_a_character_in_the_settings_stops_no_board(tmp_path, live):
    provenance = json.loads(live[archive.MANIFEST])["provenance"] | {"settings": {"split": "\ud800"}}
    assert said(tmp_path, changed(live, kind="mobilegym", provenance=provenance)) == {}
    result = CliRunner().invoke(app, ["submit", "board", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    assert "mobilegym \ufffd None" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "settings", [None, 5, [1], "x", {"world": {"deep": []}}, {"device": "pocket", "temperature": "[/red]"}]
)
def test_provenance_may_be_anything(tmp_path, live, settings):
    provenance = {"settings": settings, "judge": settings, "commit": ["x"], "model": {"a": 1}, "weights": "\x1b[31m"}
    assert said(tmp_path, changed(live, provenance=provenance)) == {}
    assert list(board(tmp_path)["worlds"]) == [
        "android-world on pocket" if settings and "device" in str(settings) else "android-world"
    ]


def test_names_steer_no_terminal_and_no_page(tmp_path, live):
    evil = "[/red] \x1b[2J\x9b5m \u202egnp\u2066 \u200b <script>alert(1)</script>"
    assert said(tmp_path, changed(live, name=evil)) == {}
    result = CliRunner().invoke(app, ["submit", "verify", str(tmp_path / "b.zip")])
    assert "[/red]" in result.output
    html = pages(board(tmp_path))["index.html"]
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    made = forged(live, ROW | {"unit": evil}, tasks=[evil, "b"], samples=1)
    assert "no attempt at 'b'" in said(tmp_path, made)["attempts.jsonl"]


def test_a_judge_model_is_named_beside_the_number(tmp_path, live):
    row = ROW | {"outcome": {"success": True, "checked_by": "judge"}}
    path = packed(tmp_path / "b.zip", forged(live, row, kind="aitw", tasks=["a"], samples=1))
    assert "a judge model (not named) decided about 1 of 1 attempts, not the state of the device" in lint(verify(path))


def test_the_whole_benchmark_is_asked_of_the_kinds_that_runs_have(tmp_path, live):
    assert "subset of tasks: 3 of 116" in lint(verify(packed(tmp_path / "b.zip", live)))


# ----------------------------------------------------------------------------------------------------------- pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    return file.getvalue()


HEAD = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))


@pytest.mark.parametrize(
    "data",
    [HEAD, HEAD + chunk(b"IEND", b""), picture()[:-4], picture() + b"more", picture()[:40] + b"x" + picture()[41:],
     HEAD + chunk(b"tEXt", b"") * 5000 + picture()[33:], b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(40)],
    ids=["header", "no pixels", "cut", "more", "damaged", "parts", "eps"],
)  # fmt: skip
def test_a_picture_that_is_not_whole_is_named(tmp_path, live, data):
    assert archive.picture_problem(picture()) is None
    name = f"screenshots/{hashlib.sha256(data).hexdigest()}.png"
    said(tmp_path, live | {name: data})
    first = verify(tmp_path / "b.zip").problems[0]
    assert first.place == name
    assert "PNG" in first.what or "damaged" in first.what


# ---------------------------------------------------------------------------------------------------------- signatures


def test_keys_of_small_order_sign_nothing(tmp_path, live):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    live = live | {archive.SUMS: archive.sums(archive.digests(live))}
    root = archive.root(live)
    # Under the neutral point the signature R = 0 * B, s = 0 is valid for every message.
    key, signature = bytes([1]) + bytes(31), bytes([1]) + bytes(63)
    Ed25519PublicKey.from_public_bytes(key).verify(signature, root.encode())
    content = {"algorithm": "Ed25519", "public_key": key.hex(), "root": root, "signature": signature.hex()}
    checked = verify(packed(tmp_path / "b.zip", live | {archive.SIGNATURE: json.dumps(content).encode()}, fit=False))
    assert checked.signed_by is None
    assert "anybody can sign" in checked.problems[0].what
    assert small_order((2**255 - 20).to_bytes(32, "little"))
    assert not small_order((4 * pow(5, -1, 2**255 - 19) % (2**255 - 19)).to_bytes(32, "little"))  # the base point


# ----------------------------------------------------------------------------------------------------------------- size


def test_a_list_of_a_million_members_is_refused_unread(tmp_path, monkeypatch):
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, *[0] * 16)
    raw = entry * 1_000_000
    monkeypatch.setattr(archive, "_entries", None)
    for count in (64_999, 0xFFFF, 1):
        end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(raw), 0, 0)
        (tmp_path / "b.zip").write_bytes(raw + end)
        with pytest.raises(Refused, match="at most 65000 members are allowed"):
            verify(tmp_path / "b.zip")


MEASURE = """
import sys, time
from pathlib import Path
from guiderail.launch.submission.verify import verify
from guiderail.launch.submission.lint import lint
from guiderail.launch.submission.board import board, pages
start = time.process_time()
try:
    checked = verify(Path(sys.argv[1]) / "b.zip")
    lint(checked); print(len(checked.problems), checked.problems[:1], file=sys.stderr)
except Exception as error:
    print(repr(error)[:200], file=sys.stderr)
between = time.process_time()
pages(board(Path(sys.argv[1])))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time() - between, between - start, int(peak.split()[1]) / 1024)
"""


def measured(folder: Path) -> tuple[float, float]:
    """(CPU seconds of the slower one of verify with lint and board, MB at the peak), in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True)
    print(done.stdout, done.stderr)
    board_, verify_, memory = map(float, done.stdout.split())
    return max(board_, verify_), memory


def big_row(i: int, **more: object) -> dict:
    return ROW | {"unit": f"task {i}", "outcome": {"success": i % 3 == 0, "checked_by": "state"},
                  "ended": "finished" if i % 3 == 0 else "out_of_steps"} | more  # fmt: skip


def large(kind: str, live: Members, sop: Members) -> Members:
    """About 50 MB of each thing that could be many."""
    turn = {"index": 0, "screen": [8, 8], "text": "", "thought": None, "action": {"action": "wait"}}
    exact = {"readable": True, "type_ok": True, "why": "", "exact": True}
    manifest = json.loads(live[archive.MANIFEST])
    if kind == "tasks":
        return changed(live, tasks=[f"task {i} \U0001f600" for i in range(19_999)], samples=20_000)
    if kind == "attempts":
        rows = [big_row(i) for i in range(20_000)]
        return forged(live, *rows, tasks=[row["unit"] for row in rows], samples=1)
    if kind == "trials":
        rows = [big_row(i, unit="one", sample=i) for i in range(20_000)]
        return forged(live, *rows, tasks=["one"], samples=20_000)
    if kind == "turns":
        turns = [turn | {"index": i, "text": "x" * 300} for i in range(100)]
        rows = [big_row(i, turns=turns) for i in range(1_000)]
        return forged(live, *rows, tasks=[row["unit"] for row in rows], samples=1)
    if kind == "walks":
        rows = [ROW | {"unit": f"{i}", "outcome": None, "ended": "mismatch", "steps": 5, "seed": 0,
                       "turns": [turn | {"verdict": exact | {"exact": i % 2 == 0}}]} for i in range(20_000)]  # fmt: skip
        return forged(sop, *rows, tasks=[row["unit"] for row in rows], samples=1)
    if kind == "values":
        lines = ["[" + "1," * 1_990_000 + "1]"] * 12
        return live | {archive.ATTEMPTS: "".join(line + "\n" for line in lines).encode()}
    if kind == "objects":
        action = {"a": [{} for _ in range(160_000)]}
        rows = [big_row(i, turns=[turn | {"action": action}]) for i in range(60)]
        return forged(live, *rows, tasks=[row["unit"] for row in rows], samples=1)
    if kind == "wide":
        rows = [big_row(i, goal="x" * 4_000_000 + "\U0001f600") for i in range(12)]
        return forged(live, *rows, tasks=[row["unit"] for row in rows], samples=1)
    if kind == "manifest":
        return live | {
            archive.MANIFEST: json.dumps(
                manifest | {"provenance": {"a": "x" * 8_000_000 + "\U0001f600"}}, ensure_ascii=False
            ).encode()
        }
    if kind == "claims":
        return live | {archive.MANIFEST: json.dumps(manifest | {"attempts": [{}] * 240_000}).encode()}
    if kind == "sums":
        return live | {archive.SUMS: b"".join(b"%064x  %d\n" % (i, i) for i in range(100_000))}
    if kind == "lines":
        return live | {archive.ATTEMPTS: b"\n" * 50_000_000}
    if kind == "pictures":
        pictures = [picture()[:-12] + chunk(b"tEXt", b"%d" % i) * 25 + picture()[-12:] for i in range(64_000)]
        return live | {f"screenshots/{hashlib.sha256(data).hexdigest()}.png": data for data in pictures}
    assert kind == "no pictures"
    return live | {f"screenshots/{i:064x}.png": b"x" * 600 for i in range(64_980)}


LARGE = ["tasks", "attempts", "trials", "turns", "walks", "values", "objects", "wide", "manifest", "claims", "sums", "lines",
         "pictures", "no pictures"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
def test_fifty_megabytes_of_anything_end_within_10_seconds_and_300_megabytes(tmp_path, live, sop, kind):
    members = large(kind, live, sop)
    packed(tmp_path / "b.zip", members, fit=kind != "sums")
    seconds, memory = measured(tmp_path)
    print(kind, (tmp_path / "b.zip").stat().st_size / 1e6, "MB:", seconds, "s", memory, "MB")
    assert seconds < 10
    assert memory < 300
