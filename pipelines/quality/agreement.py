"""How well people agree who drew the same photos: IoU per label, per person, and Krippendorff's alpha over pixels.

Alpha for nominal data after Krippendorff, «Computing Krippendorff's alpha-reliability» (2011): 1 is perfect agreement,
0 what chance would give. Pixels are the units; photos count by their size.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Drawings:
    """What people drew on one photo: (H, W) uint8 index masks by person, and whose is the truth, if anybody's is."""

    masks: Mapping[str, np.ndarray]
    truth: str | None = None


@dataclass(frozen=True)
class Agreement:
    """Over `photos` that several people drew: alpha, and IoU between people by label and by person (0..1).

    `gold_of_person` scores people on photos whose truth somebody else set: how many, and the IoU with that truth.
    """

    photos: int
    alpha: float
    iou_of_label: Mapping[str, float]
    iou_of_person: Mapping[str, float]
    gold_of_person: Mapping[str, tuple[int, float]]


def measure_agreement(photos: Iterable[Drawings], labels: Mapping[str, int]) -> Agreement:
    """Compare people's masks of each photo; photos that one person drew do not count.

    A person's IoU is taken over all garment labels, and against everybody else who drew the same photos.
    """
    coincidences = np.zeros((256, 256))
    of_label = np.zeros((256, 2), np.int64)  # pixels that both, and that either of two people gave a label
    of_person: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
    gold: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))  # photos, both, either
    count = 0
    for drawn in photos:
        if len(drawn.masks) < 2:
            continue
        count += 1
        for one, other in combinations(sorted(drawn.masks), 2):
            pairs = _pairs(drawn.masks[one], drawn.masks[other])
            coincidences += (pairs + pairs.T) / (len(drawn.masks) - 1)
            both = np.diag(pairs)
            either = pairs.sum(0) + pairs.sum(1) - both
            of_label += np.stack([both, either], axis=1)
            garments = np.array([both[1:].sum(), either[1:].sum()])
            of_person[one] += garments
            of_person[other] += garments
            if drawn.truth in (one, other):
                gold[other if drawn.truth == one else one] += [1, *garments]
    return Agreement(
        photos=count,
        alpha=krippendorff_alpha(coincidences),
        iou_of_label={name: _ratio(*of_label[value]) for name, value in labels.items() if of_label[value, 1]},
        iou_of_person={person: _ratio(*counts) for person, counts in sorted(of_person.items())},
        gold_of_person={person: (int(n), _ratio(both, either)) for person, (n, both, either) in sorted(gold.items())},
    )


def krippendorff_alpha(coincidences: np.ndarray) -> float:
    """Give alpha of a (C, C) symmetric coincidence matrix; NaN when fewer than two values ever occur."""
    of_value = coincidences.sum(0)
    total = of_value.sum()
    expected = (total**2 - (of_value**2).sum()) / max(1.0, total - 1)
    observed = total - np.trace(coincidences)
    return float(1 - observed / expected) if expected else float("nan")


def _pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    flat = one.ravel().astype(np.int32) * 256 + other.ravel()
    return np.bincount(flat, minlength=65536).reshape(256, 256)


def _ratio(both: int, either: int) -> float:
    return float(both / either) if either else float("nan")
