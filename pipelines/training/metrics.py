"""Metrics of an evaluation: all follow from counts by photo.

docs/models.md defines each of them and names its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipelines.training.bootstrap import interval, resampled
from pipelines.training.boundary import boundary_f, boundary_iou
from pipelines.training.confusion import (
    Confusion,
    iou_of_pixels,
    mean_iou,
    mean_of_known,
    metrics_of_pixels,
    pixels_of,
    ratio,
    summary_of_pixels,
)  # fmt: skip

CONFIDENCE = 0.95  # of the intervals that are shown
BINS = 15  # of probabilities, for calibration
CLASS_METRICS = ("iou", "dice", "precision", "recall", "boundary_f", "boundary_iou")  # by class, 0..1
ENOUGH_PHOTOS, ENOUGH_FAMILIES = 5, 3  # that show a label, from which on its metrics have intervals
_EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions on N photos, counted in pixels per photo, over C classes with background first.

    `families` says which photos belong together; they, and never photos, are resampled. `confusions` (N, C, C) int64 is
    truth by prediction; `edges` (N, C, 4) and `bands` (N, C, 3) int64 are those of `count_edges` and `count_bands`.
    `confidence_bins` (N, BINS, 3) holds, by the probability of the predicted class: pixels, the sum of their
    probabilities, and how many of them are correct; `garment_confidence_bins` counts those that are a garment in truth
    or prediction.
    `regions` has a row per predicted region, as `acceptance.region_table` makes it. `agreement` is the share of pixels
    on which the model predicts the same class in the precision that it is served in.
    """

    photos: tuple[str, ...]
    families: tuple[str, ...]
    confusions: np.ndarray
    edges: np.ndarray
    bands: np.ndarray
    confidence_bins: np.ndarray
    garment_confidence_bins: np.ndarray
    regions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["photo"]))
    agreement: float = 1.0

    def on(self, photos: Sequence[str]) -> "Evaluation":
        """Return the evaluation of some of its photos; `agreement` stays that of all."""
        place = {name: number for number, name in enumerate(self.photos)}
        rows = [place[name] for name in photos]
        return Evaluation(
            tuple(photos), tuple(self.families[row] for row in rows), self.confusions[rows], self.edges[rows],
            self.bands[rows], self.confidence_bins[rows], self.garment_confidence_bins[rows],
            self.regions[self.regions["photo"].isin(list(photos))].reset_index(drop=True), self.agreement,
        )  # fmt: skip

    @property
    def confusion(self) -> Confusion:
        """Return the confusion matrix of all photos."""
        return Confusion.of(self.confusions)

    @property
    def miou_of_photo(self) -> dict[str, float]:
        """Return each photo's own mIoU; a photo of which nothing is known has none."""
        scores = mean_iou(pixels_of(self.confusions))
        return {name: float(score) for name, score in zip(self.photos, scores, strict=True) if np.isfinite(score)}

    def calibration_error(self, *, garments: bool = True) -> float:
        """Return the expected calibration error over garment pixels, or all pixels: 0 (calibrated) to 1.

        After Guo et al., "On calibration of modern neural networks", ICML 2017, with BINS bins of equal width. NaN
        when there is no pixel.
        """
        pixels, confidence, correct = (self.garment_confidence_bins if garments else self.confidence_bins).sum(0).T
        return float(ratio(np.abs(confidence - correct).sum(), pixels.sum()))


