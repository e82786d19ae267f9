"""Who acts: a model, a server or a scripted agent, with the dialect, prompt and limits that it was trained with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue, Window
from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Policy, Sampling
from guiderail.agent.processor import checkpoint_vision
from guiderail.agent.registry import names_file
from guiderail.agent.screen import Vision
from guiderail.agent.scripted import ORIGINAL_SIZE, claim_policy, expert_policy, random_policy
from guiderail.agent.shipped import adapter_base, check_model, shipped
from guiderail.agent.types import Episode
from guiderail.launch import parts
from guiderail.launch.options import one_of

VOICE_FILE = "guiderail.json"
AGENTS = ("expert", "random", "claim")


@dataclass(frozen=True, slots=True)
class Voice:
    """How a model was trained to be prompted. Written next to its weights, so that evaluation prompts it the same way.

    vision: how it resizes screenshots, for who asks it through a server. None: not known, or nobody's (scripted agents).
    screens: (width, height) in pixels of the screens it was trained on; None where that is not known, or any size will do.
    """

    dialect: str = "guiderail"
    images: int = 2
    max_new_tokens: int = 512
    max_prompt_tokens: int = 12288
    window: Window = "sliding"
    vision: Vision | None = None
    screens: tuple[tuple[int, int], ...] | None = None

    def save(self, folder: Path) -> None:
        (folder / VOICE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_voice(folder: Path) -> Voice:
    """The voice of a model folder. Of a folder that holds none: that of its run for a checkpoint of an earlier release, its
    base's for an adapter, else the default voice."""
    file = voice_file(folder)
    if file is None:
        return Voice()
    try:
        content = json.loads(file.read_text())
        if content.get("vision") is not None:
            content["vision"] = vision = Vision(**content["vision"])
            if any(type(value) is not int or value < 1 for value in asdict(vision).values()):
                raise ValueError(f"vision is {asdict(vision)}, expected whole numbers above 0")
        if content.get("screens") is not None:
            content["screens"] = tuple((int(width), int(height)) for width, height in content["screens"])
        return Voice(**content)
    except (ValueError, TypeError, AttributeError) as error:
        keys = ", ".join(Voice.__dataclass_fields__)
        raise SetupError(
            f"{file}: {error}; expected a JSON object with {keys}; delete the file to use the defaults, or train again"
        ) from None


def voice_file(folder: Path) -> Path | None:
    """Where the voice of a model folder stands, if anywhere."""
    places = [folder / VOICE_FILE]
    if folder.name.startswith("checkpoint-"):
        places.append(folder.parent / "model" / VOICE_FILE)
    if (folder / "adapter_config.json").is_file():
        places.append(Path(shipped(adapter_base(folder))) / VOICE_FILE)
    return next((file for file in places if file.is_file()), None)


