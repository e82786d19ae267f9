"""Which screenshots a prompt shows, and how much of it stays a prefix of the next one."""

from dataclasses import replace
from itertools import pairwise

import pytest

from guiderail.agent.types import Picture, Prompt, Screenshot

SHOTS = [Screenshot(160, 288, data=bytes([i])) for i in range(9)]


def shown(prompt: Prompt) -> list[int]:
    return [picture.screenshot.data[0] for picture in prompt.pictures]


def prompts(dialogue, steps: int = 9) -> list[Prompt]:
    return [dialogue.prompt("goal", SHOTS[: t + 1], [f"turn {i}" for i in range(t)]) for t in range(steps)]


def parts(prompt: Prompt) -> list[str | Picture]:
    return [part for message in prompt.messages for part in (message.role, *message.parts)]


def test_a_sliding_window_shows_the_last_ones(dialogue):
    windows = [shown(p) for p in prompts(replace(dialogue, images=3), 6)]
    assert windows == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


@pytest.mark.parametrize("images", [1, 2, 3])
def test_blocks_show_at_least_as_many_and_leave_together(dialogue, images):
    windows = [shown(p) for p in prompts(replace(dialogue, images=images, window="blocks"))]
    for t, window in enumerate(windows):
        assert window == list(range(window[0], t + 1))
        assert min(t + 1, images) <= len(window) < 2 * images
        assert window[0] % images == 0


def test_blocks_keep_the_prompt_a_prefix_of_the_next_one(dialogue):
    def kept(window: str) -> list[bool]:
        asked = [parts(p) for p in prompts(replace(dialogue, images=3, window=window))]
        return [b[: len(a)] == a for a, b in pairwise(asked)]

    assert kept("sliding") == [True, True, False, False, False, False, False, False]
    assert kept("blocks") == [True, True, True, True, False, True, True, False]
