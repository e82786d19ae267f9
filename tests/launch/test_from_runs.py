"""guiderail data from-runs: whose attempts may become recordings."""

import pytest

from guiderail.agent.errors import SetupError
from guiderail.launch.byhand.commands import from_runs
from guiderail.rl.runs.log import run_log
from guiderail.rl.runs.record import About


def test_attempts_in_mobilegym_are_no_training_data(tmp_path):
    with run_log(tmp_path / "run", "run", About(model="person", world={"name": "mobilegym"})) as log:
        log.finish({})
    with pytest.raises(SetupError, match="run: MobileGym's terms say that its content is no training corpus"):
        from_runs([tmp_path / "run"], tmp_path / "data")
    assert not (tmp_path / "data").exists()
