"""Sizes of smaller copies, and masks between a copy and its photo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.photos.copies import copy_size, exceeds, is_copy_size, resample_mask

SIDES = st.integers(1, 300)
UNHURRIED = settings(deadline=None)  # the first example may pay for an import


@UNHURRIED
@given(SIDES, SIDES, st.floats(1e-6, 0.1))
def test_a_copy_has_at_most_the_megapixels_and_the_photos_shape(height: int, width: int, megapixels: float) -> None:
    size = copy_size(height, width, megapixels)

    assert is_copy_size(size, (height, width))
    assert not exceeds(*size, megapixels) or 1 in size, "nothing is smaller than a pixel"


def test_a_photo_within_the_limit_has_no_smaller_copy() -> None:
    assert copy_size(1000, 1500, 1.5) == (1000, 1500)
    assert copy_size(6000, 4000, 0) == (6000, 4000)


def test_a_photo_of_24_megapixels_is_copied_at_almost_the_limit() -> None:
    height, width = copy_size(6000, 4000, 1.5)

    assert (height, width) == (1500, 1000)
    assert copy_size(4000, 6000, 1.5) == (1000, 1500)


@pytest.mark.parametrize("size", [(300, 200), (150, 100), (151, 100), (149, 100), (30, 20)])
def test_sizes_of_the_same_shape_are_those_of_copies(size: tuple[int, int]) -> None:
    assert is_copy_size(size, (300, 200))


@pytest.mark.parametrize(
    "size", [(200, 300), (100, 150), (150, 102), (600, 400), (0, 0), (-3, -2), (300, 199), (153, 100)]
)
def test_other_shapes_and_larger_sizes_are_not(size: tuple[int, int]) -> None:
    assert not is_copy_size(size, (300, 200))


@UNHURRIED
@given(SIDES, SIDES, st.floats(1e-6, 0.1), st.integers(0, 2**32 - 1))
def test_enlarging_and_reducing_gives_the_same_mask(height: int, width: int, megapixels: float, seed: int) -> None:
    size = copy_size(height, width, megapixels)
    mask = np.random.default_rng(seed).integers(0, 20, size, dtype=np.uint8)

    enlarged = resample_mask(mask, height, width)

    assert enlarged.shape == (height, width)
    np.testing.assert_array_equal(resample_mask(enlarged, *size), mask)


@UNHURRIED
@given(SIDES, SIDES, st.floats(1e-6, 0.1))
def test_each_pixel_takes_the_value_at_its_centre(height: int, width: int, megapixels: float) -> None:
    rows, columns = copy_size(height, width, megapixels)
    places = np.arange(rows * columns).reshape(rows, columns)

    enlarged = resample_mask(places, height, width)

    for y, x in {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}:
        centre = ((2 * y + 1) * rows // (2 * height), (2 * x + 1) * columns // (2 * width))
        assert enlarged[y, x] == places[centre]


def test_a_whole_factor_makes_blocks() -> None:
    mask = np.array([[True, False], [False, True]])

    np.testing.assert_array_equal(resample_mask(mask, 4, 6), np.kron(mask, np.ones((2, 3), bool)).astype(bool))
    assert resample_mask(mask, 4, 6).dtype == bool
