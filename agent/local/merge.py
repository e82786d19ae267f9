"""An adapter added into the weights of its base model: a folder that needs no PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig

from guiderail.agent.disk import new_folder
from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_encoder, load_model, with_adapter
from guiderail.agent.shipped import adapter_base, shipped


def merge_adapter(
    adapter: Path,
    out: Path,
    *,
    base: str | None = None,
    dtype: str = "auto",
    finish: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write base + adapter as the new folder `out`, with tokenizer and image processor; on the CPU.

    base: the model to merge into, by default the one that the adapter names. dtype: of the weights that are written; "auto"
    is the base's own. finish: adds files before the folder appears. Raises SetupError for an adapter that does not fit, weights
    that are not finite, and a filled `out`.
    """
    base = base or adapter_base(adapter)
    with new_folder(out) as folder:
        model = load_model(base, "cpu", _dtype_of(base) if dtype == "auto" else dtype)
        try:
            # Checks that no merged weight is NaN or infinite.
            merged = with_adapter(model, adapter, base).merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise SetupError(f"{adapter} cannot be merged into {base}: {error}") from error
        merged.save_pretrained(folder)
        own = any((adapter / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
        load_encoder(adapter if own else base).save(folder)
        finish(folder)


def _dtype_of(base: str) -> str:
    """In which the checkpoint is stored."""
    try:
        stored = AutoConfig.from_pretrained(shipped(base)).dtype
    except (OSError, ValueError):
        stored = None  # `load_model` says what is wrong
    return str(stored or "float32").removeprefix("torch.")
