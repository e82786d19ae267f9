"""The picture of the folders is true: imports run one way, without circles; torch stays in named rooms; only launch prints."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("agent", "envs", "patch", "rl", "launch")
BELOW = {  # room -> the rooms it may import besides itself; within rl every floor may import those before it
    "agent": (),
    "envs": ("agent",),
    "patch": ("agent",),
    "rl.credit": ("agent", "envs", "patch"),
    "rl.sections": ("agent", "envs", "patch", "rl.credit"),
    "rl.config": ("agent", "envs", "patch", "rl.credit", "rl.sections"),
    "rl.keys": ("agent", "envs", "patch", "rl.credit", "rl.sections", "rl.config"),
    "rl.rollout": ("agent", "envs", "patch", "rl.credit", "rl.sections", "rl.config", "rl.keys"),
    "rl.score": ("agent", "envs", "patch", "rl.credit", "rl.sections", "rl.config", "rl.keys", "rl.rollout"),
}
FLOOR = (*BELOW["rl.score"], "rl.score")
BELOW |= {"rl.train": FLOOR, "rl.runs": FLOOR, "rl.tiny": FLOOR}
BELOW["rl.distill"] = (*FLOOR, "rl.train")
BELOW["rl.live"] = (*FLOOR, "rl.train", "rl.runs", "rl.tiny")
BELOW["launch"] = (*BELOW["rl.live"], "rl.live", "rl.distill")
TORCH = {"torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "tokenizers"}
TORCH_FILES = ("rl/score/likelihood.py", "launch/train.py", "launch/teachers.py", "launch/bar.py", "launch/torchrun.py")
TORCH_ROOMS = ("agent/local/", "rl/train/", "rl/distill/", "rl/tiny/", *TORCH_FILES)
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name(path: Path) -> str:
    return "guiderail." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(path): path for path in FILES}


def room(module: str) -> str:
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "rl" and len(parts) > 1 else parts[0]


@cache
def imports(path: Path, top_level_only: bool = False) -> frozenset[str]:
    """Modules a file imports, by full name. `from package import x` names package.x where that is a module."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else str(node.module) for one in inside}
    return frozenset(found)


def upward(module: str, imported: frozenset[str]) -> set[str]:
    ours = {one for one in imported if one.startswith("guiderail.")}
    return (
        {one for one in ours if room(one) not in (*BELOW[room(module)], room(module))}
        if module != "guiderail.rl"
        else set()
    )


def circle(arrows: dict[str, set[str]]) -> list[str] | None:
    """A circle of arrows, first name repeated at the end; None where there is none."""
    done: set[str] = set()

    def visit(one: str, way: list[str]) -> list[str] | None:
        if one in way:
            return [*way[way.index(one) :], one]
        if one in done:
            return None
        for other in sorted(arrows.get(one, ())):
            if (found := visit(other, [*way, one])) is not None:
                return found
        done.add(one)
        return None

    return next((found for one in sorted(arrows) if (found := visit(one, [])) is not None), None)


def test_every_room_is_read():
    assert len(MODULES) > 180
    assert {room(module) for module in MODULES} == {*BELOW, "rl"}
    ours = [one for path in FILES for one in imports(path) if one.split(".")[0] == "guiderail"]
    assert len(ours) > 500, "imports are not seen; this test would say nothing"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    path = MODULES[module]
    assert not upward(module, imports(path))
    assert not {one.split(".")[0] for one in imports(path)} & set(ROOMS), "import guiderail.room, not room"
    if not str(path.relative_to(ROOT)).startswith(TORCH_ROOMS):
        assert not {one.split(".")[0] for one in imports(path, top_level_only=True)} & TORCH


def test_a_planted_violation_is_seen():
    assert upward("guiderail.agent.types", frozenset({"guiderail.rl.credit.reward"}))
    assert upward("guiderail.rl.credit.reward", frozenset({"guiderail.rl.rollout.drive"}))
    assert not upward("guiderail.launch.cli", frozenset({"guiderail.rl.live.jobs", "torch"}))
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) is None


def test_no_circle_between_files():
    arrows = {module: {one for one in imports(path) if one in MODULES} - {module} for module, path in MODULES.items()}
    assert circle(arrows) is None


def test_no_circle_between_folders():
    """At every depth: agent.local and agent.served are rooms as much as rl.credit and rl.train are."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES.values():
        here = name(path.parent / "__init__.py")
        there = {name(MODULES[one].parent / "__init__.py") for one in imports(path) if one in MODULES}
        nested = {one for one in there if one.startswith(here + ".") or here.startswith(one + ".")}
        arrows.setdefault(here, set()).update(there - nested - {here})
    assert circle(arrows) is None


@pytest.mark.parametrize("module", MODULES)
def test_only_launch_prints(module):
    calls = [node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Call)]
    prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or module.startswith("guiderail.launch.")
