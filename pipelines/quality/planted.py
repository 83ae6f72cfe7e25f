"""Who accepts masks unseen: gold photos are handed out again with their true regions and one that is wrong.

The wrong region is one that the label has on another photo, so that it has a shape, a size and a place such as models'
regions have, moved until most of it lies on background: whoever looks sees it. What people submit on these photos
measures them alone and is no part of any dataset (`Annotation.planted`).
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
from pipelines.prelabel.strategies import chance_of
from pipelines.records import Prediction, RegionScore
from pipelines.segmentation.transforms import BACKGROUND, resize_mask

logger = logging.getLogger(__name__)
_LEAST_SHARE, _LARGEST_SHARE = 0.01, 0.15  # of the photo that a planted region covers
_ON_BACKGROUND = 0.5  # of its pixels, at least
_KEPT = 0.8  # of its pixels that must stay on the photo when it is moved
_STEPS_ACROSS, _STEPS_DOWN = (-0.4, -0.2, 0.0, 0.2, 0.4), (-0.2, 0.0, 0.2)  # shares of the photo's width and height
_TRIED = 200  # photos whose regions are looked at before a gold photo gets no wrong region


@dataclass(frozen=True)
class MissRate:
    """How many planted regions a person was shown and missed; the interval holds the true share with 95 % confidence.

    It is Wilson's, which fits few trials and shares near 0 and 1: Wilson, "Probable inference, the law of succession,
    and statistical inference" (1927).
    """

    seen: int
    missed: int

    @property
    def share(self) -> float:
        """Return the share that was missed: 0..1."""
        return self.missed / self.seen

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval: 0..1."""
        from scipy.stats import binomtest

        found = binomtest(self.missed, self.seen).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class GoldPhoto:
    """A photo whose truth one person drew and nobody else: its task, and the truth as (H, W) uint8 index mask."""

    task: int
    sha256: str
    truth: np.ndarray


Donors = Iterable[tuple[int, np.ndarray]]  # label ids with the (h, w) bool region that each has on some photo


def miss_rates(answers: Iterable[tuple[str, str]]) -> dict[str, MissRate]:
    """Count, by person, the planted regions that were seen and missed; `answers` are pairs of person and fate."""
    rates: dict[str, MissRate] = {}
    for person, fate in answers:
        before = rates.get(person, MissRate(0, 0))
        rates[person] = MissRate(before.seen + 1, before.missed + (fate == MISSED))
    return dict(sorted(rates.items()))


def donors_of(
    manifest: pd.DataFrame, gold: GoldPhoto, read_mask: Callable[[str], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield regions of other photos, of labels that the gold photo lacks and of a plausible size, in random order.

    `manifest` has the columns sha256, class_ids, label_pixels, height and width; `read_mask` gives the (H, W) uint8
    index mask of a photo by SHA-256. The order follows from the photos' content alone.
    """
    there = set(np.unique(gold.truth).tolist())
    rows = manifest[manifest["sha256"] != gold.sha256]
    order = sorted(rows.to_dict("records"), key=lambda row: chance_of(gold.sha256, str(row["sha256"])))
    for row in order[:_TRIED]:
        photo, pixels = int(row["height"]) * int(row["width"]), sorted(json.loads(row["label_pixels"]).values())
        if not any(_LEAST_SHARE <= count / photo <= _LARGEST_SHARE for count in pixels):
            continue
        mask = read_mask(str(row["sha256"]))
        for label_id in sorted({int(value) for value in row["class_ids"]} - there):
            region = mask == label_id
            if _LEAST_SHARE <= region.mean() <= _LARGEST_SHARE:
                yield label_id, region


def plant(truth: np.ndarray, donors: Donors) -> tuple[np.ndarray, int] | None:
    """Return the truth with a wrong region painted on it, and the region's label id; None when no donor fits.

    `truth` is (H, W) uint8. Each donor's region is scaled to the photo and moved as little as is needed for most of it
    to lie on background; what nobody could name stays bare.
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
            is_whole = size >= max(1.0, _KEPT * np.count_nonzero(scaled))
            if is_whole and np.count_nonzero(moved & (truth == BACKGROUND)) >= _ON_BACKGROUND * size:
                return np.where(moved, np.uint8(label_id), truth), label_id
    return None


def hand_out_gold(
    labels: LabelStudioClient,
    project: int,
    photos: Iterable[GoldPhoto],
    donors: Callable[[GoldPhoto], Donors],
    params: Params,
    *,
    version: str,
    plants: bool,
) -> int:
    """Let somebody else draw each gold photo; returns how many show a wrong region.

    They get a prediction of the model `version`, because the labeling stream hands out these: one with a wrong region,
    or for all but the share `quality.planted_share`, and for all unless it `plants`, one without regions. A wrong
    region that is there already stays as it is. Without a version photos are handed out with what they have.
    """
    shown = 0
    for photo in photos:
        if version:
            there = labels.get("/api/predictions/", task=photo.task)
            prediction = empty_prediction(version, chance_of("score", photo.sha256))
            if plants and any(is_planted(one["result"]) for one in there):
                prediction = {"model_version": version}
                shown += 1
            elif plants and (wrong := _wrong_prediction(photo, donors, params, version)):
                prediction = wrong
                shown += 1
            if not replace_predictions(labels, photo.task, prediction):
                push_predictions(labels, project, {photo.task: prediction})
        serve_again(labels, photo.task)
    return shown


def take_back(labels: LabelStudioClient, tasks: Iterable[int], version: str) -> int:
    """Make predictions with a wrong region propose nothing, under the model `version`; returns how many there were.

    They stay in their place, because Label Studio refuses work that started from a prediction that is gone.
    """
    count = 0
    for task in tasks:
        if any(is_planted(one["result"]) for one in labels.get("/api/predictions/", task=task)):
            count += replace_predictions(labels, task, empty_prediction(version, 1.0))
    return count


def _wrong_prediction(
    photo: GoldPhoto, donors: Callable[[GoldPhoto], Donors], params: Params, version: str
) -> PredictionJson | None:
    """Return the planted prediction of a photo; None when it is not of the share, or there is no region for it."""
    if chance_of("planted", photo.sha256) >= params.quality.planted_share:
        return None
    planted = plant(photo.truth, donors(photo))
    if planted is None:
        logger.warning("no photo has a region that would be plainly wrong on %s: none is put there", photo.sha256)
        return None
    mask, wrong = planted
    regions = tuple(
        RegionScore(name, label_id, 0.7 + 0.29 * chance_of(name, photo.sha256))  # such as models give
        for name, label_id in params.label_ids.items()
        if (mask == label_id).any()
    )
    score = float(np.mean([region.score for region in regions]))
    return planted_json(Prediction(mask, regions, score, version), params.label_names[wrong])
