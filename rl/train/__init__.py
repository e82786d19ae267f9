"""The update: TRL's trainer, its batches, checkpoints and arguments."""

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec

# DeepSpeed's logger writes for ever to what standard output is at its first import; standard output is for results.
if find_spec("deepspeed") is not None:
    with redirect_stdout(sys.stderr):
        import deepspeed  # noqa: F401
