"""How well people agree who drew the same photos: IoU per label, per person, and Krippendorff's alpha over pixels.

Alpha for nominal data after Krippendorff, «Computing Krippendorff's alpha-reliability» (2011): 1 is perfect agreement,
0 what chance would give. Pixels are the units; photos count by their size.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Over `photos` that several people drew: alpha, and IoU between people by label and by person (0..1)."""

    photos: int
    alpha: float
    iou_of_label: Mapping[str, float]
    iou_of_person: Mapping[str, float]


def measure_agreement(photos: Iterable[Mapping[str, np.ndarray]], labels: Mapping[str, int]) -> Agreement:
    """Compare people's (H, W) uint8 index masks of each photo, by person; photos that one person drew do not count.

    A person's IoU is taken over all garment labels and against everybody else who drew the same photos.
    """
    coincidences = np.zeros((256, 256))
    label_counts = np.zeros((256, 2), np.int64)  # both, either
    person_counts: dict[str, np.ndarray] = {}
    count = 0
    for masks in photos:
        if len(masks) < 2:
            continue
        count += 1
        for one, other in combinations(sorted(masks), 2):
            pairs = _pairs(masks[one], masks[other])
            coincidences += (pairs + pairs.T) / (len(masks) - 1)
            both, either = np.diag(pairs), pairs.sum(0) + pairs.sum(1) - np.diag(pairs)
            label_counts += np.stack([both, either], axis=1)
            garments = np.array([both[1:].sum(), either[1:].sum()])
            for person in (one, other):
                person_counts[person] = person_counts.get(person, 0) + garments
    return Agreement(
        photos=count,
        alpha=krippendorff_alpha(coincidences),
        iou_of_label={name: _ratio(*label_counts[value]) for name, value in labels.items() if label_counts[value, 1]},
        iou_of_person={person: _ratio(*counts) for person, counts in sorted(person_counts.items())},
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
