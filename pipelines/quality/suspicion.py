"""Annotations that look wrong to a model, the worst first, with the reason.

Photos are scored by cleanlab's softmin of the probability of each pixel's label: Lad, Mueller: «Estimating label errors
in semantic segmentation data» (2023). A model knows the photos that it was trained on: on those it objects to the
grossest errors only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipelines.segmentation.clothing import ClothingModel
from pipelines.segmentation.transforms import resize_mask

_UNKNOWN = 255  # no network has so many channels
_UNLIKELY = 0.1  # probability of a label below which a pixel counts as wrong
_LEAST_SHARE = 0.005  # of the photo: a smaller difference is the edge of a garment


@dataclass(frozen=True)
class Suspicion:
    """A photo whose mask the model doubts: `score` 0..1, lower is worse, and the reason as a person reads it."""

    sha256: str
    score: float
    reason: str


def find_suspicious(
    photos: Iterable[tuple[str, np.ndarray, np.ndarray]], model: ClothingModel, most: int
) -> list[Suspicion]:
    """Give at most `most` suspicious photos, the worst first.

    `photos` gives sha256, the (H, W, 3) uint8 RGB photo and its (H, W) uint8 index mask, one at a time.
    """
    found = [one for photo in photos if (one := _examine(*photo, model))]
    return sorted(found, key=lambda one: (one.score, one.sha256))[:most]


def _examine(sha256: str, photo: np.ndarray, mask: np.ndarray, model: ClothingModel) -> Suspicion | None:
    from cleanlab.segmentation.rank import get_label_quality_scores

    probabilities = model.probabilities(photo)
    ids = model.card.index_of_channel
    channel_of = np.full(256, _UNKNOWN, np.uint8)
    channel_of[ids] = np.arange(len(ids))
    labels = channel_of[resize_mask(mask, *probabilities.shape[1:])]
    labels = np.where(labels == _UNKNOWN, probabilities.argmax(axis=0), labels)  # of these the model can say nothing
    scores, pixels = get_label_quality_scores(labels[None].astype(int), probabilities[None], verbose=False)
    reason = _reason(labels, probabilities, pixels[0], ["background", *model.card.labels])
    return Suspicion(sha256, float(scores[0]), reason) if reason else None


def _reason(labels: np.ndarray, probabilities: np.ndarray, likely: np.ndarray, names: list[str]) -> str:
    """Say which label the model takes for which other over the largest area; nothing when no area is large enough."""
    seen = probabilities.argmax(axis=0)
    doubtful = (likely < _UNLIKELY) & (seen != labels)
    pairs = np.bincount(labels[doubtful].astype(np.int64) * len(names) + seen[doubtful], minlength=len(names) ** 2)
    drawn, other = divmod(int(pairs.argmax()), len(names))
    share = pairs.max() / labels.size
    if share < _LEAST_SHARE:
        return ""
    if drawn == 0:
        return f"the model sees {names[other]} where nothing is drawn ({share:.1%} of the photo)"
    if other == 0:
        return f"the model sees nothing where {names[drawn]} is drawn ({share:.1%} of the photo)"
    return f"drawn as {names[drawn]}, the model sees {names[other]} ({share:.1%} of the photo)"
