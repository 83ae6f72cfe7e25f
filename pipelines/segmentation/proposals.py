"""Which regions of a prediction are shown to people: those that are expected to save them time.

A region that stays as it is saves drawing it, one that is worth correcting saves a part of that, and one that is
deleted costs time. How likely each is follows from two logistic models of what the network says of the region, fitted
on photos whose masks people drew by themselves (`pipelines.training.acceptance`). They travel beside the weights as
`proposals.json`: a few dozen numbers.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from pydantic import ConfigDict, TypeAdapter

from pipelines.errors import ModelError
from pipelines.params import EffortParams
from pipelines.records import RegionScore
from pipelines.segmentation.transforms import resize_mask

if TYPE_CHECKING:
    from pipelines.segmentation.model import ModelCard

logger = logging.getLogger(__name__)
PROPOSALS_FILE = "proposals.json"  # in a model folder
FEATURES = ("certainty", "overlap", "area", "raggedness")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # types are checked: a file may come from anywhere
Number = TypeVar("Number", float, np.ndarray)
_LEAST = 1e-3  # probabilities are kept this far from 0 and 1 before their logits are taken


@dataclass(frozen=True)
class RegionDescription:
    """What a network says of one region: `score` 0..1 is its mean probability; `features` are named by FEATURES."""

    label: str
    label_id: int
    score: float
    features: tuple[float, ...]


@dataclass(frozen=True)
class Chances:
    """How likely people leave a region as it is, correct it, or throw it away; the three add up to 1."""

    accepted: float
    corrected: float
    deleted: float


@dataclass(frozen=True)
class Seconds:
    """What people's work takes: a photo costs `look`, and a region one of the others; see `EffortParams`."""

    look: float
    accept: float
    correct: float
    delete: float
    draw: float

    __pydantic_config__ = _STRICT

    @classmethod
    def from_params(cls, effort: EffortParams) -> "Seconds":
        """Return the seconds that params.yaml gives."""
        return cls(effort.look, effort.accept, effort.correct, effort.delete, effort.draw)

    def saved(self, accepted: Number, corrected: Number, deleted: Number) -> Number:
        """Return what showing regions saves, given how many, or how likely, end in each way."""
        gain = accepted * (self.draw - self.accept) + corrected * (self.draw - self.correct)
        return gain - deleted * self.delete


@dataclass(frozen=True)
class Logistic:
    """A logistic model: the logit of a chance is `intercept` + `slopes` · features + the label's own `labels`.

    A label that is not among `labels` has no intercept of its own.
    """

    intercept: float
    slopes: tuple[float, ...]
    labels: Mapping[str, float]

    __pydantic_config__ = _STRICT

    def chance(self, description: RegionDescription) -> float:
        """Return the chance, 0..1."""
        logit = self.intercept + float(np.dot(self.slopes, description.features))
        return float(1 / (1 + np.exp(-np.clip(logit + self.labels.get(description.label, 0.0), -30, 30))))


