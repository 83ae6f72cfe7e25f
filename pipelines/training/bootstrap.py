"""How far figures would move with other photos: the bootstrap over photos.

After Efron and Tibshirani, «An introduction to the bootstrap» (1993): percentile intervals. Two models that saw the
same photos are compared on the same resamples, so that what is hard for both does not hide a difference.
"""

import numpy as np

_SEED = 620  # fixed, so that the same evaluation always gives the same interval
_AT_ONCE = 64 * 2**20  # bytes of weights in memory


def resampled_iou(confusions: np.ndarray, rounds: int) -> np.ndarray:
    """Give the IoU of each class in `rounds` resamples of N photos: (rounds, C) float64, NaN where the class is absent.

    `confusions` is (N, C, C) int64, truth by prediction. Row r is the same resample for every call with as many photos.
    """
    hit = np.diagonal(confusions, axis1=1, axis2=2).astype(float)
    truth, predicted = confusions.sum(2).astype(float), confusions.sum(1).astype(float)
    photos = len(confusions)
    chance = np.random.default_rng(_SEED)
    step = max(1, _AT_ONCE // (8 * max(1, photos)))
    values = []
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        weights = chance.multinomial(photos, np.full(photos, 1 / photos), size=count).astype(float)
        hits, truths = weights @ hit, weights @ truth
        union = truths + weights @ predicted - hits
        values.append(np.where(truths > 0, hits / np.maximum(union, 1), np.nan))
    return np.concatenate(values)


def resampled_miou(confusions: np.ndarray, rounds: int) -> np.ndarray:
    """Give the mIoU of the same resamples, (rounds,) float64: the mean over the classes that occur in each."""
    return np.asarray(np.nanmean(resampled_iou(confusions, rounds), axis=1))


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Give the central interval that holds this share (0..1) of resampled values; NaN is left out."""
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
