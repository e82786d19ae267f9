"""Parts by name: ours, from a file, from an installed distribution; what is wrong is said with its place."""

import hashlib
import pickle
import sys
from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF, DIALECTS
from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, function_of, names_file, origins


def accept(name: str, found: object) -> str:
    if not isinstance(found, str):
        raise TypeError(f"got {found!r}, expected a word")
    return f"{name} says {found}"


WORDS = Registry("word", "guiderail.test_words", {"yes": "yes says yes"}, accept)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("HELLO = 'hello'\nNUMBER = 3\n_HIDDEN = 'x'\n")
    return path


def install(folder: Path, name: str, version: str, points: dict[str, str]) -> None:
    """What pip leaves of a distribution that publishes words."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    listed = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[guiderail.test_words]\n{listed}")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    install(
        site, "wordy", "1.2", {"hi": "wordy_words:HI", "broken": "wordy_words:NOTHING", "three": "wordy_words:THREE"}
    )
    (site / "wordy_words.py").write_text("HI = 'hi'\nTHREE = 3\n")
    yield site
    sys.modules.pop("wordy_words", None)


def test_our_own_parts_are_a_mapping():
    assert WORDS["yes"] == WORDS.find("yes") == "yes says yes"
    assert [*WORDS] == ["yes"]
    assert WORDS.origin("yes") is None
    assert DIALECTS.find("brief") is BRIEF


def test_unknown_names_get_the_nearest_and_the_list():
    with pytest.raises(
        SetupError, match=r"unknown word 'yess', did you mean 'yes'\? known: yes, path/to/file\.py:NAME"
    ):
        WORDS.find("yess")
    with pytest.raises(SetupError, match=r"unknown word 'qqqq'; known: yes"):
        WORDS.check("qqqq")


def test_a_part_of_a_file(file):
    before = list(sys.path)
    assert WORDS.find(f"{file}:HELLO") == f"{file}:HELLO says hello"
    assert sys.path == before
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert WORDS.origin(f"{file}:HELLO") == {"name": f"{file}:HELLO", "file": str(file), "sha256": digest}


def test_a_file_is_run_once_and_its_hash_is_of_what_was_run(tmp_path):
    path = tmp_path / "counts.py"
    path.write_text(f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\nHELLO = 'first'\n")
    first, before = WORDS.find(f"{path}:HELLO"), WORDS.origin(f"{path}:HELLO")
    path.write_text("HELLO = 'second'\n")
    assert (WORDS.find(f"{path}:HELLO"), WORDS.origin(f"{path}:HELLO")) == (first, before)
    assert (tmp_path / "runs").read_text() == "x"


def test_check_and_origin_run_no_code(tmp_path):
    path = tmp_path / "never.py"
    path.write_text("raise SystemExit('was run')")
    WORDS.check(f"{path}:HELLO")
    assert WORDS.origin(f"{path}:HELLO")["sha256"]


def test_a_relative_path_starts_at_the_current_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert WORDS.find("mine.py:HELLO") == "mine.py:HELLO says hello"


def test_dataclasses_with_postponed_annotations_work_in_a_file(tmp_path):
    path = tmp_path / "classes.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "@dataclass\nclass A:\n    n: ClassVar[int] = 1\nHELLO = str(A())\n"
    )
    assert "A()" in WORDS.find(f"{path}:HELLO")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("HELLO = 'x'\n", "HELO", r"mine.py has no 'HELO'; it has HELLO; expected .*mine.py:NAME"),
        ("HELLO = 'x'\n_B = 'x'\n", "", r"mine.py has no ''; it has HELLO; "),
        ("N = 3\n", "HELLO", r"it has no word at all"),
        ("N = 3\n", "N", r"mine.py:N is not a word: got 3, expected a word"),
        ("x = 1\ny = x / 0\n", "x", r"mine.py:2: this file cannot be run: ZeroDivisionError"),
        ("x = 1\n\n\ndef f(:\n", "x", r"mine.py:4: this file cannot be run: SyntaxError"),
        ("import no_such_module_at_all\n", "x", r"mine.py:1: .*ModuleNotFoundError.*no_such_module_at_all"),
        ("import sys\nsys.exit(3)\n", "x", r"mine.py:2: .*SystemExit"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, content, name, message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(SetupError, match=message):
        WORDS.find(f"{path}:{name}")


def test_a_file_without_a_name_and_a_file_that_is_not_there(file, tmp_path):
    with pytest.raises(SetupError, match="it has HELLO; expected"):
        WORDS.find(str(file))
    with pytest.raises(SetupError, match=r"there is no file .*nowhere.py"):
        WORDS.find(f"{tmp_path}/nowhere.py:HELLO")
    with pytest.raises(SetupError, match="there is no file"):
        WORDS.origin(f"{tmp_path}/nowhere.py:HELLO")


def test_names_that_make_a_file_run():
    assert names_file("a/b.py:C")
    assert names_file("b.py")
    assert not names_file("thought-free")
    assert not names_file("b.pyc:C")


def test_an_installed_part(installed):
    assert WORDS.find("hi") == "hi says hi"
    assert WORDS.origin("hi") == {"name": "hi", "distribution": "wordy", "version": "1.2"}
    assert "hi" not in WORDS
    with pytest.raises(SetupError, match=r"did you mean 'three'\? known: yes, .*hi"):
        WORDS.find("thre")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            r"the word 'broken' of wordy 1.2 \(wordy_words:NOTHING\) cannot be loaded: AttributeError.*uninstall",
        ),
        ("three", r"the word 'three' of wordy 1.2 .* is not a word: got 3, expected a word"),
    ],
)
def test_a_broken_entry_point_names_its_distribution(installed, name, message):
    WORDS.check(name)
    with pytest.raises(SetupError, match=message):
        WORDS.find(name)


def test_entry_points_are_loaded_only_when_asked_for(installed):
    WORDS.check("hi")
    with pytest.raises(SetupError):
        WORDS.find("nobody")
    assert WORDS.find("yes")
    assert "wordy_words" not in sys.modules


def test_nobody_takes_a_name_that_somebody_has(installed):
    install(installed, "second", "2.0", {"hi": "wordy_words:HI"})
    install(installed, "third", "3.0", {"yes": "wordy_words:HI"})
    import guiderail.agent.registry as registry

    registry._installed.cache_clear()
    with pytest.raises(SetupError, match=r"'hi' comes from .*(wordy 1.2|second 2.0) and from .*; uninstall one"):
        WORDS.find("hi")
    with pytest.raises(SetupError, match=r"'yes' comes from guiderail and from third 3.0"):
        WORDS.find("yes")


def test_origins_are_merged_into_a_run_record(file, installed):
    mine = f"{file}:HELLO"
    assert origins((WORDS, "yes")) == {}
    assert origins((WORDS, "yes"), (WORDS, mine)) == {"parts": {"word": WORDS.origin(mine)}}
    both = origins((WORDS, mine), (WORDS, "hi"))["parts"]
    assert both == {"word": WORDS.origin(mine), "word hi": WORDS.origin("hi")}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda episode: None, r"got <lambda>\(episode\), expected a patch"),
        (lambda a, b, *, c: None, r"expected a patch"),
        (dict, "got the class dict"),
        (3, r"got '3' \(int\)"),
    ],
)
def test_functions_of_the_wrong_shape(function, message):
    with pytest.raises(TypeError, match=message):
        function_of(function, 2, "a patch")


@pytest.mark.parametrize("function", [lambda a, b: 0, lambda *a: 0, lambda a, b, c=1: 0, pickle.dumps, max])
def test_functions_of_the_right_shape(function):
    assert function_of(function, 2, "a patch") is function
