"""Agreement between annotators of the same photos: IoU per label and per person, and Krippendorff's alpha.

Alpha for nominal data after Krippendorff, "Computing Krippendorff's alpha-reliability" (2011): 1 is perfect agreement,
0 what chance gives. Pixels are the units, so large photos count more. Most pixels are background, on which everybody
agrees, so alpha counts pixels where somebody drew a garment; there, drawing by chance gives 0 or less. Pixels that
somebody could not name (`IGNORE`) are missing values of that person.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipelines.params import IGNORE


@dataclass(frozen=True)
class Drawings:
    """The masks of one photo: (H, W) uint8 index masks by person, and whose mask is the ground truth, if any."""

    masks: Mapping[str, np.ndarray]
    truth: str | None = None


@dataclass(frozen=True)
class Agreement:
    """Agreement on `photos` that several people drew; IoU between people, by label and by person, is 0..1.

    `alpha` is over pixels where somebody drew a garment, `alpha_all_pixels` over all. `gold_of_person` scores people on
    photos whose ground truth somebody else set: the number of photos, and the IoU with the truth.
    """

    photos: int
    alpha: float
    alpha_all_pixels: float
    iou_of_label: Mapping[str, float]
    iou_of_person: Mapping[str, float]
    gold_of_person: Mapping[str, tuple[int, float]]


def measure_agreement(photos: Iterable[Drawings], labels: Mapping[str, int]) -> Agreement:
    """Compare people's masks of each photo; photos with one mask do not count.

    A person's IoU is over all garment labels, and against everybody else who drew the same photos.
    """
    everywhere, on_garments = np.zeros((256, 256)), np.zeros((256, 256))
    of_label = np.zeros((256, 2))  # pixels that both, and that either of two people gave a label
    of_person: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    gold: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))  # photos, both, either
    count = 0
    for drawn in photos:
        if len(drawn.masks) < 2:
            continue
        count += 1
        masks = np.stack([drawn.masks[person].ravel() for person in sorted(drawn.masks)])
        everywhere += coincidences(masks)
        on_garments += coincidences(masks[:, ((masks > 0) & (masks != IGNORE)).any(axis=0)])
        for (first, of_first), (second, of_second) in combinations(zip(sorted(drawn.masks), masks, strict=True), 2):
            named = (of_first != IGNORE) & (of_second != IGNORE)
            pairs = _pairs(of_first[named], of_second[named])
            both = np.diag(pairs)
            either = pairs.sum(0) + pairs.sum(1) - both
            of_label += np.stack([both, either], axis=1)
            garments = np.array([both[1:].sum(), either[1:].sum()])
            of_person[first] += garments
            of_person[second] += garments
            if drawn.truth in (first, second):
                gold[second if drawn.truth == first else first] += [1, *garments]
    return Agreement(
        photos=count,
        alpha=krippendorff_alpha(on_garments),
        alpha_all_pixels=krippendorff_alpha(everywhere),
        iou_of_label={name: _ratio(*of_label[value]) for name, value in labels.items() if of_label[value, 1]},
        iou_of_person={person: _ratio(*counts) for person, counts in sorted(of_person.items())},
        gold_of_person={person: (int(n), _ratio(both, either)) for person, (n, both, either) in sorted(gold.items())},
    )


def coincidences(masks: np.ndarray) -> np.ndarray:
    """Return the (256, 256) coincidence matrix of people's (P, N) uint8 values of the same N pixels.

    A pixel that m people named counts for each pair of them by 1 / (m - 1), so that it counts m in all.
    """
    named = masks != IGNORE
    people = named.sum(axis=0, dtype=np.uint8)
    matrix = np.zeros((256, 256))
    for first, second in combinations(range(len(masks)), 2):
        both = named[first] & named[second]
        for count in range(2, len(masks) + 1):
            pixels = both & (people == count)
            pairs = _pairs(masks[first, pixels], masks[second, pixels])
            matrix += (pairs + pairs.T) / (count - 1)
    return matrix


def krippendorff_alpha(coincidences: np.ndarray) -> float:
    """Return alpha of a (C, C) symmetric coincidence matrix; NaN when it is empty.

    Alpha is not defined where only one value occurs; as nobody disagreed, it is 1 then.
    """
    of_value = coincidences.sum(0)
    total = of_value.sum()
    if not total:
        return float("nan")
    expected = (total**2 - (of_value**2).sum()) / max(1.0, total - 1)
    observed = total - np.trace(coincidences)
    return float(1 - observed / expected) if expected else 1.0


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the (256, 256) counts of pairs of uint8 values."""
    flat = first.astype(np.int32) * 256 + second
    return np.bincount(flat, minlength=65536).reshape(256, 256)


def _ratio(both: float, either: float) -> float:
    return float(both / either) if either else float("nan")
