"""Figures against numbers worked out by hand, and against what must always hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.training.metrics import Confusion

TRUTH = np.array([[0, 0, 0, 1], [0, 1, 1, 1]])
GUESS = np.array([[0, 0, 1, 1], [0, 1, 1, 0]])  # background: 3 hit of a union of 5; class 1: 3 hit of a union of 5


def confusion_of(predicted: np.ndarray, truth: np.ndarray, channels: int = 3) -> Confusion:
    confusion = Confusion(channels)
    confusion.add(predicted, truth)
    return confusion


def test_rows_are_truth_and_columns_prediction() -> None:
    assert confusion_of(GUESS, TRUTH).matrix.tolist() == [[3, 1, 0], [1, 3, 0], [0, 0, 0]]


def test_figures_worked_out_by_hand() -> None:
    confusion = confusion_of(GUESS, TRUTH)

    np.testing.assert_allclose(confusion.iou(), [0.6, 0.6, np.nan])
    np.testing.assert_allclose(confusion.figures()["dice"], [0.75, 0.75, np.nan])
    assert confusion.miou() == pytest.approx(0.6)


def test_a_class_that_was_only_imagined_lowers_others_and_has_no_figure_itself() -> None:
    imagined = GUESS.copy()
    imagined[0, 0] = 2

    iou = confusion_of(imagined, TRUTH).iou()

    np.testing.assert_allclose(iou, [0.4, 0.6, np.nan])


def test_a_class_that_was_missed_counts_as_zero() -> None:
    assert confusion_of(np.zeros_like(TRUTH), TRUTH).iou()[1] == 0


def test_batches_and_single_photos_add_up() -> None:
    one_by_one = Confusion(3)
    one_by_one.add(GUESS, TRUTH)
    one_by_one.add(TRUTH, TRUTH)

    batch = confusion_of(np.stack([GUESS, TRUTH]), np.stack([TRUTH, TRUTH]))

    np.testing.assert_array_equal(batch.matrix, one_by_one.matrix)
    assert batch.photos.tolist() == one_by_one.photos.tolist() == [2, 2, 0]


def test_photos_are_counted_by_truth() -> None:
    without = np.zeros_like(TRUTH)

    assert confusion_of(np.stack([GUESS, GUESS]), np.stack([TRUTH, without])).photos.tolist() == [2, 1, 0]


def test_masks_of_unsigned_bytes_do_not_overflow() -> None:
    everything = np.full((4, 4), 19, np.uint8)

    assert confusion_of(everything, everything, channels=20).matrix[19, 19] == 16


def test_nothing_counted_is_no_figure() -> None:
    assert np.isnan(Confusion(3).miou())


maps = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)


@given(maps)
def test_intersection_over_union_is_symmetric_where_both_have_the_class(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    there, back = confusion_of(one, other, 4).iou(), confusion_of(other, one, 4).iou()
    both = np.isfinite(there) & np.isfinite(back)

    np.testing.assert_allclose(there[both], back[both])


@given(maps)
def test_figures_stay_in_range_and_dice_follows_from_iou(pair: tuple[np.ndarray, np.ndarray]) -> None:
    confusion = confusion_of(*pair, channels=4)
    iou, dice = confusion.iou(), confusion.figures()["dice"]
    seen = np.isfinite(iou)

    assert ((iou[seen] >= 0) & (iou[seen] <= 1)).all()
    np.testing.assert_allclose(dice[seen], 2 * iou[seen] / (1 + iou[seen]))
    assert confusion.matrix.sum() == pair[0].size


@given(maps)
def test_only_a_perfect_answer_scores_one(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = pair

    assert confusion_of(truth, truth, 4).miou() == 1
    assert (confusion_of(predicted, truth, 4).miou() == 1) == bool((predicted == truth).all())


def test_precision_and_recall_worked_out_by_hand() -> None:
    confusion = confusion_of(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 2]]), 4)

    np.testing.assert_allclose(confusion.figures()["precision"], [1, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(confusion.figures()["recall"], [0.5, 1, 0, np.nan])
