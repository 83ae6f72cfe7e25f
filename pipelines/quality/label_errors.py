"""Label errors: masks that a model disagrees with, the worst first, with the reason.

What counts is the largest connected region of a photo whose given label is one and whose predicted label is one other:
its size, the model's margin there, and how rarely the model confuses these two labels. Edges of garments do not count.
The idea is that of confident learning (Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset
labels", 2021), with regions of photos in place of whole images: what a model often confuses is no sign of an error.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.params import IGNORE
from pipelines.segmentation.transforms import BACKGROUND, resize_mask

HEIGHT, WIDTH = 120, 80  # at which masks are compared
_EDGE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))  # what is nowhere as wide as this is the edge of a garment
_MIN_SHARE = 0.005  # of the photo: smaller differences are not worth anybody's time
_ERROR_RATE = 0.01  # assumed share of pixels with a wrong label; see `_error_probability`


@dataclass(frozen=True)
class JudgedPhoto:
    """A photo's given labels and a model's predictions.

    `mask` is (H, W) uint8 index mask, `probabilities` (C, h, w) float32. `labels` maps the model's labels to pixel
    values; channel 0 is background. `judge` names the model.
    """

    sha256: str
    mask: np.ndarray
    probabilities: np.ndarray
    labels: Mapping[str, int]
    judge: str = ""


@dataclass(frozen=True)
class LabelIssue:
    """A photo that probably has a label error: `score` 0..1, higher is worse, and the reason in words."""

    sha256: str
    score: float
    reason: str


@dataclass(frozen=True)
class _Region:
    """A connected region with one given and one other predicted label (pixel values); `share` is of the photo, 0..1.

    `margin` 0..1 is by how much the predicted label is more probable than the given one, on average.
    """

    sha256: str
    given: int
    predicted: int
    share: float
    margin: float


def find_label_issues(photos: Iterable[JudgedPhoto], max_issues: int) -> list[LabelIssue]:
    """Return at most `max_issues` photos with probable label errors, the worst first; photos may be a generator.

    Pixels that nobody could name (`IGNORE`), or whose label the model does not know, count nowhere.
    """
    regions: dict[str, list[_Region]] = defaultdict(list)
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((256, 256)))  # pixels by given and predicted label
    names = {BACKGROUND: ""}
    for photo in photos:
        names |= {value: name for name, value in photo.labels.items()}
        given, predicted, margin = _compare(photo)
        known = given != IGNORE
        pairs = given[known].astype(np.int32) * 256 + predicted[known]
        counts[photo.judge] += np.bincount(pairs, minlength=65536).reshape(256, 256)
        regions[photo.judge] += _differing_regions(photo.sha256, given, predicted, margin)
    worst: dict[str, LabelIssue] = {}
    for judge, regions_of_judge in regions.items():
        probability = _error_probability(counts[judge])
        for region in regions_of_judge:
            score = float(np.sqrt(region.share) * region.margin * probability[region.given, region.predicted])
            if region.sha256 not in worst or score > worst[region.sha256].score:
                worst[region.sha256] = LabelIssue(region.sha256, score, _reason(region, names))
    return sorted(worst.values(), key=lambda issue: (-issue.score, issue.sha256))[:max_issues]


def _compare(photo: JudgedPhoto) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return given and predicted labels, (h, w) uint8 pixel values, and the margin of the predicted ones.

    The given label is `IGNORE` where nobody could name a pixel, or where the model does not know its label.
    """
    probs = np.stack([_resized(plane) for plane in photo.probabilities])
    values = np.array([BACKGROUND, *photo.labels.values()], np.uint8)
    channel_of = np.full(256, IGNORE, np.uint8)
    channel_of[values] = np.arange(len(values))
    given = resize_mask(photo.mask, HEIGHT, WIDTH)
    channel = channel_of[given]
    unknown = (given == IGNORE) | (channel == IGNORE)
    predicted = probs.argmax(axis=0)
    of_given = np.take_along_axis(probs, np.where(unknown, 0, channel)[None].astype(np.int64), axis=0)[0]
    return np.where(unknown, np.uint8(IGNORE), given), values[predicted], probs.max(axis=0) - of_given


def _resized(plane: np.ndarray) -> np.ndarray:
    shrinks = plane.size > HEIGHT * WIDTH
    return cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _differing_regions(sha256: str, given: np.ndarray, predicted: np.ndarray, margin: np.ndarray) -> list[_Region]:
    """Return the regions that are wide enough not to be an edge, and large enough to matter."""
    known = given != IGNORE
    pairs = np.where(known & (given != predicted), given.astype(np.int32) * 256 + predicted, -1)
    total = max(1, int(known.sum()))
    regions: list[_Region] = []
    for pair in np.unique(pairs[pairs >= 0]).tolist():
        wide = cv2.morphologyEx((pairs == pair).astype(np.uint8), cv2.MORPH_OPEN, _EDGE)
        count, components = cv2.connectedComponents(wide)
        sizes = np.bincount(components.ravel(), minlength=count)[1:]
        sums = np.bincount(components.ravel(), margin.ravel(), minlength=count)[1:]
        regions += [
            _Region(sha256, pair // 256, pair % 256, float(size / total), float(margins / size))
            for size, margins in zip(sizes, sums, strict=True)
            if size >= _MIN_SHARE * total
        ]
    return regions


def _error_probability(counts: np.ndarray) -> np.ndarray:
    """Return how probable it is that a difference is a label error, (256, 256), 0..1, by given and predicted label.

    `counts` are the pixels of all photos. By Bayes' rule with a share `_ERROR_RATE` of wrong labels, against how often
    the model predicts the one label where the other was given.
    """
    of_predicted = counts / np.maximum(1, counts.sum(axis=0, keepdims=True))
    of_given = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    of_given[BACKGROUND] = 0  # every share of so many pixels is small
    return _ERROR_RATE / (_ERROR_RATE + of_predicted + of_given)


def _reason(region: _Region, names: dict[int, str]) -> str:
    """Say which label the model predicts in place of which given one, and on how much of the photo."""
    share = f"({region.share:.1%} of the photo)"
    if region.given == BACKGROUND:
        return f"the model sees {names[region.predicted]} where nothing is drawn {share}"
    if region.predicted == BACKGROUND:
        return f"the model sees nothing where {names[region.given]} is drawn {share}"
    return f"drawn as {names[region.given]}, the model sees {names[region.predicted]} {share}"
