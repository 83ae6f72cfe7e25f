"""Class maps to regions: specks go, holes stay, scores mean something."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.segmentation.masks import image_score, label_map, regions_from_classes, without_specks

NAMES = {3: "coat", 7: "dress"}


@pytest.fixture
def coat_with_hole_and_speck() -> np.ndarray:
    """A 10×10 map: a coat of 35 pixels with a hole of one, a coat speck of one, and a dress of nine."""
    index = np.zeros((10, 10), np.uint8)
    index[1:7, 1:7], index[3, 3], index[9, 9], index[7:, :3] = 3, 0, 3, 7
    return index


def sure(index: np.ndarray) -> np.ndarray:
    return np.ones(index.shape, np.float32)


def test_specks_are_dropped_and_holes_stay(coat_with_hole_and_speck: np.ndarray) -> None:
    coat, dress = regions_from_classes(coat_with_hole_and_speck, sure(coat_with_hole_and_speck), NAMES, 0.02)

    assert (coat.label, dress.label) == ("coat", "dress")
    assert (coat.mask.sum(), dress.mask.sum()) == (35, 9)
    assert not coat.mask[9, 9]
    assert not coat.mask[3, 3]


def test_without_a_limit_every_pixel_stays(coat_with_hole_and_speck: np.ndarray) -> None:
    coat, _ = regions_from_classes(coat_with_hole_and_speck, sure(coat_with_hole_and_speck), NAMES, 0)

    np.testing.assert_array_equal(coat.mask, coat_with_hole_and_speck == 3)


def test_a_label_of_specks_alone_gives_no_region(coat_with_hole_and_speck: np.ndarray) -> None:
    regions = regions_from_classes(coat_with_hole_and_speck, sure(coat_with_hole_and_speck), NAMES, 0.1)

    assert [region.label for region in regions] == ["coat"]


def test_a_region_scores_the_mean_over_its_own_pixels(coat_with_hole_and_speck: np.ndarray) -> None:
    confidence = np.where(coat_with_hole_and_speck == 7, 0.25, 0.75).astype(np.float32)
    confidence[9, 9] = 0  # the speck does not count

    coat, dress = regions_from_classes(coat_with_hole_and_speck, confidence, NAMES, 0.02)

    assert (coat.score, dress.score) == (0.75, 0.25)


def test_a_photo_scores_its_garments_or_else_its_background() -> None:
    index = np.array([[0, 0, 3, 7]], np.uint8)
    confidence = np.array([[0.9, 0.9, 0.5, 0.3]], np.float32)

    assert image_score(index, confidence) == pytest.approx(0.4)
    assert image_score(np.zeros_like(index), confidence) == pytest.approx(0.65)


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@given(masks, st.floats(0, 20))
def test_dropping_specks_only_removes_and_settles_at_once(mask: np.ndarray, least: float) -> None:
    kept = without_specks(mask, least)

    assert not (kept & ~mask).any()
    assert kept.sum() == 0 or kept.sum() >= least
    np.testing.assert_array_equal(without_specks(kept, least), kept)


def test_parts_that_touch_at_corners_are_one() -> None:
    diagonal = np.eye(5, dtype=bool)

    np.testing.assert_array_equal(without_specks(diagonal, 5), diagonal)


def test_regions_paint_back_to_the_map_they_were_cut_from(coat_with_hole_and_speck: np.ndarray) -> None:
    regions = regions_from_classes(coat_with_hole_and_speck, sure(coat_with_hole_and_speck), NAMES, 0)

    painted = label_map(regions, {name: number for number, name in NAMES.items()}, 10, 10)

    np.testing.assert_array_equal(painted, coat_with_hole_and_speck)
