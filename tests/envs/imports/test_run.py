"""Processes, kill -9, resuming: nothing half-written is ever taken for complete, nothing finished is done again."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.agent.types import Verdict
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import FORMATS, run_import
from tests.envs.imports.public import ALL_ACTIONS, android_control, write_tfrecord

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shards(tmp_path):
    """Three shards of two episodes with two screenshots each."""
    for number in range(3):
        payloads = [android_control(10 * number + i, ALL_ACTIONS[i : i + 1]) for i in range(2)]
        write_tfrecord(tmp_path / "src" / f"android_control-{number:05d}-of-00003", payloads)
    return tmp_path / "src"


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed(act):
    """Run `act` in a forked child that is expected to die by SIGKILL; True when it did."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return os.WTERMSIG(status) == signal.SIGKILL if os.WIFSIGNALED(status := os.waitpid(pid, 0)[1]) else False


def test_killed_at_every_publication_the_next_run_ends_with_the_same_bytes(shards, tmp_path):
    run_import("androidcontrol", [shards], tmp_path / "straight")
    expected = tree(tmp_path / "straight")
    assert len([name for name in expected if name.endswith(".png")]) == 12
    moment, died = 0, True
    while died:
        for before in (True, False):
            out = tmp_path / f"out-{moment}-{before}"

            def die_at_rename(out=out, before=before, moment=moment):
                rename, calls = os.replace, iter(range(10**6))

                def fatal(source, target):
                    at = next(calls)
                    if at == moment and before:
                        os.kill(os.getpid(), signal.SIGKILL)
                    rename(source, target)
                    if at == moment:
                        os.kill(os.getpid(), signal.SIGKILL)

                os.replace = fatal
                run_import("androidcontrol", [shards], out)

            died = killed(die_at_rename)
            complete = (out / "episodes.jsonl").exists()
            if complete:
                assert {k: v for k, v in tree(out).items() if not k.startswith(".")} == expected
            else:
                run_import("androidcontrol", [shards], out)
                assert tree(out) == expected
        moment += 1
    assert moment > 20  # images, parts, journals, card, episodes.jsonl


def test_killed_in_the_middle_of_a_shard_only_that_shard_is_done_again(shards, tmp_path):
    out = tmp_path / "out"

    def die_in_the_third_shard():
        def progress(read):
            if read.units_done == 2 and read.done > read.total * 2 / 3:
                os.kill(os.getpid(), signal.SIGKILL)

        run_import("androidcontrol", [shards], out, progress=progress)

    assert killed(die_in_the_third_shard)
    done = {path: path.stat().st_mtime_ns for path in out.glob(".import-*.jsonl") if ".part" not in path.name}
    assert len(done) == 2
    seen = []
    run_import("androidcontrol", [shards], out, progress=lambda read: seen.append(read))
    assert (seen[0].units_done, seen[0].done) == (2, seen[0].resumed)
    assert seen[-1].done == seen[-1].total
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 6
    assert not list(out.glob(".*"))


def test_finished_shards_are_not_read_again(shards, tmp_path, monkeypatch):
    bad = shards / "android_control-00001-of-00003"
    good = bad.read_bytes()
    bad.write_bytes(good[:-20])
    stat = bad.stat()
    with pytest.raises(DataError, match=r"android_control-00001-of-00003:2: .*truncated"):
        run_import("androidcontrol", [shards], tmp_path / "out")
    bad.write_bytes(good)
    with pytest.raises(SetupError, match="unfinished import of other files"):
        run_import("androidcontrol", [shards], tmp_path / "out")
    bad.write_bytes(good[:-20])
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DataError, match="truncated"):
        run_import("androidcontrol", [shards], tmp_path / "out", progress=lambda read: read.units_done >= 2 or 1 / 0)


def test_all_broken_shards_are_counted_and_the_others_finished(shards, tmp_path):
    for number in (0, 2):
        (shards / f"android_control-0000{number}-of-00003").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="2 of 3 files could not be imported"):
        run_import("androidcontrol", [shards], tmp_path / "out", jobs=3)
    assert [p.name for p in (tmp_path / "out").glob(".import-0*.json")] == [".import-00001.json"]


def test_skip_bad_may_be_added_for_the_second_run(shards, tmp_path):
    write_tfrecord(shards / "android_control-00001-of-00003", [android_control(without=["goal"]), android_control(5)])
    with pytest.raises(DataError, match="--skip-bad"):
        run_import("androidcontrol", [shards], tmp_path / "out")
    total = run_import("androidcontrol", [shards], tmp_path / "out", Options(skip_bad=True))
    assert (total["episodes"], len(total["dropped"])) == (5, 1)


def test_several_processes_write_the_same_bytes_as_one(shards, tmp_path):
    run_import("androidcontrol", [shards], tmp_path / "one", jobs=1)
    reads = []
    run_import("androidcontrol", [shards], tmp_path / "three", jobs=3, progress=reads.append)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert reads[-1].done == reads[-1].total == sum(p.stat().st_size for p in shards.iterdir())


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_that_cannot_be_written_is_said_with_any_number_of_processes(shards, tmp_path, jobs):
    out = tmp_path / "out"
    out.mkdir()
    (out / "images").write_text("a file")
    with pytest.raises((OSError, SetupError), match="out/images"):
        run_import("androidcontrol", [shards], out, jobs=jobs)
    assert not multiprocessing.active_children()


