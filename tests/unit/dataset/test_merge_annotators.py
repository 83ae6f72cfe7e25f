"""Several people's masks of one photo: who wins a pixel, and how far they disagree."""

import numpy as np
import pytest

from pipelines.dataset.merge_annotators import POLICIES, disagreement, merge_masks
from pipelines.params import IGNORE

COAT, DRESS = 3, 7
UNCLEAR = IGNORE


def masks(*rows: list[int]) -> list[np.ndarray]:
    return [np.array([row], np.uint8) for row in rows]


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_masks_give_themselves(policy: str) -> None:
    mask = np.random.default_rng(1).choice([0, COAT, DRESS], (8, 9)).astype(np.uint8)
    np.testing.assert_array_equal(merge_masks([mask, mask.copy(), mask.copy()], policy), mask)


def test_the_latest_alone_decides() -> None:
    old, new = masks([COAT, COAT, 0], [DRESS, 0, 0])
    assert merge_masks([old, new], "latest") is new


def test_the_majority_decides_by_pixel_and_the_newest_where_there_is_none() -> None:
    three = masks([COAT, COAT, 0, COAT, 0], [COAT, 0, 0, DRESS, COAT], [DRESS, COAT, COAT, 0, DRESS])
    assert merge_masks(three, "majority").tolist() == [[COAT, COAT, 0, 0, DRESS]]
    assert merge_masks(three[:2], "majority").tolist() == [three[1][0].tolist()]


def test_what_most_people_cannot_name_is_ignored() -> None:
    three = masks([COAT, UNCLEAR, UNCLEAR, COAT], [COAT, UNCLEAR, 0, UNCLEAR], [UNCLEAR, COAT, COAT, UNCLEAR])
    assert merge_masks(three, "majority").tolist() == [[COAT, UNCLEAR, COAT, UNCLEAR]]
    assert merge_masks(three[:2], "majority").tolist() == [three[1][0].tolist()]


def test_staple_keeps_what_is_ignored() -> None:
    truth = np.zeros((40, 30), np.uint8)
    truth[5:25, 5:25], truth[20:35, 10:28] = COAT, UNCLEAR
    slips = [truth.copy() for _ in range(3)]
    for number, slip in enumerate(slips):
        slip[3 * number : 3 * number + 3] = 0  # each misses other rows
    merged = merge_masks(slips, "staple")
    np.testing.assert_array_equal(merged, truth)
    assert merged.dtype == np.uint8


def test_staple_works_with_every_value_that_a_mask_can_hold() -> None:
    mask, other = np.arange(256, dtype=np.uint8).reshape(16, 16), np.zeros((16, 16), np.uint8)
    assert merge_masks([other, mask, mask.copy()], "staple").dtype == np.uint8


def test_staple_weighs_careless_annotators_less() -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros((60, 50), np.uint8)
    truth[10:40, 5:30], truth[20:35, 25:45] = COAT, DRESS

    def careless(share: float) -> np.ndarray:
        wrong = rng.random(truth.shape) < share
        return np.where(wrong, rng.choice([0, COAT, DRESS], truth.shape), truth).astype(np.uint8)

    people = [careless(0.05), careless(0.9), careless(0.9)]

    merged = merge_masks(people, "staple")

    assert (merged == truth).mean() > 0.93
    assert (merge_masks(people, "majority") == truth).mean() < 0.85
    np.testing.assert_array_equal(merge_masks(people, "staple"), merged)
    assert merged.dtype == np.uint8


def test_disagreement_is_a_share_of_what_anybody_labelled() -> None:
    assert disagreement(masks([COAT, COAT, 0, 0], [COAT, DRESS, 0, DRESS])) == pytest.approx(2 / 3)
    assert disagreement(masks([COAT, 0], [COAT, 0])) == 0
    assert disagreement(masks([0, 0], [0, 0])) == 0
    assert disagreement(masks([COAT, UNCLEAR], [UNCLEAR, UNCLEAR])) == 0.5
