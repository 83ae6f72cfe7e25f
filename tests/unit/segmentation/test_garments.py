"""A garment whose label a model does not know is one region, not patches of several labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.segmentation.garments import one_label_per_garment
from pipelines.segmentation.postprocess import classes_of_photo

BACKGROUND, SHIRT, BLOUSE, SKIRT = range(4)


def photo(**places: tuple[float, ...]) -> np.ndarray:
    """Make (4, 8, 8) probabilities: `left`, `right` halves of the upper half, `below`, and background elsewhere."""
    planes = np.zeros((4, 8, 8), np.float32)
    planes[BACKGROUND] = 1
    where = {"left": np.s_[:, :4, :4], "right": np.s_[:, :4, 4:], "below": np.s_[:, 4:7]}
    for name, shares in places.items():
        planes[where[name]] = np.array(shares, np.float32)[:, None, None]
    return planes


def labels_of(planes: np.ndarray) -> tuple[int, int, int]:
    regions = planes.argmax(0)
    return int(regions[0, 0]), int(regions[0, 7]), int(regions[5, 0])


def test_patches_of_two_labels_become_one_region_of_the_more_probable_one() -> None:
    before = photo(left=(0.1, 0.5, 0.4, 0), right=(0.1, 0.43, 0.47, 0), below=(0.1, 0, 0.05, 0.85))
    assert labels_of(before) == (SHIRT, BLOUSE, SKIRT)
    assert labels_of(one_label_per_garment(before)) == (SHIRT, SHIRT, SKIRT)


def test_the_label_is_that_of_the_whole_garment_and_not_of_its_first_patch() -> None:
    before = photo(left=(0.1, 0.46, 0.44, 0), right=(0.1, 0.3, 0.6, 0))
    assert labels_of(one_label_per_garment(before))[:2] == (BLOUSE, BLOUSE)


def test_a_hole_where_two_labels_share_what_the_background_lacks_is_filled() -> None:
    before = photo(left=(0.1, 0.5, 0.4, 0), right=(0.1, 0.4, 0.5, 0))
    before[:, 2, 2] = 0.4, 0.32, 0.28, 0
    assert before.argmax(0)[2, 2] == BACKGROUND
    assert one_label_per_garment(before).argmax(0)[2, 2] != BACKGROUND


def test_labels_that_the_model_tells_apart_stay_as_they_are() -> None:
    before = photo(left=(0.1, 0.8, 0.1, 0), right=(0.1, 0.1, 0.8, 0), below=(0.1, 0, 0.1, 0.8))
    assert one_label_per_garment(before) is before


def test_three_labels_of_one_garment_become_one() -> None:
    before = photo(left=(0.1, 0.35, 0.3, 0.25), right=(0.1, 0.28, 0.34, 0.28), below=(0.1, 0.26, 0.3, 0.34))
    assert len(set(labels_of(before))) == 3
    assert len(set(labels_of(one_label_per_garment(before)))) == 1


def test_the_confidence_of_a_joined_region_is_that_of_its_label_alone() -> None:
    before = photo(left=(0.1, 0.5, 0.4, 0), right=(0.1, 0.43, 0.47, 0))
    channel, confidence = classes_of_photo(before, 8, 8)
    assert channel[0].tolist() == [SHIRT] * 8
    assert confidence[0] == pytest.approx([0.5] * 4 + [0.43] * 4)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_nothing_is_lost_at_any_size(height: int, width: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    before = random.random((classes, height, width), np.float32) ** 4 + 1e-6
    before /= before.sum(0)
    kept = before.copy()
    after = one_label_per_garment(before)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_allclose(after.sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(after[BACKGROUND], before[BACKGROUND])
    assert set(np.unique(after.argmax(0))) <= set(np.unique(before.argmax(0)))