_option = partial(typer.Option, rich_help_panel="Agent: one of --model, --server, --agent")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What the user said about who acts. None means: as the model was trained."""

    model: Annotated[str | None, _option(help="model or adapter folder, or hub id")] = None
    server: Annotated[str | None, _option(help="OpenAI-compatible URL, such as http://127.0.0.1:8000/v1")] = None
    served_model: Annotated[str | None, _option(help="model id on the server")] = None
    processor: Annotated[
        str | None, _option(help="folder or hub id of the checkpoint that the server runs: how it resizes screenshots")
    ] = None
    agent: Annotated[
        str | None, _option(help="expert, random or claim (success at once): a scripted agent instead of a model")
    ] = None
    concurrency: Annotated[int, _option(help="requests to --server at once, over all episodes")] = 64
    request_timeout: Annotated[
        float,
        _option(help="seconds for one answer of --server, all tries; a server silent for longer ends the command"),
    ] = 60.0
    dialect: Annotated[
        str | None, _option(help=f"{', '.join(DIALECTS)}, or path/to/file.py:NAME; default: as trained")
    ] = None
    images: Annotated[int | None, _option(help="screenshots per prompt, the current one included")] = None
    max_new_tokens: Annotated[int | None, _option(help="longest answer, in tokens")] = None

    def __post_init__(self) -> None:
        if self.agent is not None:
            one_of("--agent", self.agent, AGENTS)
        if self.processor is not None and self.server is None:
            raise SetupError("--processor says what a server runs; give it with --server, or remove it")
        for option, value in (("--images", self.images), ("--max-new-tokens", self.max_new_tokens)):
            if value is not None and value < 1:
                raise SetupError(f"{option} {value}: expected 1 or more")

    @property
    def name(self) -> str:
        """The model, server or agent as the user named it: for the record."""
        return self.model or self.server or str(self.agent)


@dataclass(frozen=True, slots=True)
class Agent:
    """A policy and the dialogue that prompts it. model: `AgentSpec.name`."""

    policy: Policy
    dialogue: Dialogue
    voice: Voice
    model: str


def voice(spec: AgentSpec) -> Voice:
    """How the agent is prompted, without building it. Raises SetupError unless exactly one of model, server and agent is
    given."""
    given = [name for name in ("model", "server", "agent") if getattr(spec, name) is not None]
    if len(given) != 1:
        raise SetupError(f"give exactly one of --model, --server, --agent; got {' and '.join(given) or 'none'}")
    if spec.model is not None:
        check_model(spec.model, "--model ")
    if spec.server is not None and spec.served_model is None:
        raise SetupError("--server also needs --served-model, the model id that the server lists")
    trained = _trained(spec)
    name = spec.dialect or trained.dialect
    if spec.dialect is None and names_file(name):
        raise SetupError(
            f"{spec.name} was trained with the dialect {name}, a file that is run as code; if you trust it, add "
            f"--dialect {name}"
        )
    dialect = parts.dialect(name)
    if dialect.space == "original" and spec.model:
        raise SetupError(f"{name} counts pixels of the original screenshot; serve the model and give --server")
    if dialect.space == "picture" and spec.server and trained.vision is None:
        raise SetupError(
            f"{name} counts pixels of the picture as the model resizes it, and how {spec.served_model} resizes is not "
            "known; add --processor FOLDER or HUB_ID, the checkpoint that the server runs"
        )
    return replace(
        trained,
        dialect=name,
        images=spec.images or (trained.images if name == trained.dialect else dialect.images),
        max_new_tokens=spec.max_new_tokens or trained.max_new_tokens,
    )


def _trained(spec: AgentSpec) -> Voice:
    """The voice beside the weights, as far as they can be seen. A server may list its model by the folder that it loaded."""
    if spec.model:
        return read_voice(Path(shipped(spec.model)))
    if spec.server is None:
        return Voice(dialect="brief")
    if spec.served_model is None:
        raise SetupError("--server also needs --served-model, the model id that the server lists")
    source = spec.processor or spec.served_model
    folder = Path(shipped(source))
    known = read_voice(folder)
    if known.vision is not None or (spec.processor is None and not folder.is_dir()):
        return known
    return replace(known, vision=checkpoint_vision(source))


def build_agent(spec: AgentSpec, episodes: Sequence[Episode] = ()) -> Agent:
    """Build who acts. episodes: what the scripted expert knows. Raises SetupError unless exactly one of model, server and
    agent is given."""
    chosen = voice(spec)
    return agent_of(_policy(spec, chosen, episodes), chosen, spec.name)


def agent_of(policy: Policy, voice: Voice, model: str) -> Agent:
    """The agent that prompts `policy` in this voice."""
    dialect = parts.dialect(voice.dialect)
    vision = ORIGINAL_SIZE if dialect.space == "original" else policy.vision
    return Agent(policy, Dialogue(vision, dialect, voice.images, voice.window), voice, model)


def _policy(spec: AgentSpec, voice: Voice, episodes: Sequence[Episode]) -> Policy:
    if spec.agent is not None:
        dialect = parts.dialect(voice.dialect)
        if spec.agent == "expert":
            return expert_policy(episodes, dialect)
        return random_policy(dialect) if spec.agent == "random" else claim_policy(dialect)
    if spec.server is not None:
        from guiderail.agent.served.openai import ServedPolicy

        # Where coordinates do not depend on the model's picture, an unknown model gets the original and resizes it itself.
        served = ServedPolicy(
            spec.server,
            str(spec.served_model),
            voice.vision or ORIGINAL_SIZE,
            concurrency=spec.concurrency,
            deadline=spec.request_timeout,
        )
        served.check()
        return served
    parts.require("torch", "train")
    parts.quiet()
    from guiderail.agent.local.policy import load_policy

    return load_policy(str(spec.model), max_prompt_tokens=voice.max_prompt_tokens, features=features_folder(None))


def sampling(voice: Voice, temperature: float) -> Sampling:
    return Sampling(temperature=temperature, max_new_tokens=voice.max_new_tokens)


def features_folder(given: str | None) -> Path | None:
    """The folder that keeps vision features from one command to the next: `given`, else the environment's
    GUIDERAIL_FEATURES, else none. Checkpoints with the same vision tower then encode a screenshot only once."""
    folder = given or os.environ.get("GUIDERAIL_FEATURES")
    return Path(folder) if folder else None
