"""The picture of the folders is true: imports run one way, torch stays in a few named files, only launch prints."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "agent": {"agent"},
    "envs": {"agent", "envs"},
    "patch": {"agent", "patch"},
    "rl": {"agent", "envs", "patch", "rl"},
    "launch": {"agent", "envs", "patch", "rl", "launch"},
}
TORCH = {"torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "tokenizers"}
TORCH_FILES = {
    "agent/decode.py",
    "agent/encode.py",
    "agent/local.py",
    "agent/tiny.py",
    "agent/tree.py",
    "agent/vision.py",
    "rl/batch.py",
    "rl/checkpoints.py",
    "rl/engine.py",
    "rl/packs.py",
    "rl/pretrain.py",
    "rl/likelihood.py",
    "rl/vllm.py",
    "rl/trainer.py",
    "rl/tree.py",
    "rl/sft.py",
    "launch/train.py",
}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    assert imports(path) & set(MAY_IMPORT) <= MAY_IMPORT[folder]
    if str(path.relative_to(ROOT)) not in TORCH_FILES:
        assert not imports(path, top_level_only=True) & TORCH


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_launch_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or path.relative_to(ROOT).parts[0] == "launch"
