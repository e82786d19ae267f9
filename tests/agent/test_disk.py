"""Files and lines are whole or absent, and a folder has one writer: also on a full disk and after kill -9."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

from guiderail.agent.disk import append_whole, cut_torn_line, is_full, locked, new_folder, write_whole
from guiderail.agent.errors import SetupError

HOLD = """
import sys, time
from pathlib import Path
from guiderail.agent.disk import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def limit():
    """Sets the largest size of a file for the test, in bytes: the disk is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_whole_lines_and_the_file_before(tmp_path, limit):
    lines, file = tmp_path / "lines", tmp_path / "file"
    append_whole(lines, b"one\n")
    write_whole(file, b"before")
    limit(10)
    with pytest.raises(OSError, match="File too large") as found:
        append_whole(lines, b"a line that is too long\n")
    assert is_full(found.value)
    with pytest.raises(OSError, match="File too large"):
        write_whole(file, b"a file that is too long")
    append_whole(lines, b"two\n")
    assert lines.read_bytes() == b"one\ntwo\n"
    assert file.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["file", "lines"]


def test_what_libraries_say_about_a_full_disk_is_understood():
    assert is_full(OSError(errno.ENOSPC, "no space"))
    assert is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert is_full(RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file"))
    assert is_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 7133504 vs 7133392"))
    lost = RuntimeError("cannot write")
    lost.__context__ = OSError(errno.EDQUOT, "quota")
    assert is_full(lost)
    assert not is_full(OSError(errno.ENOENT, "gone"))
    assert not is_full(ValueError("size 280 is odd"))


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\nb\n"),
        (b"a\nb", b"a\n"),
        (b"torn", b""),
        (b"a\n" + b"x" * 200_000, b"a\n"),
    ],
)
def test_a_torn_last_line_is_cut(tmp_path, content, kept):
    path = tmp_path / "lines"
    path.write_bytes(content)
    cut_torn_line(path)
    assert path.read_bytes() == kept
    cut_torn_line(tmp_path / "absent")


def test_a_second_writer_is_refused_until_the_first_is_gone_however_it_goes(tmp_path):
    folder = tmp_path / "new" / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(SetupError, match="being written by another process"), locked(folder):
        pass
    with pytest.raises(SetupError, match="being written by another process"), locked(folder):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(folder):
        (folder / "file").touch()
    assert [path.name for path in folder.iterdir()] == ["file"], "the lock leaves nothing behind"


def test_an_unused_folder_goes_with_its_lock(tmp_path):
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_lock_on_a_removed_file_is_no_lock(tmp_path):
    """The first owner removes the file after a second process has opened it, and a third makes it anew."""
    with locked(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run" / ".lock").touch()
        with locked(tmp_path / "run"), pytest.raises(SetupError), locked(tmp_path / "run"):
            pass


def test_a_new_folder_appears_complete_or_not_at_all(tmp_path):
    out = tmp_path / "data"
    with pytest.raises(FileNotFoundError), new_folder(out) as partial:
        (partial / "absent" / "a.png").touch()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".data.part").mkdir()
    (tmp_path / ".data.part" / "of a killed run").touch()
    with new_folder(out) as partial:
        assert [path.name for path in partial.iterdir()] == [".lock"]
        with pytest.raises(SetupError, match="another process"), new_folder(out):
            pass
        (partial / "episodes.jsonl").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["data", "data/episodes.jsonl"]
    with pytest.raises(SetupError, match="not an empty folder"), new_folder(out):
        pass


def test_what_is_not_a_folder_to_write_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SetupError, match="is a file, or lies in one; give another --out"), locked(path):
            pass

    def refuse(*given, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(SetupError, match=r"cannot be written \(Permission denied\)"), locked(tmp_path / "run"):
        pass
