"""Shipped configs are found by name from any folder; what is misspelt or missing is answered with what to type."""

import sys

import pytest

from guiderail.agent.errors import SetupError
from guiderail.launch import cli
from guiderail.launch.configs import HERE, TRAINING, find


@pytest.mark.parametrize("name", ["tiny_sft", "tiny_sft.yaml"])
def test_a_name_is_found_from_anywhere_and_a_file_comes_first(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(name) == HERE / "tiny_sft.yaml"
    (tmp_path / name).write_text("mine")
    assert find(name).read_text() == "mine"


def test_studies_have_a_folder_of_their_own():
    assert find("study/pocket") == HERE / "study" / "pocket.yaml"
    assert "tiny_sft" in TRAINING
    assert "pocket" not in TRAINING


@pytest.mark.parametrize("name", ["tiny_stf", "nothing/like/it.yaml", "../configs/tiny_sft", "/tiny_sft", ""])
def test_an_unknown_name_lists_those_there_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError) as error:
        find(name)
    assert set(TRAINING) <= set(str(error.value).replace(",", " ").replace(")", " ").split())


def test_train_without_recordings_says_what_to_add(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guiderail", "train", "tiny_sft"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "add to the command data.train=FOLDER" in " ".join(capsys.readouterr().err.split())
