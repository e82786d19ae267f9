"""One base model in this process, and one PEFT adapter after the other on it: the base is loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guiderail.agent.local.attention import fast_windows
from guiderail.agent.local.loading import load_encoder, load_model, put_adapter, with_adapter
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.shipped import shipped


class AdapterSwitch:
    """base: folder or hub name. device, dtype, features: as in `load_policy`.

    Only one adapter is in memory at a time, beside the base. Its policy answers as that of `load_policy(adapter)` does.
    """

    def __init__(self, base: str, device: str = "auto", dtype: str = "auto", features: Path | None = None):
        self.base, self.features = shipped(base), features
        self._plain = load_model(self.base, device, dtype)
        fast_windows(self._plain, self._plain.device)
        self._wrapped: Any = None
        self._number = 0
        self._store: VisionStore | None = None

    def policy(self, adapter: str | Path, *, max_prompt_tokens: int = 12288) -> LocalPolicy:
        """The base with this adapter; policies of earlier adapters are void from now on.

        Raises SetupError as `with_adapter` does; the adapter before then stays on the base.
        """
        if self._wrapped is None:
            self._wrapped = with_adapter(self._plain, adapter, self.base).eval()
        else:
            before, self._number = self._wrapped.active_adapter, self._number + 1
            put_adapter(self._wrapped, adapter, self.base, f"number-{self._number}")
            self._wrapped.delete_adapter(before)
        own = (Path(adapter) / "preprocessor_config.json").is_file()
        encoder = load_encoder(adapter if own else self.base, max_prompt_tokens=max_prompt_tokens)
        if self._store is None or not self._store.serves(encoder):
            self._store = VisionStore(encoder, folder=self.features)
        return LocalPolicy(self._wrapped, encoder, Path(adapter).name, store=self._store)
