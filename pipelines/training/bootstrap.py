"""How metrics would vary with other photos: the bootstrap over families of photos.

Photos of one show have clothes, light and labelers in common, so they are no independent evidence: families are drawn
and never photos (cluster bootstrap: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8;
Field and Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 69, 2007). Intervals hold the middle percentiles
(Efron and Tibshirani, "An introduction to the bootstrap", 1993). Two models that saw the same photos are compared on
the same resamples, so that what is hard for both does not hide a difference.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.training.confusion import mean_iou, pixels_of

_SEED = 620  # fixed, so that the same evaluation always gives the same interval
_AT_ONCE = 64 * 2**20  # bytes of weights in memory


def by_family(counts: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Add up what was counted on N photos, (N, ...) numbers, by family: (F, ...), families in the order of names."""
    names, place = np.unique(np.asarray(families, str), return_inverse=True)
    sums = np.zeros((len(names), *counts.shape[1:]), counts.dtype)
    np.add.at(sums, place, counts)
    return sums


def resampled(counts: np.ndarray, families: Sequence[str], rounds: int) -> np.ndarray:
    """Add up what was counted on N photos, (N, ...) numbers, in `rounds` resamples of families: (rounds, ...) float64.

    Row r is the same resample for every call with as many families.
    """
    sums = by_family(counts, families)
    flat, count = sums.reshape(len(sums), -1).astype(float), len(sums)
    random = np.random.default_rng(_SEED)
    step = max(1, _AT_ONCE // (8 * max(1, count)))
    drawn = [
        random.multinomial(count, np.full(count, 1 / count), size=min(step, rounds - start)).astype(float) @ flat
        for start in range(0, rounds, step)
    ]
    return np.concatenate(drawn).reshape(rounds, *counts.shape[1:])


def resampled_miou(confusions: np.ndarray, families: Sequence[str], rounds: int) -> np.ndarray:
    """Return the mIoU of `rounds` resamples, (rounds,) float64, from the (N, C, C) confusion matrices of N photos."""
    return mean_iou(resampled(pixels_of(confusions), families, rounds))


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the central interval that holds this share (0..1) of resampled values; NaN is left out."""
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
