"""How far figures would move with other photos: the bootstrap over photos.

After Efron and Tibshirani, «An introduction to the bootstrap» (1993): percentile intervals. Two models that saw the
same photos are compared on the same resamples, so that what is hard for both does not hide a difference.
"""

import numpy as np

from pipelines.training.metrics import mean_iou, pixels_of

_SEED = 620  # fixed, so that the same evaluation always gives the same interval
_AT_ONCE = 64 * 2**20  # bytes of weights in memory


def resampled(counts: np.ndarray, rounds: int) -> np.ndarray:
    """Add up what was counted on N photos, (N, ...) integers, in `rounds` resamples: (rounds, ...) float64.

    Row r is the same resample of the photos for every call with as many of them.
    """
    photos = len(counts)
    flat = counts.reshape(photos, -1).astype(float)
    chance = np.random.default_rng(_SEED)
    step = max(1, _AT_ONCE // (8 * max(1, photos)))
    sums = [
        chance.multinomial(photos, np.full(photos, 1 / photos), size=min(step, rounds - start)).astype(float) @ flat
        for start in range(0, rounds, step)
    ]
    return np.concatenate(sums).reshape(rounds, *counts.shape[1:])


def resampled_miou(confusions: np.ndarray, rounds: int) -> np.ndarray:
    """Give the mIoU of `rounds` resamples, (rounds,) float64, from the (N, C, C) confusion matrices of N photos."""
    return mean_iou(resampled(pixels_of(confusions), rounds))


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Give the central interval that holds this share (0..1) of resampled values; NaN is left out."""
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
