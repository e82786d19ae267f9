"""The documents are true: links and file names exist, and every command of theirs is one that guiderail understands."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from guiderail.agent.errors import SetupError
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.cli import app
from guiderail.rl.config import load_config

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "launch" / "configs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "agent" / "models").rglob("*.md"))
FOLDERS = ("agent", "envs", "patch", "rl", "launch", "tests", "docs", "benchmarks")
FILE = re.compile(rf"(?:\./)?((?:{'|'.join(FOLDERS)})/[\w./*-]*)")
ROOT_COMMAND = typer.main.get_command(app)


def fences(text: str, language: str = "") -> list[str]:
    """The code blocks of a page, of one language or of all."""
    return [code for kind, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if language in ("", kind)]


def spans(text: str) -> list[str]:
    """What stands in backticks, outside code blocks. A span may go on in the next line."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def typed(text: str) -> list[str]:
    """Command lines of a page's shell blocks and of its indented blocks, continued lines joined."""
    indented = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    shell = "\n".join([*fences(text, "bash"), indented]).replace("\\\n", " ")
    return [line.strip() for line in shell.splitlines() if line.strip().startswith("guiderail ")]


def command(words: list[str]):
    """The command that the words after `guiderail` name, and the words that are left for it."""
    found, left = ROOT_COMMAND, list(words)
    while hasattr(found, "commands"):
        assert left, "a group of commands needs a name after it"
        assert left[0] in found.commands, f"{left[0]!r} is none of {', '.join(found.commands)}"
        found = found.commands[left.pop(0)]
    return found, left


def check_line(line: str) -> None:
    """A whole command line: names, options, required arguments; for train also the config and its overrides."""
    words = shlex.split(line, comments=True)[1:]
    if words in (["--version"], ["--install-completion"]):
        return
    found, left = command(words)
    with found.make_context(found.name, left) as context:
        given = context.params
    config = Path(given.get("config", ""))
    if found.name == "train" and (not config.suffix or config.parts[0] in FOLDERS):  # else a file of the reader's own
        load_config(ROOT / config if config.suffix else CONFIGS / f"{config}.yaml", given["overrides"] or [])


def check_span(span: str) -> None:
    """A command named in a sentence: it exists and has these options; arguments may be missing."""
    found, left = command(shlex.split(span)[1:])
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in left if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page}: link to {target}"
    for span in [*spans(text), *[word for code in fences(text) for word in code.split()]]:
        if path := FILE.fullmatch(span.rstrip(".,:;")):
            assert any(ROOT.glob(path[1].rstrip("/"))), f"{page}: {span}"


def test_modules_that_the_house_page_names_exist():
    named = set(re.findall(r"[\w/]+\.py\b", (ROOT / "docs" / "house.md").read_text()))
    assert len(named) > 10
    modules = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert not {one for one in named if not any(module.match(one) for module in modules)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page):
    text = page.read_text()
    for line in typed(text):
        check_line(line)
    for span in spans(text):
        if span.startswith("guiderail ") and "..." not in span and "KEY=VALUE" not in span:
            check_span(span)


def test_the_check_sees_what_is_wrong():
    assert len(typed((ROOT / "README.md").read_text())) > 10
    check_line("guiderail evaluate sop data/test --model x  # a comment")
    check_span("guiderail evaluate sop --rules")
    with pytest.raises(Exception, match="No such option"):
        check_line("guiderail evaluate sop data/test --modle x")
    with pytest.raises(Exception, match="Missing"):
        check_line("guiderail explain runs/rl --step 0")
    with pytest.raises(AssertionError, match="none of"):
        check_line("guiderail evaluate everything")
    with pytest.raises(SetupError, match="freeze_vison"):
        check_line("guiderail train tiny_sft model.freeze_vison=true")
    assert spans("`a\n b` and ```c```")[0] == "a b"


def test_the_shown_episode_loads(tmp_path):
    example, *_ = fences((ROOT / "docs" / "use.md").read_text(), "json")
    file = tmp_path / "episodes.jsonl"
    file.write_text(json.dumps(json.loads(example)))
    (episode,) = load_episodes(file, screen=(1080, 2400)).episodes
    assert [step.action.name for step in episode.steps] == ["open", "swipe", "click", "terminate"]
    assert episode.steps[1].action.direction == "up"
    assert episode.steps[2].boxes
    assert episode.steps[2].thought == "There it is."
