"""The only place that builds concrete, heavy things: policies, dialogues, data sets, worlds."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from agent.dialects import DIALECTS
from agent.dialogue import Dialogue, Window
from agent.errors import SetupError
from agent.policy import Policy, Sampling
from agent.screen import Vision
from agent.scripted import ORIGINAL_SIZE, expert_policy, random_policy
from agent.shipped import shipped
from agent.types import Episode
from envs.episodes import Dataset, load_episodes
from envs.match import ALL_RULES, MatchRules
from rl.config import nearest

VOICE_FILE = "guiderail.json"


@dataclass(frozen=True, slots=True)
class Voice:
    """How a model was taught to speak; written next to its weights, so that evaluation asks it the way training did."""

    dialect: str = "guiderail"
    images: int = 2
    max_new_tokens: int = 512
    max_prompt_tokens: int = 12288
    window: Window = "sliding"

    def save(self, folder: Path) -> None:
        (folder / VOICE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_voice(folder: Path) -> Voice:
    """The voice of a model folder; the default for checkpoints that were not trained here."""
    file = folder / VOICE_FILE
    if not file.is_file():
        return Voice()
    try:
        return Voice(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise SetupError(f"{file} is no voice file ({error}); remove it or train again") from None


@dataclass(frozen=True, slots=True)
class Ask:
    """What the user said about who acts: exactly one of model, server, agent; None elsewhere means "as trained"."""

    model: str | None = None
    adapter: str | None = None
    server: str | None = None
    served_model: str | None = None
    agent: Literal["expert", "random"] | None = None
    dialect: str | None = None
    images: int | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Acting:
    """A policy and the dialogue it is addressed in. model: what was asked for, for the record."""

    policy: Policy
    dialogue: Dialogue
    voice: Voice
    model: str


def voice(ask: Ask) -> Voice:
    """How the agent is addressed, without building it. Raises SetupError unless exactly one of model, server and agent is
    given."""
    given = [name for name in ("model", "server", "agent") if getattr(ask, name) is not None]
    if len(given) != 1:
        raise SetupError(f"give exactly one of --model, --server, --agent; got {' and '.join(given) or 'none'}")
    taught = read_voice(Path(shipped(ask.model))) if ask.model else Voice(dialect="brief" if ask.agent else "guiderail")
    name = ask.dialect or taught.dialect
    if name not in DIALECTS:
        raise SetupError(f"unknown dialect {name!r}{nearest(name, DIALECTS)}")
    dialect = DIALECTS[name]
    if dialect.space == "original" and ask.model:
        raise SetupError(f"{name} counts pixels of the original screenshot; serve the model and give --server")
    images = ask.images or (taught.images if name == taught.dialect else dialect.images)
    return Voice(name, images, ask.max_new_tokens or taught.max_new_tokens, taught.max_prompt_tokens, taught.window)


def named(ask: Ask) -> str:
    """What was asked for, for the record."""
    return ask.model or ask.server or str(ask.agent)


def acting(ask: Ask, episodes: Sequence[Episode] = ()) -> Acting:
    """Build who acts. Raises SetupError unless exactly one of model, server and agent is given."""
    chosen = voice(ask)
    dialect = DIALECTS[chosen.dialect]
    policy = _policy(ask, chosen, episodes)
    vision = ORIGINAL_SIZE if dialect.space == "original" else policy.vision
    return Acting(policy, Dialogue(vision, dialect, chosen.images, chosen.window), chosen, named(ask))


def _policy(ask: Ask, voice: Voice, episodes: Sequence[Episode]) -> Policy:
    if ask.agent is not None:
        dialect = DIALECTS[voice.dialect]
        return expert_policy(episodes, dialect) if ask.agent == "expert" else random_policy(dialect)
    if ask.server is not None:
        from agent.served import ServedPolicy

        if ask.served_model is None:
            raise SetupError("--server also needs --served-model, the model id the server lists")
        served = ServedPolicy(ask.server, ask.served_model, Vision())
        served.check()
        return served
    require("torch", "train")
    quiet()
    from agent.local import load_policy

    return load_policy(
        str(ask.model), adapter=ask.adapter, max_prompt_tokens=voice.max_prompt_tokens, features=features_folder(None)
    )


def features_folder(given: str | None) -> Path | None:
    """Where vision features are kept from one command to the next, so that checkpoints with the same tower look at a
    screenshot once: what is given, else the environment's GUIDERAIL_FEATURES, else nowhere."""
    folder = given or os.environ.get("GUIDERAIL_FEATURES")
    return Path(folder) if folder else None


def dataset(path: str, screen: str | None, swipes: str, skip_bad: bool, limit: int | None) -> Dataset:
    """Load recordings as the command line describes them; screen is "WxH" or "infer"."""
    if swipes not in ("detect", "finger", "inverted"):
        raise SetupError(f"--swipes {swipes!r}{nearest(swipes, ('detect', 'finger', 'inverted'))}")
    return load_episodes(
        Path(path),
        screen=parse_screen(screen),
        swipes=swipes,  # type: ignore[arg-type]
        skip_bad=skip_bad,
        limit=limit,
    )


def parse_screen(text: str | None) -> tuple[int, int] | Literal["infer"] | None:
    if text is None or text == "infer":
        return text  # type: ignore[return-value]
    width, x, height = text.partition("x")
    if not x or not width.isdigit() or not height.isdigit():
        raise SetupError(f"--screen {text!r}: expected WIDTHxHEIGHT such as 1080x2400, or infer")
    return int(width), int(height)


def rules(name: str) -> MatchRules:
    if name not in ALL_RULES:
        raise SetupError(f"unknown rules {name!r}{nearest(name, ALL_RULES)}")
    return ALL_RULES[name]


def quiet() -> None:
    """transformers draws a bar for every file it reads or writes, and warns of its own future; neither is for our users."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from transformers.utils import logging

    logging.disable_progress_bar()


def require(module: str, extra: str) -> None:
    """SetupError that names the extra to install when `module` is missing."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise SetupError(f"this needs {module}, which is not installed; run: pip install 'guiderail[{extra}]'")


def sampling(voice: Voice, temperature: float) -> Sampling:
    return Sampling(temperature=temperature, max_new_tokens=voice.max_new_tokens)
