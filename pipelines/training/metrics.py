"""Figures of an evaluation: all follow from what is counted photo by photo.

How each is defined, and where the definition comes from, stands in docs/models.md.
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
    figures_of_pixels,
    iou_of_pixels,
    mean_iou,
    mean_of_known,
    pixels_of,
    ratio,
    summary_of_pixels,
)  # fmt: skip

CONFIDENCE = 0.95  # of the intervals that are shown
BINS = 15  # of probabilities, for calibration
FIGURES = ("iou", "dice", "precision", "recall", "boundary_f", "boundary_iou")  # by class, 0..1
ENOUGH_PHOTOS, ENOUGH_FAMILIES = 5, 3  # that show a label, from which on its figures have intervals
_EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on N photos, in pixels per photo, over C classes with background first.

    `families` says which photos belong together; they, and never photos, are resampled. `confusions` (N, C, C) int64 is
    truth by prediction; `edges` (N, C, 4) and `bands` (N, C, 3) int64 are as `count_edges` and `count_bands` give them.
    `certainty` (N, BINS, 3) holds, by the probability of what was predicted: pixels, the sum of their probabilities,
    and how many of them are right; `garment_certainty` those of them that truth or prediction calls a garment.
    `regions` has a row per predicted region, as `acceptance.region_table` makes it. `agreement` is the share of pixels
    on which the model says the same in the precision it is served in.
    """

    photos: tuple[str, ...]
    families: tuple[str, ...]
    confusions: np.ndarray
    edges: np.ndarray
    bands: np.ndarray
    certainty: np.ndarray
    garment_certainty: np.ndarray
    regions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["photo"]))
    agreement: float = 1.0

    def on(self, photos: Sequence[str]) -> "Evaluation":
        """Return the evaluation of some of its photos; `agreement` stays that of all."""
        place = {name: number for number, name in enumerate(self.photos)}
        rows = [place[name] for name in photos]
        return Evaluation(
            tuple(photos), tuple(self.families[row] for row in rows), self.confusions[rows], self.edges[rows],
            self.bands[rows], self.certainty[rows], self.garment_certainty[rows],
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
        return {name: float(one) for name, one in zip(self.photos, scores, strict=True) if np.isfinite(one)}

    def calibration_error(self, *, garments: bool = True) -> float:
        """Return the expected calibration error over garment pixels, or all pixels: 0 (honest) to 1.

        After Guo et al., «On calibration of modern neural networks», ICML 2017, with BINS bins of equal width. NaN
        when there is no pixel.
        """
        pixels, promised, right = (self.garment_certainty if garments else self.certainty).sum(0).T
        return float(ratio(np.abs(promised - right).sum(), pixels.sum()))


def count_certainty(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count pixels by the probability of their prediction: (BINS, 3) float64, as `Evaluation.certainty` holds them.

    `confidence` is float32 0..1 of any shape; `right` of the same shape tells which pixels are. A bin holds its lower
    edge, the last one both.
    """
    place = np.clip(np.searchsorted(_EDGES, confidence.ravel(), side="right") - 1, 0, BINS - 1)
    weights = (None, confidence.ravel(), right.ravel())
    return np.stack([np.bincount(place, of, minlength=BINS) for of in weights], axis=1).astype(float)


def figures(found: Evaluation, labels: Mapping[str, int], rounds: int) -> dict[str, Any]:
    """Return the figures of metrics.json; `…_low` and `…_high` hold 95 % of `rounds` resamples of the families.

    A figure that nothing speaks for is left out. Fewer than three families give no interval, and neither does a label
    on fewer than five photos or of fewer than three families.
    """
    counts = {"pixels": pixels_of(found.confusions), "bands": found.bands, "outlines": _outlines(found.edges)}
    total = {name: of_photo.sum(0) for name, of_photo in counts.items()}
    drawn = {name: resampled(of_photo, found.families, rounds) for name, of_photo in counts.items()}
    shown = found.confusions.sum(2) > 0  # (N, C): which photos' truth has the class
    photos, families = shown.sum(0), np.array([len({f for f, has in zip(found.families, of, strict=True) if has})
                                               for of in shown.T])  # fmt: skip
    estimates, others = _by_class(total), _by_class(drawn)
    per_class: dict[str, dict[str, float]] = {}
    for channel, name in enumerate(["background", *labels]):
        if np.isfinite(estimates["iou"][channel]):
            enough = photos[channel] >= ENOUGH_PHOTOS and families[channel] >= ENOUGH_FAMILIES
            per_class[name] = {"photos": int(photos[channel]), "families": int(families[channel])}
            for key in FIGURES:
                of_key = others[key][:, channel] if enough else None
                per_class[name] |= _with_interval(key, float(estimates[key][channel]), of_key)
    values: dict[str, Any] = {"photos": len(found.photos), "families": len(set(found.families))}
    enough = values["families"] >= ENOUGH_FAMILIES
    for key, estimate in _of_all(total).items():
        values |= _with_interval(key, float(estimate), _of_all(drawn)[key] if enough else None)
    values |= _with_interval("calibration_error", found.calibration_error())
    values |= _with_interval("calibration_error_all", found.calibration_error(garments=False))
    return values | {"per_class": per_class}


def figures_of_slices(
    found: Evaluation, columns: Mapping[str, Sequence[str]], rounds: int, champion: Evaluation | None = None
) -> list[dict[str, object]]:
    """Return a row per catalogue column and value, whose photos share it; `columns` hold a value per photo.

    Slices hold different labels, some easy and some hard: beside a slice's `miou` stands as `reference` the mIoU that
    the very same labels have over all photos, and their `difference`. `low` and `high` are there from five photos of
    three families on. With a champion's evaluation of the same photos a row also holds its mIoU, and the `gain` over
    the labels in the truth with its interval over common resamples.
    """
    rows: list[dict[str, object]] = []
    overall = iou_of_pixels(pixels_of(found.confusions).sum(0))
    for column, values in columns.items():
        of_photo = np.array([str(value) for value in values])
        for value in sorted(set(of_photo)):
            here = np.flatnonzero(of_photo == value)
            families = [found.families[place] for place in here]
            pixels = pixels_of(found.confusions[here])
            iou = iou_of_pixels(pixels.sum(0))
            miou, reference = (
                float(mean_of_known(iou)),
                float(mean_of_known(np.where(np.isfinite(iou), overall, np.nan))),
            )
            row = {"slice": column, "value": value, "photos": len(here), "families": len(set(families))}
            row |= {"miou": _rounded(miou), "reference": _rounded(reference), "difference": _rounded(miou - reference)}
            enough = len(here) >= ENOUGH_PHOTOS and len(set(families)) >= ENOUGH_FAMILIES
            if enough:
                row |= _bounds("", mean_iou(resampled(pixels, families, rounds)))
            if champion:
                theirs = pixels_of(champion.confusions[here])
                row["champion"] = _rounded(float(mean_iou(theirs.sum(0))))
                row["gain"] = _rounded(float(gain_of_pixels(pixels.sum(0), theirs.sum(0))))
                if enough:
                    drawn = (resampled(one, families, rounds) for one in (pixels, theirs))
                    row |= _bounds("gain_", gain_of_pixels(*drawn))
            rows.append(row)
    return rows


def gain_of_pixels(challenger: np.ndarray, champion: np.ndarray) -> np.ndarray:
    """Return the challenger's mIoU less the champion's over the classes in the truth: (...) from (..., C, 3) pixels.

    Which classes these are depends on no model, so that both are averaged over the same ones.
    """
    ours, theirs = iou_of_pixels(challenger), iou_of_pixels(champion)
    return mean_of_known(np.where(challenger[..., 1] > 0, ours - theirs, np.nan))


def _outlines(edges: np.ndarray) -> np.ndarray:
    """Give boundary F-scores that can be added up: (N, C + 1, 2), the sum of scores and their number.

    The last row is that of photos: the mean over the classes with a boundary in it.
    """
    scores = boundary_f(edges)
    scores = np.concatenate([scores, mean_of_known(scores)[:, None]], axis=1)
    return np.stack([np.nan_to_num(scores), np.isfinite(scores).astype(float)], axis=-1)


def _by_class(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    outlines = counts["outlines"][..., :-1, :]
    return figures_of_pixels(counts["pixels"]) | {
        "boundary_f": ratio(outlines[..., 0], outlines[..., 1]), "boundary_iou": boundary_iou(counts["bands"]),
    }  # fmt: skip


def _of_all(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    photos = counts["outlines"][..., -1, :]
    return summary_of_pixels(counts["pixels"]) | {
        "mean_boundary_f": ratio(photos[..., 0], photos[..., 1]),
        "boundary_iou": mean_of_known(boundary_iou(counts["bands"])),
    }


def _with_interval(key: str, estimate: float, others: np.ndarray | None = None) -> dict[str, float]:
    """Name a figure and its interval; nothing when it is not known."""
    if not np.isfinite(estimate):
        return {}
    return {key: _rounded(estimate)} | (_bounds(f"{key}_", others) if others is not None else {})


def _bounds(prefix: str, others: np.ndarray) -> dict[str, float]:
    low, high = interval(others, CONFIDENCE)
    return {f"{prefix}low": _rounded(low), f"{prefix}high": _rounded(high)}


def _rounded(value: float) -> float:
    return round(float(value), 4)
