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
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from pipelines.errors import ModelError

if TYPE_CHECKING:
    from pipelines.segmentation.clothing import ModelCard

logger = logging.getLogger(__name__)
PROPOSALS_FILE = "proposals.json"  # in a model folder
FEATURES = ("certainty", "overlap", "area", "raggedness", "photo_certainty")
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


@dataclass(frozen=True)
class Logistic:
    """A logistic model: the logit of a chance is `intercept` + `slopes` · features + the label's own `labels`.

    A label that is not among `labels` has no intercept of its own.
    """

    intercept: float
    slopes: tuple[float, ...]
    labels: Mapping[str, float]

    def chance(self, description: RegionDescription) -> float:
        """Return the chance, 0..1."""
        logit = self.intercept + float(np.dot(self.slopes, description.features))
        return float(1 / (1 + np.exp(-np.clip(logit + self.labels.get(description.label, 0.0), -30, 30))))


@dataclass(frozen=True)
class Proposals:
    """What decides whether a region is shown.

    `acceptable` gives the chance that a region is left as it is, `correctable` that it is at least worth correcting.
    `regions` and `photos` count what both were fitted on.
    """

    seconds: Seconds
    acceptable: Logistic
    correctable: Logistic
    regions: int
    photos: int
    features: tuple[str, ...] = FEATURES

    __pydantic_config__ = ConfigDict(extra="forbid")  # `from_json` checks types: a file may come from anywhere

    def chances(self, description: RegionDescription) -> Chances:
        """Return what people are expected to do with a region."""
        correctable = self.correctable.chance(description)
        accepted = min(correctable, self.acceptable.chance(description))
        return Chances(accepted, correctable - accepted, 1 - correctable)

    def saving(self, chances: Chances) -> float:
        """Return the seconds that showing a region is expected to save; below 0 when it costs time."""
        seconds = self.seconds
        return (
            chances.accepted * (seconds.draw - seconds.accept)
            + chances.corrected * (seconds.draw - seconds.correct)
            - chances.deleted * seconds.delete
        )

    def pays(self, description: RegionDescription) -> bool:
        """Tell whether showing a region is expected to save time."""
        return self.saving(self.chances(description)) > 0

    def as_json(self) -> str:
        """Return the text of proposals.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Proposals":
        """Read what `as_json` wrote; raises ModelError when it is something else."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValueError as error:
            raise ModelError(f"the text is no {PROPOSALS_FILE} ({error}); evaluate or train the model again") from error


def load_proposals(folder: Path) -> Proposals | None:
    """Load what decides which regions are shown from a model folder; None when it has no such file."""
    path = folder / PROPOSALS_FILE
    return Proposals.from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def describe_regions(probabilities: np.ndarray, index_mask: np.ndarray, card: "ModelCard") -> list[RegionDescription]:
    """Describe each label of a mask, in id order.

    `probabilities` is (C, h, w) float32 class probabilities, as `ClothingModel.probabilities` gives them; `index_mask`
    (H, W) uint8 is the mask that people would see, of any size.
    """
    raise NotImplementedError
