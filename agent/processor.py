"""How a checkpoint resizes screenshots, read from the files beside its weights; needs neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.origin import install
from guiderail.agent.screen import Vision
from guiderail.agent.shipped import shipped

FILES = ("processor_config.json", "preprocessor_config.json")  # transformers looks in this order
_DEFAULTS = {"patch_size": 14, "merge_size": 2}  # Qwen2VLImageProcessor's own
_BOUNDS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}


def checkpoint_vision(source: str) -> Vision:
    """The resize rule of a model folder, a shipped model or a hub id. Raises SetupError where there is none to read."""
    for file in _files(shipped(source)):
        content: object = _mapping(file)
        if isinstance(content, dict) and file.name == "processor_config.json":
            content = content.get("image_processor")
        if isinstance(content, dict):
            return _vision(file, content)
    raise SetupError(
        f"{source} has no image processor ({' or '.join(FILES)}); give the checkpoint that the server runs"
    )


def _vision(file: Path, content: Mapping[str, Any]) -> Vision:
    """Older files name the bounds min_pixels and max_pixels, which win over `size`."""
    given = content.get("size") or {}
    size = given if isinstance(given, dict) else dict.fromkeys(_BOUNDS, given)
    bounds = {**_BOUNDS, **{key: size[key] for key in _BOUNDS if key in size}}
    for key, old in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
        bounds[key] = content.get(old) or size.get(old) or bounds[key]
    patch, merge = (content.get(key, default) for key, default in _DEFAULTS.items())
    numbers = {"patch_size": patch, "merge_size": merge, **bounds}
    wrong = {key: value for key, value in numbers.items() if type(value) is not int or value < 1}
    if wrong:
        raise SetupError(f"{file}: {wrong}, expected whole numbers above 0; give the checkpoint that the server runs")
    return Vision(patch * merge, bounds["shortest_edge"], bounds["longest_edge"])


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"{file} cannot be read ({error}); give the checkpoint that the server runs") from None
    if not isinstance(content, dict):
        raise SetupError(f"{file} holds no JSON object; give the checkpoint that the server runs")
    return content


def _files(source: str) -> Iterator[Path]:
    """Those of `FILES` that the folder or the hub's repository has."""
    if Path(source).is_dir():
        yield from (file for name in FILES if (file := Path(source) / name).is_file())
        return
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise SetupError(f"no folder {source}; give the folder or the hub id of the checkpoint that the server runs")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError:
        raise SetupError(f"reading {source} from the hub needs huggingface_hub; run: {install('train')}") from None
    for name in FILES:
        try:
            yield Path(hf_hub_download(source, name))
        except EntryNotFoundError as error:
            if isinstance(error, FileNotFoundError) and name == FILES[-1]:  # offline, or not reachable
                raise _unreachable(source, error) from None
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise _unreachable(source, error) from None


def _unreachable(source: str, error: Exception) -> SetupError:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SetupError(
        f"{source} is neither a folder nor reachable on the hub ({said}); run `hf download {source} {FILES[-1]}`, or "
        "unset HF_HUB_OFFLINE"
    )
