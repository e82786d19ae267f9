"""Models by name: those that come with the package, folders, hub ids. Nothing is loaded."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from guiderail.agent.errors import SetupError

_HERE = Path(__file__).parent
SHIPPED = {"tiny-base": _HERE / "models" / "tiny-base", "tiny-sft": _HERE / "models" / "tiny-sft"}
_CONFIGS = ("config.json", "adapter_config.json")


def shipped(name: str | Path) -> str:
    """The folder of a shipped model; any other name, path or hub id unchanged. An existing path comes first."""
    return str(name if Path(name).exists() else SHIPPED.get(str(name), name))


def check_model(name: str, option: str) -> None:
    """Raises SetupError where `name` can be no model: a folder without one, a path that is not there, or almost the name of a
    shipped model. option: what the user gives it with, such as "--model ". A hub id passes: only loading it can tell."""
    path = Path(shipped(name))
    if path.is_dir():
        if any((path / file).is_file() for file in _CONFIGS):
            return
        below = path / "model"
        if any((below / file).is_file() for file in _CONFIGS):
            raise SetupError(f"{name} is a run folder; its model is in {below}; give {option}{below}")
        raise SetupError(f"{name} holds no model: no config.json in it; give {option}FOLDER or a hub id")
    if path.exists():
        raise SetupError(f"{name} is a file; give the folder that holds the model: {option}FOLDER")
    close = difflib.get_close_matches(name, SHIPPED, n=1, cutoff=0.75)
    if close:
        raise SetupError(
            f"no model {name}; did you mean {close[0]}, which comes with guiderail? give {option}{close[0]}"
        )
    if (
        not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
        or name.startswith(".")
        or (len(path.parts) > 1 and Path(path.parts[0]).is_dir())
    ):
        raise SetupError(f"no model folder {name}; give {option}FOLDER, a hub id, or one of {', '.join(SHIPPED)}")


def check_adapter(name: str, option: str) -> None:
    """Raises SetupError where `name` is a path without an adapter. A hub id passes."""
    path = Path(name)
    if path.is_dir() and not (path / "adapter_config.json").is_file():
        raise SetupError(f"{name} holds no adapter: no adapter_config.json in it; give {option}FOLDER")
    if not path.exists() and (path.is_absolute() or name.startswith(".") or Path(path.parts[0]).is_dir()):
        raise SetupError(f"no adapter folder {name}; give {option}FOLDER")


def adapter_base(folder: str | Path) -> str:
    """Name or path of the model that an adapter folder was trained on. Raises SetupError where the folder has none."""
    file = Path(folder) / "adapter_config.json"
    merge = f"join it with its base: guiderail model merge {folder} --base MODEL --out FOLDER"
    try:
        base = json.loads(file.read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(f"{file} names no base model ({error}); {merge}") from error
    if not isinstance(base, str) or not base:
        raise SetupError(f"{file} names no base model; {merge}")
    return base
