"""Figures against numbers worked out by hand, against torchmetrics and scikit-learn, and what must always hold."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import balanced_accuracy_score, jaccard_score, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_jaccard_index

from pipelines.params import IGNORE
from pipelines.training.confusion import Confusion, pixels_of, summary_of_pixels

TRUTH = np.array([[0, 0, 0, 1], [0, 1, 1, 1]])
GUESS = np.array([[0, 0, 1, 1], [0, 1, 1, 0]])  # background: 3 hit of a union of 5; class 1: 3 hit of a union of 5
Maps = tuple[np.ndarray, np.ndarray]


def confusion_of(predicted: np.ndarray, truth: np.ndarray, channels: int = 3) -> Confusion:
    confusion = Confusion(channels)
    confusion.add(predicted, truth)
    return confusion


def summary_of(predicted: np.ndarray, truth: np.ndarray, channels: int = 5) -> dict[str, float]:
    summary = summary_of_pixels(pixels_of(confusion_of(predicted, truth, channels).matrix))
    return {name: float(value) for name, value in summary.items()}


def test_rows_are_truth_and_columns_prediction() -> None:
    assert confusion_of(GUESS, TRUTH).matrix.tolist() == [[3, 1, 0], [1, 3, 0], [0, 0, 0]]


def test_metrics_worked_out_by_hand() -> None:
    confusion = confusion_of(GUESS, TRUTH)

    np.testing.assert_allclose(confusion.iou(), [0.6, 0.6, np.nan])
    np.testing.assert_allclose(confusion.metrics()["dice"], [0.75, 0.75, np.nan])
    assert confusion.miou() == pytest.approx(0.6)


def test_a_class_that_was_only_imagined_counts_as_zero() -> None:
    imagined = GUESS.copy()
    imagined[0, 0] = 2

    confusion = confusion_of(imagined, TRUTH)

    np.testing.assert_allclose(confusion.iou(), [0.4, 0.6, 0])
    assert confusion.miou() == pytest.approx(1 / 3)
    assert np.isnan(confusion.metrics()["recall"][2]), "there was nothing to find"


def test_a_class_that_was_missed_counts_as_zero() -> None:
    missed = confusion_of(np.zeros_like(TRUTH), TRUTH)

    assert missed.iou()[1] == 0
    assert np.isnan(missed.metrics()["precision"][1]), "nothing was predicted"


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
    assert all(np.isnan(value) for value in summary_of_pixels(np.zeros((3, 3), np.int64)).values())


def test_ignored_pixels_count_for_nothing() -> None:
    truth = np.where([[True, False, False, False], [False, False, False, True]], IGNORE, TRUTH).astype(np.uint8)
    other = np.where(truth == IGNORE, 2, GUESS)

    confusion = confusion_of(GUESS, truth)

    assert confusion.matrix.sum() == 6
    assert confusion.photos.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(confusion.matrix, confusion_of(other, truth).matrix)


def test_a_photo_of_which_nothing_is_known_shows_nothing() -> None:
    unknown = np.full((3, 3), IGNORE, np.uint8)

    assert confusion_of(np.zeros_like(unknown), unknown).photos.tolist() == [0, 0, 0]


def maps_of(truth_values: st.SearchStrategy[int]) -> st.SearchStrategy[Maps]:
    """Pairs of prediction and truth over four of five classes, so that any of them may be in one alone."""
    return hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)),
            hnp.arrays(np.uint8, shape, elements=truth_values),
        )
    )


maps = maps_of(st.integers(0, 3))
maps_with_unknown_pixels = maps_of(st.sampled_from([0, 1, 2, 4, IGNORE]))


@given(maps_with_unknown_pixels)
def test_miou_is_that_of_torchmetrics(pair: Maps) -> None:
    predicted, truth = pair
    answer, known = (torch.from_numpy(mask.astype(np.int64)) for mask in pair)
    if (truth == IGNORE).all():
        assert np.isnan(summary_of(predicted, truth)["miou"])
        return

    expected = multiclass_jaccard_index(answer, known, 5, average="macro", ignore_index=IGNORE)
    by_class = multiclass_jaccard_index(answer, known, 5, average="none", ignore_index=IGNORE)

    assert summary_of(predicted, truth)["miou"] == pytest.approx(float(expected), abs=1e-6)
    np.testing.assert_allclose(np.nan_to_num(confusion_of(predicted, truth, 5).iou()), by_class, atol=1e-6)


@given(maps_with_unknown_pixels)
def test_metrics_are_those_of_scikit_learn(pair: Maps) -> None:
    judged = pair[1] != IGNORE
    predicted, truth = pair[0][judged], pair[1][judged]
    if not truth.size:
        return
    seen = np.union1d(predicted, truth)
    metrics = confusion_of(*pair, channels=5).metrics()
    summary = summary_of(*pair)

    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=np.nan)
    iou = jaccard_score(truth, predicted, labels=seen, average=None, zero_division=0)

    np.testing.assert_allclose(metrics["iou"][seen], iou)
    np.testing.assert_allclose(metrics["precision"], precision)
    np.testing.assert_allclose(metrics["recall"], recall)
    np.testing.assert_allclose(metrics["dice"], f1)
    assert summary["miou"] == pytest.approx(iou.mean())
    assert summary["mean_dice"] == pytest.approx(np.nanmean(f1))
    garments = iou[seen > 0]
    assert summary["miou_foreground"] == pytest.approx(garments.mean() if len(garments) else np.nan, nan_ok=True)
    assert summary["pixel_accuracy"] == pytest.approx((predicted == truth).mean())
    if np.isin(predicted, truth).all() and len(np.unique(truth)) > 1:  # of anything else scikit-learn warns
        assert summary["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert summary["mean_class_accuracy"] == pytest.approx(np.nanmean(recall))


@given(maps)
def test_intersection_over_union_is_symmetric(pair: Maps) -> None:
    first, second = pair

    np.testing.assert_allclose(confusion_of(first, second, 4).iou(), confusion_of(second, first, 4).iou())


@given(maps)
def test_metrics_stay_in_range_and_dice_follows_from_iou(pair: Maps) -> None:
    confusion = confusion_of(*pair, channels=4)
    iou, dice = confusion.iou(), confusion.metrics()["dice"]
    seen = np.isfinite(iou)

    assert ((iou[seen] >= 0) & (iou[seen] <= 1)).all()
    np.testing.assert_allclose(dice[seen], 2 * iou[seen] / (1 + iou[seen]))
    assert confusion.matrix.sum() == pair[0].size


@given(maps)
def test_only_a_perfect_answer_scores_one(pair: Maps) -> None:
    predicted, truth = pair

    assert confusion_of(truth, truth, 4).miou() == 1
    assert (confusion_of(predicted, truth, 4).miou() == 1) == bool((predicted == truth).all())


def test_precision_and_recall_worked_out_by_hand() -> None:
    confusion = confusion_of(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 2]]), 4)

    np.testing.assert_allclose(confusion.metrics()["precision"], [1, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(confusion.metrics()["recall"], [0.5, 1, 0, np.nan])
