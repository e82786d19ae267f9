"""Sizes: the resize rule and the way of a point through original pixels, model pixels and fractions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.errors import SetupError
from guiderail.agent.screen import ScreenTransform, Vision, smart_resize
from guiderail.agent.types import Point, Screenshot

QWEN = Vision()
SMALL = Vision(factor=28, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28)
QWEN3 = Vision(factor=32, min_pixels=4 * 32 * 32, max_pixels=2048 * 32 * 32)
visions = st.sampled_from([QWEN, SMALL, QWEN3])
sides = st.integers(2, 6000)


@pytest.mark.parametrize(
    ("screen", "model"),
    [
        ((1080, 2400), (1092, 2408)),
        ((1080, 2340), (1092, 2352)),
        ((1440, 3120), (1428, 3108)),
        ((2560, 1600), (2548, 1596)),
    ],
)
def test_sizes_of_common_screens(screen: tuple[int, int], model: tuple[int, int]) -> None:
    assert smart_resize(*screen, QWEN) == model
    picture = QWEN.picture(Screenshot(*screen))
    assert (picture.width, picture.height) == model


def test_a_phone_costs_the_known_number_of_tokens() -> None:
    width, height = smart_resize(1080, 2400, QWEN)
    assert width * height // (28 * 28) == 3354


@given(sides, sides, visions)
def test_resized_sides_are_multiples_within_the_bounds_and_stay(width: int, height: int, vision: Vision) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(SetupError, match="ratio at most 200"):
            smart_resize(width, height, vision)
        return
    w, h = smart_resize(width, height, vision)
    assert w % vision.factor == h % vision.factor == 0
    assert min(w, h) >= vision.factor
    if max(width, height) <= 8 * min(width, height):
        assert vision.min_pixels <= w * h <= vision.max_pixels
        assert smart_resize(w, h, vision) == (w, h)


@pytest.mark.parametrize("size", [(1, 100), (100, 1), (0, 0), (2, 401), (-5, 10)])
def test_screens_of_no_shape_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SetupError, match="at least 2 px"):
        smart_resize(*size, QWEN)


@given(st.integers(28, 5000), st.integers(28, 5000), visions, st.data())
def test_a_pixel_comes_back_within_one_pixel_of_the_coarser_size(
    width: int, height: int, vision: Vision, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    original = ScreenTransform(width, height)
    model = ScreenTransform(*smart_resize(width, height, vision))
    assert original.to_pixels(original.to_fraction(x, y)) == (x, y)
    seen = model.to_pixels(original.to_fraction(x, y))
    assert math.dist((seen[0], 0), (x * model.width / width, 0)) <= 0.5 + 1e-6
    back = original.to_pixels(model.to_fraction(*seen))
    assert abs(back[0] - x) <= max(1, width / model.width)
    assert abs(back[1] - y) <= max(1, height / model.height)


def test_corners_are_fractions_zero_and_one() -> None:
    screen = ScreenTransform(1080, 2400)
    assert screen.to_fraction(0, 0) == Point(0, 0)
    assert screen.to_fraction(1080, 2400) == Point(1, 1)
    assert screen.to_pixels(Point(0.5, 0.25)) == (540, 600)
