"""The training section of a config as arguments: what cannot work is said before anything is built."""

import importlib.util

import pytest

from guiderail.agent.errors import SetupError
from guiderail.rl.train.arguments import make_sft_args


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
@pytest.mark.parametrize("wanted", ["wandb", ["tensorboard", "wandb"]])
def test_a_tracker_that_is_missing_is_named(tmp_path, wanted):
    with pytest.raises(
        SetupError, match=r"training\.report_to names wandb, which is not installed; run: pip install wandb"
    ):
        make_sft_args({"max_steps": 1, "report_to": wanted}, tmp_path)
