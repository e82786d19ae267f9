"""Groups of options: declared once, offered by every command that takes the group, with that command's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.launch.agents import AgentSpec
from guiderail.launch.cli import ORDER, app
from guiderail.launch.evaluate.live import LiveOptions
from guiderail.launch.options import Fixed, one_of, parse_size, spread


@dataclass(frozen=True, slots=True)
class Paint:
    colour: Annotated[str, typer.Option(help="a name")]
    coats: int = 1
    dry_first: Annotated[bool, typer.Option("--dry-first")] = False


def painted(command, *words):
    """What the command received, or None when Typer refused the words."""
    seen = []
    little = typer.Typer()
    little.command()(spread(command(seen)))
    result = CliRunner().invoke(little, [str(word) for word in words])
    return seen[0] if result.exit_code == 0 else None


def required(seen):
    def paint(wall: Annotated[str, typer.Argument()], how: Paint, seed: int = 3) -> None:
        """Paint a wall."""
        seen.append((wall, how, seed))

    return paint


def own_defaults(seen):
    def paint(how: Annotated[Paint, Fixed("coats")] = Paint("red", coats=7)) -> None:
        seen.append(how)

    return paint


def test_a_group_arrives_whole():
    given = painted(required, "north", "--colour", "blue", "--coats", 2, "--dry-first", "--seed", 4)
    assert given == ("north", Paint("blue", 2, True), 4)
    assert painted(required, "north", "--colour", "blue") == ("north", Paint("blue"), 3)
    assert painted(required, "north") is None


def test_a_command_has_its_own_defaults_and_keeps_what_it_does_not_offer():
    assert painted(own_defaults) == Paint("red", 7)
    assert painted(own_defaults, "--colour", "blue") == Paint("blue", 7)
    assert painted(own_defaults, "--coats", 2) is None


def test_names_and_sizes_say_what_is_expected():
    assert one_of("--style", "free", ("easy", "free")) == "free"
    with pytest.raises(SetupError, match="--style 'wild': expected easy or free"):
        one_of("--style", "wild", ("easy", "free"))
    assert parse_size("--size", "160x288") == (160, 288)
    for text in ("big", "160", "x288", "-1x5", "²x5", ""):
        with pytest.raises(SetupError, match=r"--size .*expected WIDTHxHEIGHT"):
            parse_size("--size", text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"executor": "threads"}, "--executor 'threads': expected processes or ray"),
        ({"workers": 0}, "--workers 0: expected 1 or more"),
        ({"retries": -1}, "--retries -1: expected 0 or more"),
    ],
)
def test_a_wrong_value_names_its_option(values, message):
    with pytest.raises(SetupError, match=message):
        LiveOptions(**values)


@pytest.mark.parametrize("command", ["sop", "offline", "screenspot"])
def test_nobody_waits_for_a_width_of_none(command):
    done = CliRunner().invoke(app, ["evaluate", command, "none", "--agent", "random", "--width", "0"])
    assert done.exit_code == 2
    assert "greater than or equal to 1" in " ".join(done.output.split())


def test_scripted_agents_are_two():
    with pytest.raises(SetupError, match="--agent 'oracle': expected expert or random or claim"):
        AgentSpec(agent="oracle")


def test_help_lists_commands_in_the_order_of_work():
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout
    places = [shown.index(f"│ {name} ") for name in ORDER]
    assert places == sorted(places)
    assert all(f"─ {panel} ─" in shown for panel in ("Data", "Train", "Score", "Look", "Share"))
