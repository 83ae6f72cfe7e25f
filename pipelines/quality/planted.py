"""Planted errors: gold photos are served once more with their true regions and a wrong one, to see who accepts it.

The wrong region comes from another photo, so that it has the shape, size and position of its label, and is moved until
most of it lies on background, where everybody who checks the mask notices it. What people submit on these photos
measures people alone and is part of no dataset (`Annotation.planted`).
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.planted import MISSED, is_planted, planted_json
from pipelines.labelstudio.predictions import empty_prediction, push_predictions, replace_predictions
from pipelines.labelstudio.schema import PredictionJson
from pipelines.labelstudio.tasks import serve_again
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import resample_mask
from pipelines.prelabel.strategies import chance_of
from pipelines.records import Prediction, RegionScore
from pipelines.segmentation.transforms import BACKGROUND, resize_mask

logger = logging.getLogger(__name__)
_MIN_SHARE, _MAX_SHARE = 0.01, 0.15  # of the photo that a planted region covers
_MIN_ON_BACKGROUND = 0.5  # share of its pixels
_MIN_ON_PHOTO = 0.8  # share of its pixels that stay on the photo when it is moved
_STEPS_ACROSS, _STEPS_DOWN = (-0.4, -0.2, 0.0, 0.2, 0.4), (-0.2, 0.0, 0.2)  # shares of the photo's width and height
_MAX_TRIED = 200  # photos whose regions are tried before a gold photo gets no planted error


@dataclass(frozen=True)
class MissRate:
    """How many planted errors a person was shown, and how many of them the person missed.

    `interval` holds the true share with 95 % confidence. It is Wilson's, which fits few trials and shares near 0 and 1:
    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """

    shown: int
    missed: int

    @property
    def share(self) -> float:
        """Return the share of planted errors that were missed: 0..1."""
        return self.missed / self.shown

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval: 0..1."""
        from scipy.stats import binomtest

        limits = binomtest(self.missed, self.shown).proportion_ci(0.95, method="wilson")
        return float(limits.low), float(limits.high)


@dataclass(frozen=True)
class GoldPhoto:
    """A photo whose ground truth is its only mask: its task, and the truth as (H, W) uint8 index mask.

    `shown_size` is the (height, width) of what the task shows, if that is a smaller copy of the photo.
    """

    task: int
    sha256: str
    truth: np.ndarray
    shown_size: tuple[int, int] | None = None


Donors = Iterable[tuple[int, np.ndarray]]  # label ids, each with its (h, w) bool region on some photo


def miss_rates(answers: Iterable[tuple[str, str]]) -> dict[str, MissRate]:
    """Return by person how many planted errors were shown and missed; `answers` are pairs of person and outcome."""
    rates: dict[str, MissRate] = {}
    for person, outcome in answers:
        before = rates.get(person, MissRate(0, 0))
        rates[person] = MissRate(before.shown + 1, before.missed + (outcome == MISSED))
    return dict(sorted(rates.items()))


