"""Figures of an evaluation: all follow from counts of pixels, which are kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.training.bootstrap import interval, resampled, resampled_miou
from pipelines.training.boundary import boundary_f
from pipelines.training.metrics import Confusion, figures_of_pixels, mean_iou, pixels_of

CONFIDENCE = 0.95  # of the intervals that are shown
BINS = 15  # of probabilities, for calibration
FIGURES = ("iou", "dice", "precision", "recall", "boundary_f")  # by class, 0..1


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on N photos, in pixels per photo, over C classes with background first.

    `confusions` (N, C, C) int64 is truth by prediction; `edges` (N, C, 4) int64 as `count_edges` gives them;
    `certainty` (N, BINS, 3) holds, by the probability of what was predicted: pixels, the sum of their probabilities,
    and how many of them are right.
    """

    photos: tuple[str, ...]
    confusions: np.ndarray
    edges: np.ndarray
    certainty: np.ndarray

    @property
    def confusion(self) -> Confusion:
        """Give the confusion matrix of all photos."""
        return Confusion.of(self.confusions)

    @property
    def miou_of_photo(self) -> dict[str, float]:
        """Give each photo's own mIoU."""
        return {name: Confusion.of(one[None]).miou() for name, one in zip(self.photos, self.confusions, strict=True)}

    def calibration_error(self) -> float:
        """Give the expected calibration error over pixels, 0 (honest) to 1.

        After Guo et al., «On calibration of modern neural networks», ICML 2017, with BINS bins of equal width.
        """
        pixels, promised, right = self.certainty.sum(0).T
        return float(np.abs(promised - right).sum() / max(1, pixels.sum()))


def count_certainty(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count pixels by the probability of their prediction: (BINS, 3) float64, as `Evaluation.certainty` holds them.

    `confidence` is (H, W) float32 0..1; `right` (H, W) tells which pixels are.
    """
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1).ravel()
    weights = (None, confidence.ravel(), right.ravel())
    return np.stack([np.bincount(place, of, minlength=BINS) for of in weights], axis=1).astype(float)


def figures(found: Evaluation, labels: Mapping[str, int], rounds: int) -> dict[str, Any]:
    """Give the figures of metrics.json; `…_low` and `…_high` hold 95 % of `rounds` bootstrap resamples of the photos.

    Means are taken over the classes that occur.
    """
    confusion = found.confusion
    values = confusion.figures() | {"boundary_f": boundary_f(found.edges.sum(0))}
    pixels = resampled(pixels_of(found.confusions), rounds)
    others = figures_of_pixels(pixels) | {"boundary_f": boundary_f(resampled(found.edges, rounds))}
    per_class: dict[str, dict[str, float]] = {}
    for i, name in enumerate(["background", *labels]):
        if np.isfinite(values["iou"][i]):
            per_class[name] = {"photos": int(confusion.photos[i])}
            for key in FIGURES:
                if np.isfinite(values[key][i]):
                    low, high = interval(others[key][:, i], CONFIDENCE)
                    per_class[name] |= {key: _rounded(values[key][i]), f"{key}_low": _rounded(low)}
                    per_class[name][f"{key}_high"] = _rounded(high)
    low, high = interval(mean_iou(pixels), CONFIDENCE)
    return {
        "photos": len(found.photos),
        "miou": _rounded(confusion.miou()),
        "miou_low": _rounded(low),
        "miou_high": _rounded(high),
        "mean_dice": _rounded(float(np.nanmean(values["dice"]))),
        "mean_boundary_f": _rounded(_mean(values["boundary_f"])),
        "calibration_error": _rounded(found.calibration_error()),
        "per_class": per_class,
    }


def figures_of_slices(
    found: Evaluation, columns: Mapping[str, Sequence[str]], rounds: int, champion: Evaluation | None = None
) -> list[dict[str, object]]:
    """Give the mIoU of photos that share a value, one row per column and value; `columns` hold a value per photo.

    With a champion's evaluation of the same photos a row also holds its mIoU, and the interval of the difference over
    common resamples.
    """
    rows: list[dict[str, object]] = []
    for column, values in columns.items():
        of_photo = np.array([str(value) for value in values])
        for value in sorted(set(of_photo)):
            here = of_photo == value
            part = found.confusions[here]
            resampled = resampled_miou(part, rounds)
            low, high = interval(resampled, CONFIDENCE)
            row: dict[str, object] = {"slice": column, "value": value, "photos": len(part)}
            row |= {"miou": _rounded(Confusion.of(part).miou()), "low": _rounded(low), "high": _rounded(high)}
            if champion:
                theirs = champion.confusions[here]
                low, high = interval(resampled - resampled_miou(theirs, rounds), CONFIDENCE)
                row |= {"champion": _rounded(Confusion.of(theirs).miou())}
                row |= {"gain_low": _rounded(low), "gain_high": _rounded(high)}
            rows.append(row)
    return rows


def _mean(values: np.ndarray) -> float:
    """Average what is finite; 0 when nothing is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _rounded(value: float) -> float:
    return round(float(value), 4)
