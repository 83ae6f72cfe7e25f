"""Intervals, outlines, slices and honesty, against numbers worked out by hand and what must always hold."""

import numpy as np
import pytest

from pipelines.training.bootstrap import interval, resampled_miou
from pipelines.training.boundary import boundary_f, count_edges
from pipelines.training.figures import BINS, Evaluation, count_certainty, figures, figures_of_slices
from pipelines.training.metrics import Confusion

LABELS = {"coat": 3, "dress": 7}


def evaluation_of(*pairs: tuple[np.ndarray, np.ndarray]) -> Evaluation:
    """Evaluate (predicted, truth) maps over three classes, all predicted with certainty 0.8."""
    confusions, edges, certainty = [], [], []
    for predicted, truth in pairs:
        one = Confusion(3)
        one.add(predicted, truth)
        confusions.append(one.matrix)
        edges.append(count_edges(predicted, truth, 3))
        certainty.append(count_certainty(np.full(truth.shape, 0.8, np.float32), predicted == truth))
    names = tuple(f"photo {number}" for number in range(len(pairs)))
    return Evaluation(names, np.stack(confusions), np.stack(edges), np.stack(certainty))


def square(size: int, at: int, side: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[at : at + side, at : at + side] = value
    return mask


def test_an_outline_within_reach_is_right_and_one_beyond_is_not() -> None:
    truth = square(400, 100, 150)  # 0.75 % of the diagonal are 4.2 pixels
    scores = [boundary_f(count_edges(square(400, 100 + shift, 150), truth, 2))[1] for shift in (0, 2, 9)]

    assert scores[0] == scores[1] == 1
    assert 0 < scores[2] < 0.2, "a square that moved still crosses the true outline twice"


def test_edges_worked_out_by_hand() -> None:
    counts = count_edges(square(60, 10, 5), square(60, 10, 5) | square(60, 40, 3), 2)

    assert counts[1].tolist() == [16, 16, 16 + 8, 16]
    assert boundary_f(counts)[1] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))


def test_an_outline_of_a_class_that_only_one_side_has() -> None:
    nothing = np.zeros((40, 40), np.uint8)

    assert boundary_f(count_edges(nothing, square(40, 5, 9), 2))[1] == 0
    assert np.isnan(boundary_f(count_edges(square(40, 5, 9), nothing, 2))[1])
    assert np.isnan(boundary_f(count_edges(square(40, 5, 9), nothing, 2))[0]), "background has no outline of its own"


def test_the_edge_of_the_photo_is_no_outline() -> None:
    assert count_edges(np.ones((30, 30), np.uint8), np.ones((30, 30), np.uint8), 2)[1].tolist() == [0, 0, 0, 0]


def test_an_interval_holds_the_estimate_and_narrows_with_photos() -> None:
    chance = np.random.default_rng(1)

    def width(photos: int) -> float:
        truth = np.repeat(np.array([0, 1], np.uint8), 50)[None]
        found = evaluation_of(*((truth ^ (chance.random(truth.shape) < chance.uniform(0, 0.4)), truth)
                                for _ in range(photos)))  # fmt: skip
        low, high = interval(resampled_miou(found.confusions, 500), 0.95)
        assert low < found.confusion.miou() < high
        return high - low

    assert width(100) < width(10) * 0.6


def test_resamples_are_the_same_for_every_model() -> None:
    truth = np.repeat(np.array([0, 1], np.uint8), 8)[None]
    perfect, none = (truth, truth), (1 - truth, truth)
    one = resampled_miou(evaluation_of(perfect, none, perfect).confusions, 300)
    other = resampled_miou(evaluation_of(none, none, none).confusions, 300)

    assert (other == 0).all()
    np.testing.assert_array_equal(one, resampled_miou(evaluation_of(perfect, none, perfect).confusions, 300))


def test_bootstrap_in_parts_is_the_bootstrap_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    confusions = np.random.default_rng(2).integers(1, 50, (9, 3, 3))
    whole = resampled_miou(confusions, 200)
    monkeypatch.setattr("pipelines.training.bootstrap._AT_ONCE", 1)

    np.testing.assert_allclose(resampled_miou(confusions, 200), whole)


def test_one_photo_has_no_spread() -> None:
    truth = np.array([[0, 1, 1, 0]], np.uint8)
    low, high = interval(resampled_miou(evaluation_of((truth, truth)).confusions, 100), 0.95)

    assert low == high == 1


def test_a_model_that_is_right_as_often_as_it_says_is_honest() -> None:
    truth = np.zeros((1, 10), np.uint8)
    wrong = truth.copy()
    wrong[0, :2] = 1

    assert evaluation_of((wrong, truth)).calibration_error() == pytest.approx(0, abs=1e-6)
    assert evaluation_of((truth, truth)).calibration_error() == pytest.approx(0.2, abs=1e-6)


def test_certainty_of_one_belongs_to_the_last_bin() -> None:
    counts = count_certainty(np.array([[0.0, 1.0]], np.float32), np.array([[0, 1]]))

    assert counts[[0, BINS - 1]].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert counts.sum() == 4


def test_metrics_name_the_classes_that_occur() -> None:
    truth = np.array([[0, 0, 0, 1], [0, 1, 1, 1]], np.uint8)
    guess = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.uint8)

    values = figures(evaluation_of((guess, truth)), LABELS, rounds=100)

    assert (values["miou"], values["miou_low"], values["miou_high"]) == (0.6, 0.6, 0.6)
    shared = {"photos": 1, "iou": 0.6, "iou_low": 0.6, "iou_high": 0.6}
    shared |= {f"{key}{end}": 0.75 for key in ("dice", "precision", "recall") for end in ("", "_low", "_high")}
    assert values["per_class"] == {
        "background": shared,
        "coat": shared | {f"boundary_f{end}": 1.0 for end in ("", "_low", "_high")},
    }


def test_every_figure_has_an_interval_that_holds_it() -> None:
    chance = np.random.default_rng(5)
    truths = [square(60, 5 + 2 * number, 20, 1 + number % 2) for number in range(12)]
    found = evaluation_of(*((np.roll(truth, chance.integers(0, 6), 0), truth) for truth in truths))

    per_class = figures(found, LABELS, rounds=500)["per_class"]

    for name, values in per_class.items():
        for key in ("iou", "dice", "precision", "recall", *(["boundary_f"] if name != "background" else [])):
            assert 0 <= values[f"{key}_low"] < values[key] < values[f"{key}_high"] <= 1, (name, key)


def test_slices_are_told_apart() -> None:
    truth = np.array([[0, 1]], np.uint8)
    found = evaluation_of((truth, truth), (1 - truth, truth), (truth, truth))

    rows = figures_of_slices(found, {"season": ["fall", "spring", "fall"]}, rounds=100)

    assert [(row["value"], row["photos"], row["miou"]) for row in rows] == [("fall", 2, 1.0), ("spring", 1, 0.0)]
