"""Intervals, outlines, slices and calibration, against numbers worked out by hand and what must always hold."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import binary_calibration_error

from pipelines.training.bootstrap import by_family, interval, resampled, resampled_miou
from pipelines.training.boundary import boundary_f, count_bands, count_edges
from pipelines.training.confusion import Confusion, pixels_of
from pipelines.training.floor import Floor, floor_of
from pipelines.training.metrics import (
    BINS,
    CLASS_METRICS,
    Evaluation,
    compute_metrics,
    count_confidence,
    gain_of_pixels,
    metrics_by_slice,
)

LABELS = {"coat": 3, "dress": 7}
Pair = tuple[np.ndarray, np.ndarray]


def evaluation_of(*pairs: Pair, families: Sequence[str] = ()) -> Evaluation:
    """Evaluate (predicted, truth) maps over three classes, all predicted with a confidence of 0.8; each is a family."""
    confusions, edges, bands, confidence_bins, of_garments = [], [], [], [], []
    for predicted, truth in pairs:
        confusion = Confusion(3)
        confusion.add(predicted, truth)
        confusions.append(confusion.matrix)
        edges.append(count_edges(predicted, truth, 3))
        bands.append(count_bands(predicted, truth, 3))
        confidence, garment = np.full(truth.shape, 0.8, np.float32), (predicted > 0) | (truth > 0)
        confidence_bins.append(count_confidence(confidence, predicted == truth))
        of_garments.append(count_confidence(confidence[garment], (predicted == truth)[garment]))
    names = tuple(f"photo {number}" for number in range(len(pairs)))
    counted = (np.stack(parts) for parts in (confusions, edges, bands, confidence_bins, of_garments))
    return Evaluation(names, tuple(families) or names, *counted)


def square(size: int, at: int, length: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[at : at + length, at : at + length] = value
    return mask


def moved_squares(photos: int, seed: int = 5) -> list[Pair]:
    """Coats and dresses in turn, each found some pixels off."""
    chance = np.random.default_rng(seed)
    truths = [square(60, 5 + 2 * (number % 12), 20, 1 + number % 2) for number in range(photos)]
    return [(np.roll(truth, chance.integers(1, 6), 0), truth) for truth in truths]


def test_families_are_added_up() -> None:
    counts = np.array([[1, 10], [2, 20], [4, 40]])

    assert by_family(counts, ["b", "a", "b"]).tolist() == [[2, 20], [5, 50]]


def test_families_are_resampled_and_never_photos() -> None:
    counts = np.array([1, 1, 1, 1, 0])  # four photos of one family and one of another

    drawn = resampled(counts[:, None], ["show"] * 4 + ["alone"], 4_000)[:, 0]

    assert set(drawn) == {0, 4, 8}, "a family comes whole, once or twice, or not at all"
    np.testing.assert_allclose([np.mean(drawn == value) for value in (0, 4, 8)], [0.25, 0.5, 0.25], atol=0.03)


def test_an_interval_holds_the_estimate_and_narrows_with_families() -> None:
    chance = np.random.default_rng(1)

    def width(families: int) -> float:
        truth = np.repeat(np.array([0, 1], np.uint8), 50)[None]
        evaluation = evaluation_of(*((truth ^ (chance.random(truth.shape) < chance.uniform(0, 0.4)), truth)
                                for _ in range(families)))  # fmt: skip
        low, high = interval(resampled_miou(evaluation.confusions, evaluation.families, 500), 0.95)
        assert low < evaluation.confusion.miou() < high
        return high - low

    assert width(100) < width(10) * 0.6


def test_the_same_photos_in_fewer_families_give_a_wider_interval() -> None:
    random = np.random.default_rng(3)
    common = np.repeat(random.normal(0.6, 0.1, 6), 10)
    hit = (1000 * np.clip(common + random.normal(0, 0.03, 60), 0, 1)).astype(int)
    confusions = np.zeros((60, 2, 2), np.int64)
    confusions[:, 1, 1], confusions[:, 1, 0] = hit, 1000 - hit

    def width(families: Sequence[str]) -> float:
        low, high = interval(resampled_miou(confusions, families, 2_000), 0.95)
        return high - low

    assert width([str(number // 10) for number in range(60)]) > 2 * width([str(number) for number in range(60)])


def test_intervals_of_thirty_families_hold_the_truth_nine_times_in_ten() -> None:
    """Percentiles of 30 families cover a little less than they promise, and never much less."""
    random, covered = np.random.default_rng(8), 0
    families = [str(number // 4) for number in range(120)]
    typical = stats.norm.ppf((np.arange(4_000) + 0.5) / 4_000)
    expected = np.mean(1 / (1 + np.exp(-(0.4 + np.hypot(0.7, 0.5) * typical))))
    for _ in range(300):
        shows = np.repeat(random.normal(0, 0.7, 30), 4)
        shares = 1 / (1 + np.exp(-(0.4 + shows + random.normal(0, 0.5, 120))))
        low, high = interval(resampled(shares, families, 400) / 120, 0.95)
        covered += low <= expected <= high
    assert 0.88 <= covered / 300 <= 0.98


def test_resamples_are_the_same_for_every_model() -> None:
    truth = np.repeat(np.array([0, 1], np.uint8), 8)[None]
    perfect, none = (truth, truth), (1 - truth, truth)
    mixed, wrong = evaluation_of(perfect, none, perfect), evaluation_of(none, none, none)
    once = resampled_miou(mixed.confusions, mixed.families, 300)

    assert (resampled_miou(wrong.confusions, wrong.families, 300) == 0).all()
    np.testing.assert_array_equal(once, resampled_miou(mixed.confusions, mixed.families, 300))


def test_bootstrap_in_parts_is_the_bootstrap_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    confusions, families = np.random.default_rng(2).integers(1, 50, (9, 3, 3)), list("aabbccdde")
    whole = resampled_miou(confusions, families, 200)
    monkeypatch.setattr("pipelines.training.bootstrap._AT_ONCE", 1)

    np.testing.assert_allclose(resampled_miou(confusions, families, 200), whole)


def test_a_model_that_is_correct_as_often_as_it_is_confident_is_calibrated() -> None:
    truth = np.zeros((1, 10), np.uint8)
    wrong = truth.copy()
    wrong[0, :2] = 1

    assert evaluation_of((wrong, truth)).calibration_error(garments=False) == pytest.approx(0, abs=1e-6)
    assert evaluation_of((truth, truth)).calibration_error(garments=False) == pytest.approx(0.2, abs=1e-6)


def test_calibration_on_garments_is_not_outweighed_by_background() -> None:
    truth, wrong = np.zeros((1, 1000), np.uint8), np.zeros((1, 1000), np.uint8)
    truth[0, :5], wrong[0, :5] = 1, 2

    evaluation = evaluation_of((wrong, truth))

    assert evaluation.calibration_error() == pytest.approx(0.8, abs=1e-6), "it is never right about garments"
    assert np.isnan(evaluation_of((truth * 0, truth * 0)).calibration_error()), "no garment, no error"


@pytest.mark.parametrize("edges", [False, True])
def test_calibration_error_is_that_of_torchmetrics(edges: bool) -> None:
    random = np.random.default_rng(4)
    confidence = random.beta(5, 2, (40, 30)).astype(np.float32)
    if edges:  # probabilities that lie on the edges of the bins
        confidence = np.linspace(0, 1, BINS + 1, dtype=np.float32)[random.integers(0, BINS, (40, 30))]
    right = random.random((40, 30)) < confidence**1.5
    evaluation = Evaluation(
        ("photo",), ("photo",), *(np.zeros((1, 1))[None],) * 3, *(count_confidence(confidence, right)[None],) * 2
    )

    expected = binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(right), n_bins=BINS, norm="l1")

    assert evaluation.calibration_error() == pytest.approx(float(expected), abs=1e-6)


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    counts = count_confidence(np.array([[0.0, 1.0]], np.float32), np.array([[0, 1]]))

    assert counts[[0, BINS - 1]].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert counts.sum() == 4


def test_metrics_name_the_classes_that_occur() -> None:
    truth = np.array([[0, 0, 0, 1], [0, 1, 1, 1]], np.uint8)
    guess = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.uint8)

    values = compute_metrics(evaluation_of((guess, truth)), LABELS, rounds=100)

    shared = {"photos": 1, "families": 1, "iou": 0.6, "boundary_iou": 0.6}
    shared |= dict.fromkeys(("dice", "precision", "recall"), 0.75)
    assert values["per_class"] == {"background": shared | {"boundary_f": 0.8}, "coat": shared | {"boundary_f": 1.0}}
    assert {name: value for name, value in values.items() if name != "per_class"} == {
        "photos": 1, "families": 1, "miou": 0.6, "miou_foreground": 0.6, "pixel_accuracy": 0.75,
        "mean_class_accuracy": 0.75, "mean_dice": 0.75, "mean_boundary_f": 0.9, "boundary_iou": 0.6,
        "calibration_error": 0.2, "calibration_error_all": 0.05,
    }, "one family is no reason for an interval"  # fmt: skip


def test_an_imagined_label_is_listed_and_lowers_the_mean() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    guess = np.array([[0, 2, 1, 1]], np.uint8)

    values = compute_metrics(evaluation_of((guess, truth)), LABELS, rounds=100)

    assert values["per_class"]["dress"] == {
        "photos": 0, "families": 0, "iou": 0, "dice": 0, "precision": 0, "boundary_f": 0, "boundary_iou": 0,
    }  # fmt: skip
    assert values["miou"] == round((0.5 + 1 + 0) / 3, 4)
    assert values["mean_class_accuracy"] == 0.75, "the mean recall is over what there was to find"


def test_boundary_f_is_averaged_over_photos_and_not_over_pixels() -> None:
    large, small = square(200, 20, 120), square(200, 20, 12)
    evaluation = evaluation_of((large, large), (np.roll(small, 60, 0), small))

    values = compute_metrics(evaluation, LABELS, rounds=100)

    assert values["per_class"]["coat"]["boundary_f"] == values["mean_boundary_f"] == 0.5
    assert boundary_f(evaluation.edges.sum(0))[1] > 0.85, "by pixels the large square would hide the small one"


def test_every_metric_has_an_interval_that_holds_it() -> None:
    values = compute_metrics(evaluation_of(*moved_squares(12)), LABELS, rounds=500)

    for name, of_label in values["per_class"].items():
        for key in CLASS_METRICS:
            assert 0 <= of_label[f"{key}_low"] < of_label[key] < of_label[f"{key}_high"] <= 1, (name, key)
    for key in ("miou", "miou_foreground", "pixel_accuracy", "mean_class_accuracy", "mean_dice", "mean_boundary_f",
                "boundary_iou"):  # fmt: skip
        assert 0 <= values[f"{key}_low"] < values[key] < values[f"{key}_high"] <= 1, key


@pytest.mark.parametrize(("photos", "families", "has_interval"), [(12, 6, True), (8, 8, False), (12, 2, False)])
def test_a_label_on_few_photos_or_of_few_families_has_no_interval(
    photos: int, families: int, has_interval: bool
) -> None:
    named = [str(number // 2 % families) for number in range(photos)]
    values = compute_metrics(evaluation_of(*moved_squares(photos), families=named), LABELS, rounds=100)

    of_coat = values["per_class"]["coat"]
    assert (of_coat["photos"], of_coat["families"]) == (photos // 2, min(families, photos // 2))
    assert ("iou_low" in of_coat, "recall_high" in of_coat) == (has_interval, has_interval)
    assert ("miou_low" in values) == (families >= 3)


def test_slices_are_told_apart() -> None:
    truth = np.array([[0, 1]], np.uint8)
    evaluation = evaluation_of((truth, truth), (1 - truth, truth), (truth, truth))

    rows = metrics_by_slice(evaluation, {"season": ["fall", "spring", "fall"]}, rounds=100)

    assert [(row["value"], row["photos"], row["families"], row["miou"]) for row in rows] == [
        ("fall", 2, 2, 1.0), ("spring", 1, 1, 0.0)
    ]  # fmt: skip
    assert [(row["reference"], row["difference"]) for row in rows] == [(0.5, 0.5), (0.5, -0.5)]
    assert "low" not in rows[0]


def test_a_slice_is_compared_over_its_own_labels() -> None:
    """Coats are found as well in fall as elsewhere; that dresses are never found is no merit of fall."""
    coat, dress = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 0, 2, 2]], np.uint8)
    evaluation = evaluation_of((coat, coat), (coat, coat), (dress * 0, dress))

    fall, _ = metrics_by_slice(evaluation, {"season": ["fall", "spring", "spring"]}, rounds=100)

    assert fall["miou"] == 1
    assert fall["reference"] == round((6 / 8 + 1) / 2, 4), "background and coat, over all photos"


def test_slices_have_intervals_and_gains_where_families_allow_it() -> None:
    pairs = moved_squares(12)
    champion = evaluation_of(*((truth, truth) for _, truth in pairs))
    challenger = evaluation_of(*pairs)

    [row] = metrics_by_slice(challenger, {"season": ["fall"] * 12}, 300, champion)

    assert row["low"] < row["miou"] < row["high"]
    assert row["champion"] == 1
    assert row["gain"] == pytest.approx(row["miou"] - 1, abs=1e-4)
    assert row["gain_low"] < row["gain"] < row["gain_high"] < 0


def test_a_gain_is_over_the_labels_in_the_truth_alone() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    imagines = np.array([[0, 2, 1, 1]], np.uint8)
    imagined, correct = (pixels_of(evaluation_of((answer, truth)).confusions.sum(0)) for answer in (imagines, truth))

    assert gain_of_pixels(imagined, correct) == pytest.approx((0.5 - 1 + 1 - 1) / 2)
    assert gain_of_pixels(imagined, correct) == -gain_of_pixels(correct, imagined)


def test_some_photos_of_an_evaluation() -> None:
    evaluation = evaluation_of(*moved_squares(6), families=list("aabbcc"))
    evaluation = Evaluation(
        **{**vars(evaluation), "regions": evaluation.regions.reindex([0, 1]).assign(photo=["photo 1", "photo 4"])}
    )

    part = evaluation.on(["photo 4", "photo 0"])

    assert (part.photos, part.families) == (("photo 4", "photo 0"), ("c", "a"))
    np.testing.assert_array_equal(part.confusions, evaluation.confusions[[4, 0]])
    assert part.regions["photo"].tolist() == ["photo 4"]


def test_the_floor_is_sure_from_three_families_on() -> None:
    seconds = np.array([10.0, 12, 8, 11, -2, 9])

    few, many = floor_of(seconds, list("aaabbb"), 500), floor_of(seconds, list("aabbcc"), 500)

    assert few == Floor(8.0)
    assert many.sure is not None and many.low is not None and many.high is not None
    assert many.low < many.sure < 8 < many.high
    assert few.passes and many.passes
    assert not Floor(-1.0).passes
    assert not Floor(3.0, -2.0, 8.0, -0.5).passes, "as likely as not is not enough"


def test_the_floor_is_read_back_from_metrics() -> None:
    floor = Floor(3.25, -2.0, 8.0, 0.5)

    assert Floor.from_metrics(floor.as_metrics()) == floor
    assert Floor.from_metrics(Floor(-4.0).as_metrics()) == Floor(-4.0)
    assert Floor.from_metrics({"miou": 0.5}) is None
    assert str(floor) == "its masks save 3.2 s per photo (90% sure of +0.5 s)"
