"""A model that looks at screens it was not made for: said once, wherever it is."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import SHIPPED
from guiderail.envs.pocket.record import record
from guiderail.launch.agents import Voice, read_voice
from guiderail.launch.cli import app
from guiderail.launch.screens import MOST_SIZES, other_screens, sizes_of


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def episodes(*sizes):
    return [SimpleNamespace(steps=[SimpleNamespace(screenshot=SimpleNamespace(width=w, height=h)) for w, h in sizes])]


def test_sizes_are_kept_unless_there_are_very_many():
    assert sizes_of(episodes((2, 3), (1, 2), (2, 3))) == ((1, 2), (2, 3))
    assert sizes_of(episodes(*((n, 9) for n in range(MOST_SIZES + 1)))) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_name_their_screens(name):
    assert read_voice(SHIPPED[name]).screens == ((160, 288),)


def test_the_voice_file_keeps_them(tmp_path):
    Voice(screens=((1, 2), (3, 4))).save(tmp_path)
    assert read_voice(tmp_path).screens == ((1, 2), (3, 4))
    Voice().save(tmp_path)
    assert read_voice(tmp_path) == Voice()
    for wrong in ({"screens": [1]}, {"screens": "all"}, {"screens": [["a", "b"]]}, []):
        (tmp_path / "guiderail.json").write_text(json.dumps(wrong))
        with pytest.raises(SetupError, match="expected a JSON object"):
            read_voice(tmp_path)


def test_only_other_sizes_are_worth_a_word(capsys):
    made = Voice(screens=((160, 288), (270, 600)))
    assert not other_screens("m", made, [(160, 288), (270, 600)])
    assert not other_screens("m", Voice(), [(1, 1)])
    assert not other_screens("m", made, None)
    assert capsys.readouterr().err == ""
    assert other_screens("m", made, [(160, 288), (1, 2), (3, 4), (5, 6), (7, 8)])
    said = " ".join(capsys.readouterr().err.split())
    assert "m was made for screens of 160x288, 270x600 pixels, not of 1x2, 3x4, 5x6 and 1 more" in said


def warnings_of(done):
    return " ".join(done.stderr.split()).count("was made for screens of 160x288 pixels, not of 176x320")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("larger")
    record(folder, 2, 0, size=(176, 320))
    return folder


def test_a_live_world_is_looked_at_once():
    pytest.importorskip("torch")
    pytest.importorskip("android_env")
    for wrong in ("20x40", "160x160"):
        assert "expected a width" in str(run("evaluate", "grounding", "--size", wrong).exception)
    done = run("evaluate", "pocket", "--model", "tiny-sft", "--tasks", 2, "--json", "--size", "176x320")
    assert (done.exit_code, warnings_of(done)) == (0, 1), done.output


@pytest.mark.slow
def test_every_command_warns_once(larger, tmp_path):
    done = run("evaluate", "grounding", "--screens", 1, "--size", "176x320", "--json", "--out", tmp_path / "g")
    assert (done.exit_code, warnings_of(done)) == (0, 1), done.output
    assert json.loads((tmp_path / "g" / "run.json").read_text())["legs"][0]["about"]["world"]["size"] == [176, 320]
    data = (larger, "--model", "tiny-sft", "--limit", 1, "--json")
    for command in ("sop", "offline", "likelihood"):
        done = run("evaluate", command, *data)
        assert (done.exit_code, warnings_of(done)) == (0, 1), done.output
    trained = run(
        "train",
        "tiny_sft",
        "model.path=tiny-sft",
        f"data.train={larger}",
        "training.max_steps=1",
        "--out",
        tmp_path / "t",
    )
    assert (trained.exit_code, warnings_of(trained)) == (0, 1), trained.output
    assert read_voice(tmp_path / "t" / "model").screens == ((176, 320),)
    own = run("evaluate", "sop", larger, "--model", tmp_path / "t" / "model", "--limit", 1, "--json")
    other = run("evaluate", "pocket", "--model", "tiny-sft", "--tasks", 1, "--json")
    for done in (own, other):
        assert (done.exit_code, "was made for" in done.stderr) == (0, False), done.output