def count_confidence(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Count pixels by the probability of their prediction: (BINS, 3) float64, as in `Evaluation.confidence_bins`.

    `confidence` is float32 0..1 of any shape, `correct` bool of the same shape. A bin holds its lower edge, the last
    bin both.
    """
    place = np.clip(np.digitize(confidence.ravel(), _EDGES) - 1, 0, BINS - 1)
    weights = (None, confidence.ravel(), correct.ravel())
    return np.stack([np.bincount(place, of, minlength=BINS) for of in weights], axis=1).astype(float)


def compute_metrics(evaluation: Evaluation, labels: Mapping[str, int], rounds: int) -> dict[str, Any]:
    """Return the metrics of metrics.json; `…_low` and `…_high` hold 95 % of `rounds` resamples of the families.

    A metric without any count is left out. Fewer than three families give no interval, and neither does a label
    on fewer than five photos or of fewer than three families.
    """
    outlines = _outlines(evaluation.edges)
    counts = {"pixels": pixels_of(evaluation.confusions), "bands": evaluation.bands, "outlines": outlines}
    total = {name: of_photo.sum(0) for name, of_photo in counts.items()}
    drawn = {name: resampled(of_photo, evaluation.families, rounds) for name, of_photo in counts.items()}
    shown = evaluation.confusions.sum(2) > 0  # (N, C): which photos' truth has the class
    names = np.array(evaluation.families)
    photos, families = shown.sum(0), np.array([len(set(names[of_class])) for of_class in shown.T])
    estimates, others = _by_class(total), _by_class(drawn)
    per_class: dict[str, dict[str, float]] = {}
    for channel, name in enumerate(["background", *labels]):
        if np.isfinite(estimates["iou"][channel]):
            enough = photos[channel] >= ENOUGH_PHOTOS and families[channel] >= ENOUGH_FAMILIES
            per_class[name] = {"photos": int(photos[channel]), "families": int(families[channel])}
            for key in CLASS_METRICS:
                of_key = others[key][:, channel] if enough else None
                per_class[name] |= _with_interval(key, float(estimates[key][channel]), of_key)
    values: dict[str, Any] = {"photos": len(evaluation.photos), "families": len(set(evaluation.families))}
    enough = values["families"] >= ENOUGH_FAMILIES
    for key, estimate in _of_all(total).items():
        values |= _with_interval(key, float(estimate), _of_all(drawn)[key] if enough else None)
    values |= _with_interval("calibration_error", evaluation.calibration_error())
    values |= _with_interval("calibration_error_all", evaluation.calibration_error(garments=False))
    return values | {"per_class": per_class}


def metrics_by_slice(
    evaluation: Evaluation, columns: Mapping[str, Sequence[str]], rounds: int, champion: Evaluation | None = None
) -> list[dict[str, object]]:
    """Return a row per catalogue column and value, whose photos share it; `columns` hold a value per photo.

    Slices hold different labels, some easy and some hard: `reference` is the mIoU of the slice's labels over all
    photos, and `difference` the slice's `miou` less it. Slices of fewer than five photos or three families have no
    `low` and `high`. With a champion's evaluation of the same photos a row also holds its mIoU, and the `gain` over
    the labels in the truth with its interval over common resamples.
    """
    rows: list[dict[str, object]] = []
    overall = iou_of_pixels(pixels_of(evaluation.confusions).sum(0))
    for column, values in columns.items():
        of_photo = np.array([str(value) for value in values])
        for value in sorted(set(of_photo)):
            chosen = np.flatnonzero(of_photo == value)
            families = [evaluation.families[place] for place in chosen]
            pixels = pixels_of(evaluation.confusions[chosen])
            iou = iou_of_pixels(pixels.sum(0))
            miou, reference = (
                float(mean_of_known(iou)),
                float(mean_of_known(np.where(np.isfinite(iou), overall, np.nan))),
            )
            row = {"slice": column, "value": value, "photos": len(chosen), "families": len(set(families))}
            row |= {"miou": _rounded(miou), "reference": _rounded(reference), "difference": _rounded(miou - reference)}
            enough = len(chosen) >= ENOUGH_PHOTOS and len(set(families)) >= ENOUGH_FAMILIES
            if enough:
                row |= _bounds("", mean_iou(resampled(pixels, families, rounds)))
            if champion:
                of_champion = pixels_of(champion.confusions[chosen])
                row["champion"] = _rounded(float(mean_iou(of_champion.sum(0))))
                row["gain"] = _rounded(float(gain_of_pixels(pixels.sum(0), of_champion.sum(0))))
                if enough:
                    drawn = (resampled(counts, families, rounds) for counts in (pixels, of_champion))
                    row |= _bounds("gain_", gain_of_pixels(*drawn))
            rows.append(row)
    return rows


def gain_of_pixels(challenger: np.ndarray, champion: np.ndarray) -> np.ndarray:
    """Return the challenger's mIoU less the champion's over the classes in the truth: (...) from (..., C, 3) pixels.

    Which classes these are depends on no model, so that both are averaged over the same ones.
    """
    change = iou_of_pixels(challenger) - iou_of_pixels(champion)
    return mean_of_known(np.where(challenger[..., 1] > 0, change, np.nan))


def _outlines(edges: np.ndarray) -> np.ndarray:
    """Return boundary F-scores that can be added up: (N, C + 1, 2), the sum of scores and their number.

    The last row is that of photos: the mean over the classes with a boundary in it.
    """
    scores = boundary_f(edges)
    scores = np.concatenate([scores, mean_of_known(scores)[:, None]], axis=1)
    return np.stack([np.nan_to_num(scores), np.isfinite(scores).astype(float)], axis=-1)


def _by_class(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    outlines = counts["outlines"][..., :-1, :]
    return metrics_of_pixels(counts["pixels"]) | {
        "boundary_f": ratio(outlines[..., 0], outlines[..., 1]), "boundary_iou": boundary_iou(counts["bands"]),
    }  # fmt: skip


def _of_all(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    photos = counts["outlines"][..., -1, :]
    return summary_of_pixels(counts["pixels"]) | {
        "mean_boundary_f": ratio(photos[..., 0], photos[..., 1]),
        "boundary_iou": mean_of_known(boundary_iou(counts["bands"])),
    }


def _with_interval(key: str, estimate: float, others: np.ndarray | None = None) -> dict[str, float]:
    """Return a metric and its interval by name; nothing when it is not known."""
    if not np.isfinite(estimate):
        return {}
    return {key: _rounded(estimate)} | (_bounds(f"{key}_", others) if others is not None else {})


def _bounds(prefix: str, others: np.ndarray) -> dict[str, float]:
    low, high = interval(others, CONFIDENCE)
    return {f"{prefix}low": _rounded(low), f"{prefix}high": _rounded(high)}


def _rounded(value: float) -> float:
    return round(float(value), 4)
