"""Recordings, rules, dialects and optional libraries, as the command line names them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from guiderail.agent.dialects import DIALECTS, Dialect
from guiderail.agent.errors import SetupError
from guiderail.agent.origin import install
from guiderail.agent.registry import names_file, nearest
from guiderail.envs.recordings.conventions import UNDETERMINED
from guiderail.envs.recordings.episodes import Dataset, Swipes, load_episodes
from guiderail.envs.recordings.match import ALL_RULES, MatchRules
from guiderail.launch import show
from guiderail.launch.options import parse_size
from guiderail.rl.runs.record import Data

SWIPES: tuple[Swipes, ...] = get_args(Swipes)

_option = partial(typer.Option, rich_help_panel="Recordings")


@dataclass(frozen=True, slots=True)
class Reading:
    """How recordings are read."""

    screen: Annotated[str | None, _option(help="WxH or infer, for recordings without images")] = None
    swipes: Annotated[str, _option(help=f"how the file stores vertical swipes: {', '.join(SWIPES)}")] = "detect"
    skip_bad: Annotated[bool, _option("--skip-bad", help="drop broken episodes and list them")] = False
    limit: Annotated[int | None, _option(help="only the first N episodes", metavar="N")] = None

    def load(self, path: str) -> Dataset:
        """Raises SetupError and DataError."""
        return dataset(path, self.screen, self.swipes, self.skip_bad, self.limit)


def dataset(path: str, screen: str | None, swipes: str, skip_bad: bool, limit: int | None) -> Dataset:
    """Load recordings. screen: "WxH", "infer" or None. Raises SetupError and DataError."""
    convention = next((name for name in SWIPES if name == swipes), None)
    if convention is None:
        raise SetupError(f"--swipes {swipes!r}{nearest(swipes, SWIPES)}")
    return load_episodes(path, screen=parse_screen(screen), swipes=convention, skip_bad=skip_bad, limit=limit)


def parse_screen(text: str | None) -> tuple[int, int] | Literal["infer"] | None:
    """--screen as `load_episodes` takes it. Raises SetupError."""
    if text is None:
        return None
    return "infer" if text == "infer" else parse_size("--screen", text, ", or infer")


def describe(path: str, loaded: Dataset, screen: str | None) -> dict[str, Any]:
    """The recordings of a run, for its record. screen: as given to `dataset`."""
    return {
        "path": path,
        "digest": loaded.digest,
        "screen": screen,
        "swipes": loaded.swipes,
        "notes": loaded.notes,
        "episodes": len(loaded.episodes),
    }


def recorded_swipes(swipes: str | None) -> Swipes:
    """How a run read the vertical swipes of its file, from what its record says: undetermined ones as finger motion."""
    if swipes is None:
        return "detect"
    return "inverted" if swipes == "inverted" else "finger"


def dataset_of(source: Data, path: str | None = None) -> Dataset:
    """A run's recordings, read as the run read them. path: where they are now, if they moved. Raises SetupError when it is
    other data."""
    place = path or source.path
    loaded = dataset(place, source.screen, recorded_swipes(source.swipes), True, None)
    if loaded.digest != source.digest:
        raise SetupError(
            f"{place} is not the data of this run (digest {loaded.digest[:12]}, expected {source.digest[:12]}); "
            "give the right file with --data"
        )
    return loaded


def notes(loaded: Dataset, config: bool = False) -> None:
    """Print what the loader decided or dropped, on standard error. config: a config, not an option, says how swipes are
    stored."""
    if loaded.swipes == UNDETERMINED:
        show.err.print(f"warning: vertical swipes are {UNDETERMINED}", style="bold yellow", highlight=False)
    for line in (*loaded.notes, *(f"dropped {message}" for message in loaded.dropped)):
        line = line.replace("--swipes ", "data.swipes=") if config else line
        show.err.print(line, style="dim", markup=False, highlight=False)


def rules(name: str) -> MatchRules:
    """Match rules by name. Raises SetupError."""
    return ALL_RULES.find(name)


def dialect(name: str) -> Dialect:
    """A dialect by name. Raises SetupError."""
    return DIALECTS.find(name)


def trusted(run: Path, names: Iterable[str], trust_files: bool) -> None:
    """Raises SetupError where a run names files as its parts and the user has not said that they may be run: the run may
    come from somebody else."""
    files = sorted({name for name in names if names_file(name)})
    if files and not trust_files:
        raise SetupError(f"{run} names {', '.join(files)}, run as code; if you trust this, add --trust-files")


def require(module: str, extra: str) -> None:
    """Raises SetupError with the extra to install when `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise SetupError(f"this needs {module}, which is not installed; run: {install(extra)}")


def quiet() -> None:
    """Switch off what transformers prints about itself: a bar for every file, and warnings about its next version."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from transformers.utils import logging

    logging.disable_progress_bar()