def donor_regions(
    manifest: pd.DataFrame, gold: GoldPhoto, read_mask: Callable[[str], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield regions of other photos, of labels that the gold photo lacks and of a plausible size, in random order.

    `manifest` has the columns sha256, class_ids, label_pixels, height and width; `read_mask` returns the (H, W) uint8
    index mask of a photo by SHA-256. The order depends on the photos' content alone.
    """
    present = set(np.unique(gold.truth).tolist())
    rows = manifest[manifest["sha256"] != gold.sha256]
    order = sorted(rows.to_dict("records"), key=lambda row: chance_of(gold.sha256, str(row["sha256"])))
    for row in order[:_MAX_TRIED]:
        photo, pixels = int(row["height"]) * int(row["width"]), sorted(json.loads(row["label_pixels"]).values())
        if not any(_MIN_SHARE <= count / photo <= _MAX_SHARE for count in pixels):
            continue
        mask = read_mask(str(row["sha256"]))
        for label_id in sorted({int(value) for value in row["class_ids"]} - present):
            region = mask == label_id
            if _MIN_SHARE <= region.mean() <= _MAX_SHARE:
                yield label_id, region


def plant_error(truth: np.ndarray, donors: Donors) -> tuple[np.ndarray, int] | None:
    """Return the truth with a wrong region painted on it, and the region's label id; None when no donor fits.

    `truth` is (H, W) uint8. Each donor's region is scaled to the photo and moved only as far as needed for most of it
    to lie on background; pixels of the ignore label do not change.
    """
    height, width = truth.shape
    steps = sorted(((dy, dx) for dy in _STEPS_DOWN for dx in _STEPS_ACROSS), key=lambda step: (np.hypot(*step), step))
    for label_id, region in donors:
        scaled = resize_mask(region.astype(np.uint8), height, width)
        for down, across in steps:
            move = np.array([[1, 0, round(across * width)], [0, 1, round(down * height)]], np.float32)
            moved = cv2.warpAffine(scaled, move, (width, height), flags=cv2.INTER_NEAREST) > 0
            moved &= truth != IGNORE
            size = int(np.count_nonzero(moved))
            is_whole = size >= max(1.0, _MIN_ON_PHOTO * np.count_nonzero(scaled))
            if is_whole and np.count_nonzero(moved & (truth == BACKGROUND)) >= _MIN_ON_BACKGROUND * size:
                return np.where(moved, np.uint8(label_id), truth), label_id
    return None


def serve_gold_photos(
    labels: LabelStudioClient,
    project: int,
    photos: Iterable[GoldPhoto],
    donors: Callable[[GoldPhoto], Donors],
    params: Params,
    *,
    version: str,
    plants: bool,
) -> int:
    """Let somebody else draw each gold photo; returns how many show a planted error.

    Each gets a prediction of the model `version`, because the label stream serves tasks that have one. With `plants`
    the share `quality.planted_share` gets one with a planted error; the others get one without regions. A planted error
    that is already shown stays. With an empty `version` photos are served with the predictions that they have.
    """
    count = 0
    for photo in photos:
        if version:
            existing = labels.get("/api/predictions/", task=photo.task)
            prediction = empty_prediction(version, chance_of("score", photo.sha256))
            if plants and any(is_planted(shown["result"]) for shown in existing):
                prediction = {"model_version": version}
                count += 1
            elif plants and (with_error := _prediction_with_error(photo, donors, params, version)):
                prediction = with_error
                count += 1
            if not replace_predictions(labels, photo.task, prediction):
                push_predictions(labels, project, {photo.task: prediction})
        serve_again(labels, photo.task)
    return count


def clear_planted_errors(labels: LabelStudioClient, tasks: Iterable[int], version: str) -> int:
    """Empty the predictions with a planted error, under the model `version`; returns how many there were.

    They are not deleted, because Label Studio refuses work that started from a deleted prediction.
    """
    count = 0
    for task in tasks:
        predictions = labels.get("/api/predictions/", task=task)
        if any(is_planted(prediction["result"]) for prediction in predictions):
            count += replace_predictions(labels, task, empty_prediction(version, 1.0))
    return count


def _prediction_with_error(
    photo: GoldPhoto, donors: Callable[[GoldPhoto], Donors], params: Params, version: str
) -> PredictionJson | None:
    """Return a photo's prediction with a planted error; None when it is not in the share, or no donor fits."""
    if chance_of("planted", photo.sha256) >= params.quality.planted_share:
        return None
    planted = plant_error(photo.truth, donors(photo))
    if planted is None:
        logger.warning(
            "no photo has a region that would be plainly wrong on %s: it gets no planted error", photo.sha256
        )
        return None
    mask, wrong = planted
    mask = resample_mask(mask, *(photo.shown_size or mask.shape))
    regions = tuple(
        RegionScore(name, label_id, 0.7 + 0.29 * chance_of(name, photo.sha256))  # in the range of models' scores
        for name, label_id in params.label_ids.items()
        if (mask == label_id).any()
    )
    by_chance = params.prelabel.by_chance == 1  # is the order in which the queue serves photos
    score = chance_of("score", photo.sha256) if by_chance else float(np.mean([region.score for region in regions]))
    return planted_json(Prediction(mask, regions, score, version), params.label_names[wrong])
