"""The version and the install command are those of where the code came from."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from guiderail.agent import origin

ROOT = Path(__file__).parents[2]


def installed(monkeypatch: pytest.MonkeyPatch, direct_url: dict | None) -> None:
    """As a wheel from an index (None) or from the place that direct_url.json names."""

    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if direct_url is None else json.dumps(direct_url)

    monkeypatch.setattr(origin, "clone", lambda: None)
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")


def test_a_clone_is_extended_in_place(monkeypatch, tmp_path):
    assert origin.clone() == ROOT
    monkeypatch.chdir(tmp_path)
    assert shlex.split(origin.install("ray")) == ["pip", "install", "-e", f"{ROOT}[ray]"]
    monkeypatch.chdir(ROOT)
    assert origin.install("ray") == 'pip install -e ".[ray]"'


@pytest.mark.parametrize(
    ("direct_url", "wanted"),
    [
        (None, "guiderail[ray]"),
        ({"url": "file:///x/guiderail-1.2.3-py3-none-any.whl", "archive_info": {}}, "guiderail[ray] @ file:///x/guiderail-1.2.3-py3-none-any.whl"),
        ({"url": "file:///x/clone", "dir_info": {}}, "guiderail[ray] @ file:///x/clone"),
        (
            {"url": "https://host/g.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}},
            "guiderail[ray] @ git+https://host/g.git@0123456789abcdef",
        ),
    ],
)  # fmt: skip
def test_an_installed_wheel_is_extended_from_where_it_came(monkeypatch, direct_url, wanted):
    installed(monkeypatch, direct_url)
    assert shlex.split(origin.install("ray")) == ["pip", "install", wanted]
    commit = ", commit 0123456" if direct_url and "vcs_info" in direct_url else ""
    assert origin.version() == f"1.2.3{commit}"


def test_a_command_for_an_odd_folder_is_still_one_word(monkeypatch, tmp_path):
    odd = tmp_path / "it's $HOME `x`"
    odd.mkdir()
    monkeypatch.setattr(origin, "clone", lambda: odd)
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' {origin.install('ray')}"], capture_output=True, text=True)
    assert said.stdout.splitlines() == ["pip", "install", "-e", f"{odd}[ray]"]


def test_the_version_names_commit_and_local_changes(monkeypatch, tmp_path):
    file = planted(tmp_path)
    monkeypatch.setattr(origin, "clone", lambda: tmp_path)
    assert origin.version() == "7.8"
    head = committed(tmp_path)
    assert origin.version() == f"7.8, commit {head[:7]}"
    file.write_text(file.read_text() + "# changed\n")
    assert origin.version() == f"7.8, commit {head[:7]}, with local changes"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def planted(root: Path, project: str = "guiderail") -> Path:
    """The file as it lies in a origin tree."""
    file = root / "agent" / "origin.py"
    file.parent.mkdir(parents=True)
    shutil.copy(origin.__file__, file)
    (root / "pyproject.toml").write_text(f'[project]\nname = "{project}"\nversion = "7.8"\n')
    return file


def committed(root: Path) -> str:
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return git(root, "rev-parse", "HEAD")


def commit(monkeypatch, file: Path) -> tuple[str | None, bool | None]:
    found = origin.clone(file)
    with monkeypatch.context() as patch:
        patch.setattr(origin, "clone", lambda: found)
        patch.setattr(origin, "_direct_url", dict)
        return origin.commit()


def test_the_commit_is_of_guiderails_own_repository(tmp_path, monkeypatch):
    file = planted(tmp_path / "own")
    assert commit(monkeypatch, file) == (None, None)
    head = committed(tmp_path / "own")
    assert commit(monkeypatch, file) == (head, False)
    (tmp_path / "own" / "notes.txt").write_text("mine")
    assert commit(monkeypatch, file) == (head, False)
    file.write_text(file.read_text() + "# changed\n")
    assert commit(monkeypatch, file) == (head, True)
    planted(tmp_path / "other")
    committed(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert commit(monkeypatch, file) == (head, True)


def test_no_repository_around_it_is_taken_for_it(tmp_path, monkeypatch):
    """An installation, a vendored copy, and a fork under another name, each inside a repository."""
    installed = planted(tmp_path / "site-packages" / "guiderail")
    (tmp_path / "site-packages" / "guiderail" / "pyproject.toml").unlink()
    vendored = planted(tmp_path / "third-party")
    planted(tmp_path / "surrounding")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "guiderail"\n')
    committed(tmp_path)
    assert commit(monkeypatch, installed) == (None, None)
    assert commit(monkeypatch, vendored) == (None, None)
    fork = planted(tmp_path / "fork", "other")
    committed(tmp_path / "fork")
    assert commit(monkeypatch, fork) == (None, None)


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    file = planted(tmp_path)
    committed(tmp_path)
    monkeypatch.setenv("PATH", os.devnull)
    assert commit(monkeypatch, file) == (None, None)


def test_versions_name_what_is_installed_and_what_is_not(monkeypatch):
    monkeypatch.setattr(origin, "PACKAGES", ("pydantic", "no-such-package"))
    found = origin.versions()
    assert found["pydantic"]
    assert found["python"]
    assert found["no-such-package"] is None