RUN = "import sys; from pathlib import Path; from guiderail.envs.imports.run import run_import; " \
    "run_import('androidcontrol', [Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), jobs=2)"  # fmt: skip


def test_workers_do_not_outlive_a_killed_parent_and_lock_out_nobody(shards, tmp_path):
    stuck = tmp_path / "android_control-99999-of-99999"
    os.mkfifo(stuck)  # a worker that opens it waits for ever
    ready = shards / "android_control-00000-of-00003"
    command = [sys.executable, "-c", RUN, str(tmp_path / "out"), str(stuck), str(ready)]
    parent = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(lambda: (tmp_path / "out" / ".import-00001.json").exists())
        workers = [pid for pid in children(parent.pid) if b"spawn_main" in cmdline(pid)]
        assert workers
        with pytest.raises(SetupError, match="being written by another process"):
            run_import("androidcontrol", [ready], tmp_path / "out")
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(b"spawn_main" in cmdline(pid) for pid in workers))


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid):
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_killed_worker_is_a_crash_of_the_machine_not_of_the_data(shards, tmp_path):
    stuck = tmp_path / "android_control-99999-of-99999"
    os.mkfifo(stuck)

    def kill_the_worker(read):
        for pid in children(os.getpid()):
            if b"spawn_main" in cmdline(pid) and read.units_done:
                os.kill(pid, signal.SIGKILL)

    sources = [stuck, shards / "android_control-00000-of-00003"]
    with pytest.raises(EnvCrashed, match=r"android_control-99999-of-99999 died .* run the same command again"):
        run_import("androidcontrol", sources, tmp_path / "out", jobs=2, progress=kill_the_worker)
    assert (tmp_path / "out" / ".import-00001.json").exists()


def test_a_complete_folder_is_left_alone(shards, tmp_path):
    run_import("androidcontrol", [shards], tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(SetupError, match=r"already holds episodes\.jsonl"):
        run_import("androidcontrol", [shards], tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_other_options_or_files_do_not_mix_into_an_unfinished_import(shards, tmp_path):
    (shards / "android_control-00002-of-00003").write_bytes(b"\0" * 50)
    for _ in range(2):
        with pytest.raises(DataError):
            run_import("androidcontrol", [shards], tmp_path / "out")
    with pytest.raises(SetupError, match="with other options"):
        run_import("androidcontrol", [shards], tmp_path / "out", Options(terminate=False))
    with pytest.raises(SetupError, match="other files"):
        run_import("androidcontrol", [shards / "android_control-00000-of-00003"], tmp_path / "out")


def test_the_same_shard_twice_is_one_and_equal_ids_are_told_apart(shards, tmp_path):
    first = shards / "android_control-00000-of-00003"
    copy = tmp_path / "copy" / "android_control-00000-of-00001"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    other = write_tfrecord(tmp_path / "other" / "android_control-00000-of-00001", [android_control(1, goal="else")])
    total = run_import("androidcontrol", [first, first, copy, other], tmp_path / "out")
    ids = [json.loads(line)["episode_id"] for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert ids == [0, 1, "android_control-00000-of-00001-1"]
    assert [row["reason"] for row in total["dropped"]] == ["episode 0 is there already", "episode 1 is there already"]
    assert total["episodes"] == 3
    assert total["steps"] == sum(total["theirs"].values()) == sum(total["ours"].values()) == sum(total["gate"].values())
    lines = [json.loads(text) for text in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    steps = [step for line in lines for step in line["steps"]]
    assert total["ours"] == Counter(step["action_content"]["action"] for step in steps)
    assert total["boxes"] == Counter(step["box_origin"] for step in steps if "box_origin" in step)
    assert not any("was" in line["import"] for line in lines)


def test_an_image_that_was_damaged_on_disk_is_written_again(shards, tmp_path):
    out = tmp_path / "out"
    run_import("androidcontrol", [shards], out)
    expected = tree(out)
    for path in (out / "images").rglob("*.png"):
        path.write_bytes(b"")
    (out / "episodes.jsonl").unlink()
    run_import("androidcontrol", [shards], out)
    assert tree(out) == expected


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_no_sources_say_what_to_give(tmp_path, name):
    with pytest.raises(SetupError, match="give"):
        run_import(name, [tmp_path], tmp_path / "out")
    with pytest.raises(SetupError, match=r"does not exist|holds no"):
        run_import(name, [tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_with_nothing_usable_is_an_error(tmp_path):
    shard = write_tfrecord(tmp_path / "android_control-00000-of-00001", [android_control(1, actions=())])
    with pytest.raises(DataError, match=r"no usable episode: no actions recorded \(1\)"):
        run_import("androidcontrol", [shard], tmp_path / "out")


def test_an_importer_whose_actions_fail_the_oracle_gate_publishes_nothing(shards, tmp_path, monkeypatch):
    wrong = Verdict(True, True, False, "made to fail")
    monkeypatch.setattr("guiderail.envs.imports.writer.judge", lambda step, said: wrong)
    with pytest.raises(DataError, match="step 0: fails the oracle gate: made to fail"):
        run_import("androidcontrol", [shards], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.jsonl"))
