"""The commands around the tiny base: arguments arrive, results are one JSON object."""

import json

from typer.testing import CliRunner

from guiderail.agent.screen import Vision
from guiderail.launch.agents import read_voice
from guiderail.launch.cli import app

RUNNER = CliRunner()


def test_grounding_prints_one_object():
    said = RUNNER.invoke(app, ["evaluate", "grounding", "--seed", "5", "--screens", "3", "--json"])
    assert said.exit_code == 0, said.output
    result = json.loads(said.stdout)
    assert set(result) == {"generic", "pocket", "probe"}
    for source in ("generic", "pocket"):
        assert set(result[source]) == {"element", "state"}
        assert result[source]["element"]["n"] == 6
        assert result["probe"][source]["n"] == 6


def test_pretrain_hands_its_arguments_on_and_leaves_a_voice(tmp_path, monkeypatch):
    given = {}

    def pretrain(out, recipe, report, **options):
        given.update(options, seed=recipe.seed)
        row = {
            "step": 7,
            "minutes": 0.5,
            "reading_steps": 1,
            "loss_words": 0.25,
            "generic_where": 0.5,
            "pocket_where": 1.0,
        }
        report(row)
        (out / "preprocessor_config.json").write_text(json.dumps({"patch_size": 16, "merge_size": 1}))
        return row

    monkeypatch.setattr("guiderail.rl.tiny.pretrain.pretrain", pretrain)
    said = RUNNER.invoke(
        app, ["pretrain", "tiny", "--out", str(tmp_path), "--steps", "7", "--seed", "3", "--device", "cpu"]
    )
    assert said.exit_code == 0, said.output
    asked = {"steps": 7, "minutes": None, "seed": 3, "device": "cpu", "resume": False, "every": 100}
    assert given == asked | {"base": None, "recorded": ()}
    assert "step 7, 0.5 min, loss 0.25: where 0.50/1.00" in said.stderr
    assert (read_voice(tmp_path).dialect, read_voice(tmp_path).images) == ("brief", 1)
    assert read_voice(tmp_path).vision == Vision(16, 56 * 56, 28 * 28 * 1280)