@dataclass(frozen=True)
class Proposals:
    """What decides whether a region is shown.

    `acceptable` gives the chance that a region is left as it is, `correctable` that it is at least worth correcting.
    `regions` and `photos` count what both were fitted on, and `saved_per_photo` is what showing the regions that pay
    saved there, in seconds, by chances from photos of other families. Where that is nothing, no region is shown: what
    little seems to pay of a hopeless model is chance.
    """

    seconds: Seconds
    acceptable: Logistic
    correctable: Logistic
    regions: int
    photos: int
    saved_per_photo: float
    features: tuple[str, ...] = FEATURES

    __pydantic_config__ = _STRICT

    def chances(self, description: RegionDescription) -> Chances:
        """Return what people are expected to do with a region."""
        correctable = self.correctable.chance(description)
        accepted = min(correctable, self.acceptable.chance(description))
        return Chances(accepted, correctable - accepted, 1 - correctable)

    def saving(self, chances: Chances) -> float:
        """Return the seconds that showing a region is expected to save; below 0 when it costs time."""
        return self.seconds.saved(chances.accepted, chances.corrected, chances.deleted)

    def pays(self, description: RegionDescription) -> bool:
        """Tell whether showing a region is expected to save time."""
        return self.saved_per_photo > 0 and self.saving(self.chances(description)) > 0

    def worth_showing(
        self, probabilities: np.ndarray, index_mask: np.ndarray, card: "ModelCard"
    ) -> tuple[RegionScore, ...]:
        """Return the regions that pay, in id order, each with its chance of being accepted as its score.

        The arguments are those of `describe_regions`.
        """
        return tuple(
            RegionScore(region.label, region.label_id, self.chances(region).accepted)
            for region in describe_regions(probabilities, index_mask, card)
            if self.pays(region)
        )

    def as_json(self) -> str:
        """Return the text of proposals.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Proposals":
        """Read what `as_json` wrote; raises ModelError when it is something else."""
        try:
            found = TypeAdapter(cls).validate_json(text)
        except ValueError as error:
            raise ModelError(f"the text is no {PROPOSALS_FILE} ({error}); download or train the model again") from error
        if {len(found.acceptable.slopes), len(found.correctable.slopes)} != {len(found.features)}:
            raise ModelError(
                f"there must be {len(found.features)} slopes, one for each feature; download or train the model again"
            )
        return found


def load_proposals(folder: Path) -> Proposals | None:
    """Load what decides which regions of a model are shown; None when its folder has no such file.

    None as well, with a warning, when it was fitted on other features: such a model proposes every region until it is
    evaluated again. Raises ModelError naming the file when that is damaged.
    """
    path = folder / PROPOSALS_FILE
    if not path.exists():
        return None
    try:
        found = Proposals.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ModelError) as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from error
    if found.features != FEATURES:
        logger.warning("%s knows other features of regions: all are proposed until the model is evaluated again", path)
        return None
    return found


def describe_regions(probabilities: np.ndarray, index_mask: np.ndarray, card: "ModelCard") -> list[RegionDescription]:
    """Describe each label of a mask, in id order.

    `probabilities` is (C, h, w) float32 class probabilities, as `ClothingModel.probabilities` gives them; `index_mask`
    (H, W) uint8 is the mask that people would see, of any size. What is measured is measured at the network's size.

    Features: the logit of the region's mean probability; the logit of the IoU that the probabilities promise, their sum
    over the region by the region's area and their sum outside; the logarithm of its share of the photo; and that of the
    square of its perimeter against a square's of the same area, which is large for speckle.
    """
    there = np.flatnonzero(cv2.calcHist([index_mask], [0], None, [256], [0, 256]))
    label_ids = there[there > 0]
    if not len(label_ids):
        return []
    channel_of = np.zeros(256, np.intp)
    channel_of[card.index_of_channel] = np.arange(len(card.index_of_channel))
    channels, names = channel_of[label_ids], {label_id: name for name, label_id in card.labels.items()}
    area, inside, edges = _measure(probabilities, index_mask, label_ids, channel_of)
    score, pixels = inside / area, probabilities[0].size
    total = np.array([float(probabilities[channel].sum()) for channel in channels])
    overlap = inside / (area + np.maximum(total - inside, 0))
    columns = _logit(score), _logit(overlap), np.log(area / pixels), np.log(edges**2 / (16 * area))
    rows = np.stack(columns, axis=1)
    return [
        RegionDescription(names[label_id], label_id, float(mean), tuple(row))
        for label_id, mean, row in zip(label_ids.tolist(), score, rows.tolist(), strict=True)
    ]


def _measure(
    probabilities: np.ndarray, index_mask: np.ndarray, label_ids: np.ndarray, channel_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return area in pixels, sum of probabilities and number of edges to other pixels, each (labels,) float64."""
    height, width = probabilities.shape[1:]
    small = resize_mask(index_mask, height, width)
    flat = small.ravel().astype(np.intp)
    own = probabilities.ravel().take(channel_of[flat] * flat.size + np.arange(flat.size))
    area = np.bincount(flat, minlength=256).astype(float)
    inside = np.bincount(flat, weights=own, minlength=256)
    padded, edges = np.pad(small, 1), np.zeros(256)
    for one, other in ((padded[1:], padded[:-1]), (padded[:, 1:], padded[:, :-1])):
        differ = one != other
        edges += np.bincount(one[differ], minlength=256) + np.bincount(other[differ], minlength=256)
    for label_id in label_ids[area[label_ids] == 0]:  # too small to be met at the network's size: about a pixel
        rows, columns = np.nonzero(index_mask == label_id)
        rows, columns = rows * height // index_mask.shape[0], columns * width // index_mask.shape[1]
        area[label_id], edges[label_id] = 1, 4
        inside[label_id] = probabilities[channel_of[label_id], rows, columns].mean()
    return area[label_ids], inside[label_ids], edges[label_ids]


def _logit(chance: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of chances, bounded."""
    kept = np.clip(chance, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(kept / (1 - kept)))
