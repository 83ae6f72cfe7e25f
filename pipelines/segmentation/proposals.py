"""Which regions of a prediction people are shown: those that are expected to save them time.

A region that stays as it is saves the time to draw it, one that is corrected saves a part of that, and one that is
deleted costs time. Two logistic models estimate how likely each is from features of the region; they are fitted on
photos whose masks people drew without a model (`pipelines.training.acceptance`) and stored beside the weights as
`proposals.json`, a few dozen numbers.
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
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # types are checked, because a file may come from anywhere
Number = TypeVar("Number", float, np.ndarray)
_MIN_CHANCE = 1e-3  # probabilities are clipped to this distance from 0 and 1 before their logits are taken


@dataclass(frozen=True)
class RegionDescription:
    """A network's region in numbers: `score` 0..1 is its mean probability, `features` are named by FEATURES."""

    label: str
    label_id: int
    score: float
    features: tuple[float, ...]


@dataclass(frozen=True)
class Chances:
    """How likely people leave a region as it is, correct it, or delete it; the three add up to 1."""

    accepted: float
    corrected: float
    deleted: float


@dataclass(frozen=True)
class Seconds:
    """How long people's work takes: `look` for a photo, one of the others for a region; see `EffortParams`."""

    look: float
    accept: float
    correct: float
    delete: float
    draw: float

    __pydantic_config__ = _STRICT

    @classmethod
    def from_params(cls, effort: EffortParams) -> "Seconds":
        """Return the seconds of params.yaml."""
        return cls(effort.look, effort.accept, effort.correct, effort.delete, effort.draw)

    def saved(self, accepted: Number, corrected: Number, deleted: Number) -> Number:
        """Return the seconds that showing regions saves, given how many, or how likely, end in each way."""
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
    """Decides which regions are shown.

    `acceptable` gives the chance that a region is left as it is, `correctable` that it is at least worth correcting.
    `regions` and `photos` count what both were fitted on, and `saved_per_photo` is what showing the regions that pay
    saved there, in seconds, by chances from photos of other families. Where that is not above 0, no region is shown:
    the few regions of such a model that seem to pay do so by chance.
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
        """Return whether showing a region is expected to save time."""
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
        """Read what `as_json` wrote; raises ModelError for any other text."""
        try:
            proposals = TypeAdapter(cls).validate_json(text)
        except ValueError as error:
            raise ModelError(f"the text is no {PROPOSALS_FILE} ({error}); download or train the model again") from error
        if {len(proposals.acceptable.slopes), len(proposals.correctable.slopes)} != {len(proposals.features)}:
            raise ModelError(
                f"there must be {len(proposals.features)} slopes, one per feature; download or train the model again"
            )
        return proposals


def load_proposals(folder: Path) -> Proposals | None:
    """Load the proposals.json of a model folder; None when there is none.

    None as well, with a warning, when it was fitted on other features: such a model proposes every region until it is
    evaluated again. Raises ModelError naming the file when it is damaged.
    """
    path = folder / PROPOSALS_FILE
    if not path.exists():
        return None
    try:
        proposals = Proposals.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ModelError) as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from error
    if proposals.features != FEATURES:
        logger.warning(
            "%s has other features of regions: all regions are proposed until the model is evaluated again", path
        )
        return None
    return proposals


def describe_regions(probabilities: np.ndarray, index_mask: np.ndarray, card: "ModelCard") -> list[RegionDescription]:
    """Describe each label of a mask, in id order.

    `probabilities` is (C, h, w) float32 class probabilities from `ClothingModel.probabilities`; `index_mask` (H, W)
    uint8 is the mask that people would see, of any size. Features are measured at the network's size.

    Features: the logit of the region's mean probability; the logit of its expected IoU, the sum of probabilities over
    the region divided by the region's area plus their sum outside; the logarithm of its share of the photo; and the
    logarithm of its squared perimeter divided by that of a square of the same area, which is large for speckle.
    """
    present = np.flatnonzero(cv2.calcHist([index_mask], [0], None, [256], [0, 256]))
    label_ids = present[present > 0]
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
    for first, second in ((padded[1:], padded[:-1]), (padded[:, 1:], padded[:, :-1])):
        differ = first != second
        edges += np.bincount(first[differ], minlength=256) + np.bincount(second[differ], minlength=256)
    for label_id in label_ids[area[label_ids] == 0]:  # too small for the network's size: counts as one pixel
        rows, columns = np.nonzero(index_mask == label_id)
        rows, columns = rows * height // index_mask.shape[0], columns * width // index_mask.shape[1]
        area[label_id], edges[label_id] = 1, 4
        inside[label_id] = probabilities[channel_of[label_id], rows, columns].mean()
    return area[label_ids], inside[label_ids], edges[label_ids]


def _logit(chance: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of chances, bounded."""
    clipped = np.clip(chance, _MIN_CHANCE, 1 - _MIN_CHANCE)
    return np.asarray(np.log(clipped / (1 - clipped)))
