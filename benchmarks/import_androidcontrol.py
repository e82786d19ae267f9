"""Reading AndroidControl records with our reader and with TensorFlow's (TFRecordDataset, parse_single_example).

    python benchmarks/import_androidcontrol.py --megabytes 1000 --json
    python benchmarks/import_androidcontrol.py --tensorflow-python /path/to/venv/bin/python

Measures time and peak memory. First a synthetic GZIP shard in the public schema is written (noisy PNG screens of 1080x2400,
forests of 150 nodes). Then the readers take turns, each reading in a process of its own, several times. Reading means that
every record is decompressed, its checksums are verified, it is parsed, and every screenshot, tree and action is touched. Time
runs from opening the file to its end, without Python imports. Memory is the peak resident size of the process; the size before
reading is reported beside it. TensorFlow is measured when the given Python has it. The third reader is the whole import of
the same shard: boxes, images, JSONL.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = 6
SIDE = 260  # of the noisy square in each screen; sets the PNG's size to about 220 kB, as in the real data
TF_FEATURES = ("screenshots", "accessibility_trees", "actions", "step_instructions")


def payloads(megabytes: int) -> Iterator[bytes]:
    """Serialised episodes, until they add up to so many megabytes."""
    import numpy as np
    from PIL import Image

    from tests.envs.imports.public import android_control, forest, png

    def screen(seed: int) -> bytes:
        import io

        image = Image.open(io.BytesIO(png(1080, 2400, f"screen {seed}")))
        noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        image.paste(Image.fromarray(noise), (400, 1000))
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    screens = [screen(seed) for seed in range(24)]
    nodes = [((0, 16 * i, 1080, 16 * i + 60), f"row {i} of a list with words on it") for i in range(150)]
    tree = forest((0, nodes))
    kinds = ({"action_type": "click", "x": 500, "y": 800}, {"action_type": "scroll", "direction": "down"})
    written = number = 0
    while written < megabytes * 1e6:
        shots = [screens[(5 * number + i) % len(screens)] for i in range(STEPS + 1)]
        actions = [kinds[i % 2] for i in range(STEPS)]
        payload = android_control(number, actions, "Find the list", (1080, 2400), shots, tree)
        yield payload
        written, number = written + len(payload), number + 1


def write_shard(path: Path, megabytes: int) -> None:
    from guiderail.envs.imports.tfrecord import crc32c
    from tests.envs.imports.public import record

    with gzip.open(path, "wb", compresslevel=1) as file:
        for payload in payloads(megabytes):
            file.write(record(payload, crc32c))


def read_ours(path: Path) -> tuple[int, int]:
    from guiderail.envs.imports.tfrecord import TFRecords, parse_example

    records = touched = 0
    shard = TFRecords(path)
    for payload in shard:
        example = parse_example(payload, shard.where)
        records += 1
        touched += sum(len(bytes(value)) for name in TF_FEATURES for value in example[name])  # type: ignore[arg-type]
    return records, touched


def read_tensorflow(path: Path) -> tuple[int, int]:
    import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

    def parse(raw: object) -> object:
        several = {
            name: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True) for name in (*TF_FEATURES, "goal")
        }
        sizes = {
            name: tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
            for name in ("screenshot_widths", "screenshot_heights", "episode_id")
        }
        return tf.io.parse_single_example(raw, several | sizes)

    records = touched = 0
    for example in tf.data.TFRecordDataset(str(path), compression_type="GZIP").map(parse):
        records += 1
        touched += sum(len(value) for name in TF_FEATURES for value in example[name].numpy())
    return records, touched


def read_import(path: Path) -> tuple[int, int]:
    from guiderail.envs.imports.run import run_import

    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        total = run_import("androidcontrol", [path], Path(out) / "imported")
    return total["episodes"], total["steps"]


def peak_kb() -> int:
    """Peak resident size. Not from getrusage, whose peak includes what the parent process had when it forked."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def worker(reader: str, path: Path) -> None:
    """Read once in this process and print one JSON line."""
    if reader == "tensorflow":
        import tensorflow  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    else:
        import guiderail.envs.imports.run  # noqa: F401
    before = peak_kb()
    start, cpu = time.perf_counter(), time.process_time()
    records, touched = {"ours": read_ours, "tensorflow": read_tensorflow, "import": read_import}[reader](path)
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_kb()
    row = {"records": records, "touched": touched, "seconds": seconds, "cpu": busy}
    print(json.dumps(row | {"peak_mb": peak / 1024, "before_mb": before / 1024}))


def measure(reader: str, path: Path, python: str) -> dict[str, float] | None:
    command = [python, str(Path(__file__).resolve()), "--worker", reader, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        print(f"{reader}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="of records before compression")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tensorflow-python", default=sys.executable, help="a Python that has TensorFlow")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if asked.worker:
        worker(asked.worker[0], Path(asked.worker[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "android_control-00000-of-00001"
        write_shard(path, asked.megabytes)
        pythons = {"ours": sys.executable, "tensorflow": asked.tensorflow_python, "import": sys.executable}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
        for _ in range(asked.repeats):
            for name, python in pythons.items():
                if (found := measure(name, path, python)) is not None:
                    runs[name].append(found)
        megabytes = path.stat().st_size / 1e6
    result: dict[str, object] = {"file_mb": round(megabytes, 1), "repeats": asked.repeats}
    for name, rows in runs.items():
        result[name] = {
            key: round(statistics.median(row[key] for row in rows), 3) for key in (rows[0] if rows else ())
        } or "not available"
    print(json.dumps(result) if asked.json else "\n".join(f"{name}: {row}" for name, row in result.items()))


if __name__ == "__main__":
    main()
