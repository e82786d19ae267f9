"""Pages of the site that are made from the code: the command line's own help, the config's keys, the benchmarks."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from guiderail.launch.cli import app
from guiderail.rl import config as configuration

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"../README.md": "index.md", "../benchmarks/README.md": "benchmarks.md"}
"""Links that leave docs/, and the pages of the site that they mean."""


def on_files(files: Files, config: Any) -> Files:
    made = {
        "reference/cli.md": commands(),
        "reference/config.md": keys(),
        "benchmarks.md": (ROOT / "benchmarks" / "README.md").read_text("utf-8"),
        "style.css": Path(__file__).with_name("style.css").read_text("utf-8"),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    for link, target in OUTSIDE.items():
        markdown = markdown.replace(f"]({link}", f"]({target}")
    if page.file.src_uri == "benchmarks.md":
        markdown = re.sub(r"\]\(\.\./docs/", "](", markdown)
    return markdown


SHIM = re.compile(r"https://unpkg\.com/iframe-worker/shim")
"""The theme's one request to another host: it makes search work in pages that were opened from disk. worker.js does that here."""


def on_post_page(output: str, page: Any, config: Any) -> str:
    return SHIM.sub("../" * page.file.src_uri.count("/") + "worker.js", output)


def on_post_build(config: Any) -> None:
    site = Path(config["site_dir"])
    shutil.copy(Path(__file__).with_name("worker.js"), site)
    missing = site / "404.html"
    missing.write_text(SHIM.sub("worker.js", missing.read_text("utf-8")), "utf-8")


# ------------------------------------------------------------------------------------------------------- command line


def commands() -> str:
    """Every command with its arguments and options, as the command line describes itself."""
    root = typer.main.get_command(app)
    return "# Command line\n\nGenerated from the commands themselves.\n\n" + "\n".join(_command(root, "guiderail"))


def _command(command: Any, name: str) -> Iterator[str]:
    if not command.hidden and hasattr(command, "commands"):
        for child in command.list_commands(None):
            yield from _command(command.commands[child], f"{name} {child}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    words = [argument.metavar or argument.name.upper() for argument in arguments]
    yield f"## {name}\n"
    yield f"{_text(command.help)}\n"
    yield f"```text\n{' '.join([name, *words])} [OPTIONS]\n```\n"
    if options:
        yield "| option | default | meaning |\n|---|---|---|"
        for option in options:
            shown = ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
            default = (
                "" if option.default in (None, False, (), "") or callable(option.default) else f"`{option.default}`"
            )
            yield f"| {shown} | {default} | {_text(option.help)} |"
        yield ""


def _text(help_: str | None) -> str:
    return re.sub(r"\s+", " ", help_ or "").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# ------------------------------------------------------------------------------------------------------------- config


def keys() -> str:
    """Every key of a training config with its type and default, section by section, from the pydantic models."""
    lines = ["# Config keys\n", f"{_paragraphs(configuration.__doc__)}\n"]
    for name, field in configuration.Config.model_fields.items():
        model = _model(field.annotation)
        if model is not None:
            lines += _section(name, model)
    lines += ["## training\n", f"{_paragraphs(inspect.getdoc(configuration.Config) or '')}\n"]
    lines += ["| key | default in RL |", "|---|---|"]
    lines += [f"| `training.{key}` | `{value}` |" for key, value in configuration.RL_DEFAULTS.items()]
    return "\n".join(lines) + "\n"


def _section(name: str, model: type[BaseModel]) -> list[str]:
    rest, meanings = explained(inspect.getdoc(model) or "", set(model.model_fields))
    lines = [f"## {name}\n", f"{_paragraphs(rest)}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    nested: list[str] = []
    for key, field in model.model_fields.items():
        inner = _model(field.annotation)
        kind = _text(re.sub(r"guiderail(\.\w+)+\.|typing\.", "", _type(field.annotation)))
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)}`"
        lines.append(f"| `{name}.{key}` | {kind} | {default} | {_text(meanings.get(key))} |")
        if inner is not None:
            nested += _section(f"{name}.{key}", inner)
    return [*lines, "", *nested]


def explained(text: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """A docstring in the house style, "key: what it means. other, third: ...", as (what explains no key, key -> meaning)."""
    listed = "|".join(sorted(names, key=len, reverse=True))
    parts = re.split(rf"(?:(?<=[.;])\s+|^)((?:{listed})(?:, (?:{listed}))*): ", text, flags=re.M)
    meanings: dict[str, str] = {}
    for keys_, meaning in zip(parts[1::2], parts[2::2], strict=True):
        for key in keys_.split(", "):
            meanings[key] = meaning.strip().rstrip(";.") + "."
    return parts[0].strip(), meanings


def _type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _model(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _paragraphs(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("<", "&lt;").replace("*", "\\*")
