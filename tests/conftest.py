"""Shared by all tests: offline, one thread, and two hand-made episodes."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF, GUIDERAIL
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.screen import Vision
from guiderail.agent.types import Box, Click, Episode, Point, Screenshot, Step, Swipe, TargetBox, Terminate, Type

REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue(Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7), GUIDERAIL)


@pytest.fixture
def brief() -> Dialogue:
    return Dialogue(Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7), BRIEF)


@pytest.fixture
def episode() -> Episode:
    """Four steps, each with its own screenshot size-wise alike: click, type, swipe up, terminate."""
    actions = [Click(Point(0.5, 0.25)), Type("milk"), Swipe(Point(0.5, 0.8), Point(0.5, 0.2)), Terminate("success")]
    boxes = [(TargetBox(Box(0.4, 0.2, 0.6, 0.3), "bbox"),), (), (), ()]
    thoughts = ["tap shop", "write milk", "look further down", "all done"]
    steps = [
        Step(Screenshot(160, 288, Path(f"{i}.png")), action, box, thought)
        for i, (action, box, thought) in enumerate(zip(actions, boxes, thoughts, strict=True))
    ]
    return Episode("e1", "add milk", tuple(steps), "made.jsonl:1")
