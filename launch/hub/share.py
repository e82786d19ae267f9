"""The Python API, continued: what goes to the Hub and to other tools, each as one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guiderail.envs.recordings.sources import Table
from guiderail.launch import parts


def export(data: str | Path | Table, out: str | Path, *, split: str = "train") -> dict[str, Any]:
    """Write recordings as a data set for the Hub: parquet files with the pictures in them, and a card, in the new folder `out`.

    Returns {"written", "episodes", "steps", "files"}. Raises SetupError, DataError.
    """
    from guiderail.envs.imports.parquet import export_hf

    return export_hf(data, Path(out), split)


def merge(adapter: str | Path, out: str | Path, *, base: str | None = None, dtype: str = "auto") -> Path:
    """Add a LoRA adapter into its base model, as the new folder `out`, which plain transformers loads; returns it.

    base: if not the model that the adapter names. dtype: of the weights, "auto" for the base's own. Raises SetupError.
    """
    from guiderail.agent.shipped import adapter_base, shipped
    from guiderail.launch.agents import VOICE_FILE, read_voice

    parts.require("torch", "train")
    from guiderail.agent.local.merge import merge_adapter

    folder, model = Path(adapter), base or adapter_base(adapter)
    parts.quiet()
    voice = read_voice(folder if (folder / VOICE_FILE).is_file() else Path(shipped(model)))
    merge_adapter(folder, Path(out), base=model, dtype=dtype, finish=voice.save)
    return Path(out)


def push(
    run: str | Path,
    repo: str,
    *,
    model: str | Path | None = None,
    scores: Sequence[str | Path] = (),
    private: bool = False,
) -> str:
    """Upload the model of a training to the Hub, with a card filled from the run; returns its address.

    repo: NAME or OWNER/NAME. model: its folder, where it is not `run`/model. scores: run folders of evaluations of this
    model. Raises SetupError without a token, for scores of another model, and where the Hub refuses.
    """
    from guiderail.launch.hub import model_card
    from guiderail.launch.hub.push import push as pushed

    made = model_card.trained(Path(run), None if model is None else Path(model))
    return pushed(made, repo, [Path(folder) for folder in scores], private=private)
