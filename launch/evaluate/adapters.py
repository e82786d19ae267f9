"""--adapters: many PEFT adapters over one base, which is loaded once, in this process or by a vLLM server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import adapter_base, check_adapter, shipped
from guiderail.agent.types import Episode
from guiderail.launch import parts, show
from guiderail.launch.agents import Agent, AgentSpec, agent_of, build_agent, features_folder, voice, voice_file

MakeAgent = Callable[[], Agent]


@dataclass(frozen=True, slots=True)
class Adapters:
    """Which adapters are scored, one after the other, instead of one agent."""

    adapters: Annotated[
        list[str] | None,
        typer.Option(
            help="PEFT adapter folder, or training run whose checkpoints are adapters; may be given again. All are scored "
            "over one base: --model, else the one that they name, or that of a vLLM --server. Each has a run folder in --out",
            metavar="DIR",
            rich_help_panel="Agent: one of --model, --server, --agent",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who is scored. name: its folder below --out, and its row; empty where nobody else is scored. make: loads it; those made
    before cannot answer any more."""

    name: str
    make: MakeAgent


@contextmanager
def entrants(who: AgentSpec, many: Adapters, episodes: Sequence[Episode]) -> Iterator[list[Entrant]]:
    """The agent, or with --adapters an agent for each. Raises SetupError."""
    if not many.adapters:
        yield [Entrant("", partial(build_agent, who, episodes))]
        return
    if who.agent is not None:
        raise SetupError("--adapters goes on a --model or a --server; remove --agent")
    if who.model is not None and who.server is not None:
        raise SetupError("--adapters goes on a --model or a --server; remove one of them")
    found = {name_of(folder): folder for folder in adapter_folders(many.adapters)}
    with _served(who, found) if who.server else _local(who, found) as made:
        yield made


def adapter_folders(given: Sequence[str]) -> list[Path]:
    """Every adapter: the folders themselves, and of a run its checkpoints in order, then its last model where that is not the
    last checkpoint's. Raises SetupError for a folder without any, and for two adapters of one name."""
    found: list[Path] = []
    for name in given:
        folder = Path(name)
        if _is_adapter(folder):
            found.append(folder)
            continue
        if not folder.is_dir():
            check_adapter(name, "--adapters ")
            raise SetupError(f"no adapter folder {name}; give --adapters FOLDER")
        numbered = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
        inside = [*sorted(numbered, key=lambda path: int(path.name.split("-")[-1])), folder / "model"]
        inside = [path for path in inside if _is_adapter(path)]
        if not inside:
            raise SetupError(f"{name} holds no adapter, and no checkpoint that is one; give --adapters FOLDER")
        if len(inside) > 1 and inside[-1].name == "model" and _digest(inside[-1]) == _digest(inside[-2]):
            inside.pop()
        found += inside
    names = [name_of(folder) for folder in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SetupError(f"--adapters names {twice} twice; their results would lie in one folder: score them apart")
    return found


def name_of(folder: Path) -> str:
    """Of an adapter: its folder's name, behind that of its run."""
    whole = folder.resolve()
    inside = whole.name == "model" or whole.name.startswith("checkpoint-")
    return f"{whole.parent.name}-{whole.name}" if inside else whole.name


def below(out: Path | None, name: str) -> Path | None:
    """The run folder of an entrant."""
    return None if out is None else out / name


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _digest(folder: Path) -> str:
    """Of the adapter's weights and settings; also the name of a served adapter, under which vLLM may keep what it computed."""
    files = sorted([*folder.glob("adapter_model.*"), folder / "adapter_config.json"])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def check_bases(found: dict[str, Path], base: str, where: str) -> None:
    """Raises SetupError for an adapter that names another base than `base`, which stands in `where`. A base that the adapter
    names and that is not on this machine cannot be compared; a note says so."""
    for folder in found.values():
        named = adapter_base(folder)
        one, other = Path(shipped(named)), Path(shipped(base))
        both, neither = one.exists() and other.exists(), not one.exists() and not other.exists()
        if named == base or (both and one.resolve() == other.resolve()):
            continue
        if both or (neither and one.name != other.name):
            raise SetupError(
                f"adapter {folder} belongs to the base {named}, {where} is {base}; score it in a command of its own, with "
                f"--model {named}"
            )
        show.err.print(
            f"{folder} names its base {named}, which is not here to be compared with {base}",
            style="yellow",
            markup=False,
            highlight=False,
        )


# --------------------------------------------------------------------------------------------------------- this process


@contextmanager
def _local(who: AgentSpec, found: dict[str, Path]) -> Iterator[list[Entrant]]:
    parts.require("torch", "train")
    parts.quiet()
    from guiderail.agent.local.adapters import AdapterSwitch

    base = who.model or adapter_base(next(iter(found.values())))
    check_bases(found, base, "--model" if who.model else "that of the first adapter")
    switch: AdapterSwitch | None = None

    def make(folder: Path) -> Agent:
        nonlocal switch
        if switch is None:
            switch = AdapterSwitch(base, features=features_folder(None))
        spoken = voice(replace(who, model=str(folder if voice_file(folder) is not None else base)))
        return agent_of(switch.policy(folder, max_prompt_tokens=spoken.max_prompt_tokens), spoken, str(folder))

    yield [Entrant(name, partial(make, folder)) for name, folder in found.items()]


# --------------------------------------------------------------------------------------------------------- vLLM server


@contextmanager
def _served(who: AgentSpec, found: dict[str, Path]) -> Iterator[list[Entrant]]:
    """The server loads an adapter when its turn comes, and drops the one before."""
    if who.served_model is None:
        raise SetupError("--server also needs --served-model, the model id that the server lists")
    from guiderail.agent.served.vllm.adapters import ServedAdapters

    server = ServedAdapters(str(who.server), who.served_model, who.request_timeout)
    check_bases(found, server.base, f"that of {who.served_model} on the server")

    def make(folder: Path) -> Agent:
        name = f"{name_of(folder)}-{_digest(folder)[:12]}"
        server.load(name, folder)
        source = who.processor or str(folder if voice_file(folder) is not None else server.base)
        made = build_agent(replace(who, model=None, served_model=name, processor=source))
        return replace(made, model=str(folder))

    try:
        yield [Entrant(name, partial(make, folder)) for name, folder in found.items()]
    finally:
        server.close()
