"""Answers of models whose skill is known, to see how often the gate errs: drawn counts, and jittered real masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd

from pipelines.params import EffortParams
from pipelines.training.confusion import Confusion
from pipelines.training.metrics import BINS, Evaluation

CLASSES = 20  # background and 19 garments
_FREQUENCY = np.r_[1, np.geomspace(0.8, 0.05, CLASSES - 1)]  # share of photos that show a class
_SKILL = np.r_[3.5, np.full(CLASSES - 1, 0.4)]  # logit of the share of a class's pixels that a model finds
_BACKGROUND = 300_000  # pixels
_NO_REGIONS = pd.DataFrame(columns=["photo"])


def evaluation_of(confusions: np.ndarray, families: Sequence[str]) -> Evaluation:
    """Return the evaluation of photos of which (N, C, C) confusion matrices are all that is known."""
    photos, classes = confusions.shape[:2]
    nothing = np.zeros((photos, BINS, 3))
    return Evaluation(
        tuple(str(number) for number in range(photos)), tuple(families), confusions,
        np.zeros((photos, classes, 4), np.int64), np.zeros((photos, classes, 3), np.int64), nothing, nothing,
        _NO_REGIONS,
    )  # fmt: skip


@dataclass(frozen=True)
class DrawnTestSplit:
    """Photos of families of unequal size; how hard each is, is common to all models.

    Photos of a family are hard or easy together, and each model has families that suit it better or worse: by an offset
    of standard deviation `own` in logits, common to all photos of the family.
    """

    photos: int
    families: int
    seed: int
    own: float = 0.7
    random: np.random.Generator = field(init=False)
    family: np.ndarray = field(init=False)  # (N,) number of the photo's family
    pixels: np.ndarray = field(init=False)  # (N, C) of each class in the truth
    difficulty: np.ndarray = field(init=False)  # (N, C) logits

    def __post_init__(self) -> None:
        """Draw the photos."""
        random = np.random.default_rng((self.seed, self.photos, self.families))
        shares = random.dirichlet(np.full(self.families, 3.0))
        more = random.choice(self.families, self.photos - self.families, p=shares)
        family = np.r_[np.arange(self.families), more]
        shown = random.random((self.photos, CLASSES)) < _FREQUENCY
        shown[:, 0] = True
        pixels = random.lognormal(9, 0.7, shown.shape) * shown
        pixels[:, 0] = _BACKGROUND
        of_family = random.normal(0, 0.7, (self.families, 1))
        difficulty = of_family[family] + random.normal(0, 0.6, shown.shape)
        for name, value in (("random", random), ("family", family), ("pixels", pixels), ("difficulty", difficulty)):
            object.__setattr__(self, name, value)

    def answers(self, skill: float = 0.0) -> Evaluation:
        """Return what another model answers; `skill` in logits is what it is better by, on all photos and classes."""
        random, photos = self.random, self.photos
        own = random.normal(0, self.own, (self.families, 1)) + random.normal(0, 0.3, (self.families, CLASSES))
        own[:, 0] *= 0.3  # background is the same everywhere
        logits = _SKILL + skill + self.difficulty + own[self.family] + random.normal(0, 0.4, (photos, CLASSES))
        hit = (self.pixels / (1 + np.exp(-logits))).astype(np.int64)
        missed = self.pixels.astype(np.int64) - hit
        confusions = np.zeros((photos, CLASSES, CLASSES), np.int64)
        confusions[:, range(CLASSES), range(CLASSES)] = hit
        confusions[:, 1:, 0] = missed[:, 1:] * 6 // 10  # what is missed of a garment is background or another one
        taken_for = random.integers(1, CLASSES, photos)
        confusions[np.arange(photos), :, taken_for] += missed * 4 // 10
        return evaluation_of(confusions, [str(number) for number in self.family])


@dataclass(frozen=True)
class JitteredMasks:
    """Models that answer with the true masks, bent: `masks` are (H, W) uint8 channel maps of one size."""

    masks: Sequence[np.ndarray]

    def bent(self, number: int, amplitude: float, random: np.random.Generator) -> np.ndarray:
        """Return mask `number`, displaced smoothly by about so many pixels."""
        mask = self.masks[number]
        height, width = mask.shape
        coarse = random.normal(0, 1, (2, height // 16, width // 16)).astype(np.float32)
        moved = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) * amplitude for plane in coarse]
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        return cv2.remap(mask, columns + moved[0], rows + moved[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    def answers(self, chosen: Sequence[int], families: Sequence[str], amplitude: float, seed: int) -> list[np.ndarray]:
        """Return a model's answers to these photos; each family suits it a little better or worse."""
        random = np.random.default_rng(seed)
        luck = {family: float(np.exp(random.normal(0, 0.15))) for family in sorted(set(families))}
        return [
            self.bent(number, amplitude * luck[family], random) for number, family in zip(chosen, families, strict=True)
        ]

    def amplitude_for(self, miou: float, seed: int) -> float:
        """Return by how many pixels masks are bent when the mIoU over all of them is this."""
        low, high = 0.1, 20.0
        everything = range(len(self.masks))
        families = [str(number) for number in everything]
        for _ in range(12):
            middle = (low + high) / 2
            evaluation = judged(self.answers(everything, families, middle, seed), self.masks, families)
            low, high = (middle, high) if evaluation.confusion.miou() > miou else (low, middle)
        return (low + high) / 2


def judged(answers: Sequence[np.ndarray], truths: Sequence[np.ndarray], families: Sequence[str]) -> Evaluation:
    """Count answers against truths."""
    confusions = []
    for answer, truth in zip(answers, truths, strict=True):
        confusion = Confusion(CLASSES)
        confusion.add(answer, truth)
        confusions.append(confusion.matrix)
    return evaluation_of(np.stack(confusions), families)


def submitted(proposed: np.ndarray, truth: np.ndarray, effort: EffortParams) -> np.ndarray:
    """Return what people submit who see `proposed`: regions that overlap well enough stay, others are drawn exactly."""
    result = truth.copy()
    for channel in np.unique(proposed)[1:]:
        region, wanted = proposed == channel, truth == channel
        if np.count_nonzero(region & wanted) >= effort.accept_iou * np.count_nonzero(region | wanted):
            result[wanted] = 0
            result[region] = channel
    return result
