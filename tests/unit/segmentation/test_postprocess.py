"""Class maps to regions: specks go, holes stay, scores mean something; a click gives one clean region."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.segmentation.postprocess import (
    classes_of_photo,
    clean_likelihood,
    clean_region,
    score_regions,
    without_specks,
)

NAMES = {3: "coat", 7: "dress"}


@pytest.fixture
def coat_with_hole_and_speck() -> np.ndarray:
    """A 10×10 map: a coat of 35 pixels with a hole of one, a coat speck of one, and a dress of nine."""
    index = np.zeros((10, 10), np.uint8)
    index[1:7, 1:7], index[3, 3], index[9, 9], index[7:, :3] = 3, 0, 3, 7
    return index


def test_specks_are_dropped_and_holes_stay(coat_with_hole_and_speck: np.ndarray) -> None:
    cleaned = without_specks(coat_with_hole_and_speck, 2)

    assert ((cleaned == 3).sum(), (cleaned == 7).sum()) == (35, 9)
    assert (cleaned[9, 9], cleaned[3, 3]) == (0, 0)
    assert coat_with_hole_and_speck[9, 9] == 3, "the map that was given is not changed"


def test_without_a_limit_every_pixel_stays(coat_with_hole_and_speck: np.ndarray) -> None:
    np.testing.assert_array_equal(without_specks(coat_with_hole_and_speck, 0), coat_with_hole_and_speck)


def test_a_label_of_specks_alone_gives_no_region(coat_with_hole_and_speck: np.ndarray) -> None:
    cleaned = without_specks(coat_with_hole_and_speck, 10)

    regions, _ = score_regions(cleaned, np.ones(cleaned.shape, np.float32), NAMES)

    assert [region.label for region in regions] == ["coat"]


def test_a_region_scores_the_mean_over_its_own_pixels(coat_with_hole_and_speck: np.ndarray) -> None:
    confidence = np.where(coat_with_hole_and_speck == 7, 0.25, 0.75).astype(np.float32)
    confidence[9, 9] = 0  # the speck does not count

    (coat, dress), score = score_regions(without_specks(coat_with_hole_and_speck, 2), confidence, NAMES)

    assert (coat.label_id, coat.score, dress.label_id, dress.score) == (3, 0.75, 7, 0.25)
    assert score == pytest.approx((35 * 0.75 + 9 * 0.25) / 44)


def test_a_photo_scores_its_garments_or_else_its_background() -> None:
    index = np.array([[0, 0, 3, 7]], np.uint8)
    confidence = np.array([[0.9, 0.9, 0.5, 0.3]], np.float32)

    assert score_regions(index, confidence, NAMES)[1] == pytest.approx(0.4)
    assert score_regions(np.zeros_like(index), confidence, NAMES)[1] == pytest.approx(0.65)


def test_the_classes_of_a_huge_photo_have_its_size_and_a_smaller_confidence() -> None:
    shares = np.zeros((2, 4, 4), np.float32)
    shares[0, :, :2], shares[1, :, 2:] = 1, 1

    channel, confidence = classes_of_photo(shares, 4100, 4100)
    regions, score = score_regions(channel * np.uint8(3), confidence, NAMES)

    assert channel.shape == (4100, 4100)
    assert confidence.size <= 16_000_000
    assert [region.label for region in regions] == ["coat"]
    assert 0.5 < score <= 1


maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(0, 2)
)


@given(maps, st.floats(0, 20))
def test_dropping_specks_only_clears_pixels_and_settles_at_once(index: np.ndarray, least: float) -> None:
    kept = without_specks(index, least)

    assert ((kept == index) | (kept == 0)).all()
    assert all((kept == label).sum() == 0 or (kept == label).sum() >= least for label in (1, 2))
    np.testing.assert_array_equal(without_specks(kept, least), kept)


def test_parts_that_touch_at_corners_are_one() -> None:
    diagonal = np.eye(5, dtype=np.uint8)

    np.testing.assert_array_equal(without_specks(diagonal, 5), diagonal)


@pytest.fixture
def two_parts() -> np.ndarray:
    """A large part with a pinhole and a real hole, and a small part beside it."""
    mask = np.zeros((60, 100), bool)
    mask[5:55, 5:60], mask[20, 20], mask[30:40, 30:40], mask[20:30, 70:80] = True, False, False, True
    return mask


def test_a_click_keeps_the_part_under_it_and_fills_pinholes_only(two_parts: np.ndarray) -> None:
    region = clean_region(two_parts, [(10, 10)])

    assert not region[:, 65:].any()
    assert region[20, 20]
    assert not region[30:40, 30:40].any()


def test_the_largest_part_is_kept_where_no_point_hits_one(two_parts: np.ndarray) -> None:
    np.testing.assert_array_equal(clean_region(two_parts, []), clean_region(two_parts, [(10, 10)]))
    np.testing.assert_array_equal(clean_region(two_parts, [(99, 0)]), clean_region(two_parts, [(10, 10)]))


def test_a_hole_that_somebody_asked_for_stays_however_small(two_parts: np.ndarray) -> None:
    assert not clean_region(two_parts, [(10, 10)], [(20, 20)])[20, 20]


def test_cleaning_a_likelihood_leaves_right_outlines_as_they_are(two_parts: np.ndarray) -> None:
    likelihood = np.where(two_parts, 0.3, -0.2).astype(np.float32)

    cleaned = clean_likelihood(likelihood, 0.0, [(10, 10)], [])

    np.testing.assert_array_equal(cleaned > 0, clean_region(two_parts, [(10, 10)]))
    same = (cleaned > 0) == two_parts
    np.testing.assert_array_equal(cleaned[same], likelihood[same])


def test_a_box_keeps_both_shoes_of_a_pair_and_no_crumbs() -> None:
    pair = np.zeros((60, 100), bool)
    pair[10:30, 10:40], pair[12:28, 60:85], pair[50:55, 50:60] = True, True, True
    crumbless = pair.copy()
    crumbless[50:55, 50:60] = False

    np.testing.assert_array_equal(clean_region(pair, []), crumbless)


def test_every_part_that_a_point_hits_is_kept(two_parts: np.ndarray) -> None:
    assert clean_region(two_parts, [(10, 10), (75, 25)])[25, 75]


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_an_empty_mask_stays_empty_and_no_other_becomes_so(mask: np.ndarray) -> None:
    assert clean_region(mask, []).any() == mask.any()
