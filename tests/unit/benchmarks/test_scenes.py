"""Pre-labels of scenes are damaged within limits, and the rest of them is left as it is."""

import numpy as np
import pytest

from benchmarks._scenes import damaged_index_mask, iou
from pipelines.demo.photos import draw_photo
from pipelines.params import IGNORE, Params


@pytest.mark.parametrize("seed", (700, 703))
@pytest.mark.parametrize("damages", [1, 2])
def test_damaged_garments_are_ones_that_people_correct(params: Params, seed: int, damages: int) -> None:
    truth = draw_photo(seed, params.label_ids).mask

    mask, names = damaged_index_mask(truth, params, damages, np.random.default_rng(seed))

    assert 1 <= len(names) <= damages
    for name in names:
        label_id = params.label_ids[name]
        assert 0.4 <= iou(mask == label_id, truth == label_id) < 0.85
    assert set(np.unique(mask)) == set(np.unique(truth)), "no garment vanishes, and none is invented"


def test_pixels_that_nobody_knows_are_no_garment(params: Params) -> None:
    truth = draw_photo(700, params.label_ids).mask
    truth[:, :30] = IGNORE

    mask, _ = damaged_index_mask(truth, params, 1, np.random.default_rng(0))

    assert IGNORE not in mask


def test_a_photo_without_a_garment_has_nothing_to_damage(params: Params) -> None:
    mask, names = damaged_index_mask(np.zeros((40, 30), np.uint8), params, 2, np.random.default_rng(0))

    assert not names
    assert not mask.any()


def test_iou_of_masks() -> None:
    left, both = np.array([[True, False]]), np.array([[True, True]])
    assert (iou(left, both), iou(left, ~left), iou(both & ~both, ~both)) == (0.5, 0.0, 1.0)
