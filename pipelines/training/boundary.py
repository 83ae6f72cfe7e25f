"""The boundary F-score: does an outline run where the true outline runs?

After Csurka, Larlus and Perronnin, «What is a good evaluation measure for semantic segmentation?», BMVC 2013: a
boundary pixel counts as right when the other boundary of its class is within 0.75 % of the photo's diagonal. Pixels are
summed over photos before the score is taken, as for all other figures here.
"""

import math

import cv2
import numpy as np

TOLERANCE = 0.0075  # of the diagonal
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def count_edges(predicted: np.ndarray, truth: np.ndarray, channels: int) -> np.ndarray:
    """Count boundary pixels of (H, W) uint8 channel maps, per class, as (channels, 4) int64.

    Columns: predicted, those of them near the true boundary, true, those of them near the predicted boundary. The
    background is left out, its boundary being everybody else's; the photo's own edge is no boundary.
    """
    counts = np.zeros((channels, 4), np.int64)
    reach = max(1.0, TOLERANCE * math.hypot(*truth.shape))
    for channel in np.union1d(np.unique(predicted), np.unique(truth)):
        if channel:
            counts[channel] = _of_one(predicted == channel, truth == channel, reach)
    return counts


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """Give the F-score per class, (..., C) float64, from summed counts, (..., C, 4); NaN without any true boundary."""
    shown, right, wanted, found = np.moveaxis(counts.astype(float), -1, 0)
    precision, recall = right / np.maximum(shown, 1), found / np.maximum(wanted, 1)
    score = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return np.where(wanted > 0, score, np.nan)


def _of_one(predicted: np.ndarray, truth: np.ndarray, reach: float) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(predicted | truth)
    margin = math.ceil(reach) + 2
    height = slice(max(0, rows.min() - margin), rows.max() + margin + 1)
    width = slice(max(0, columns.min() - margin), columns.max() + margin + 1)
    ours, theirs = _edge(predicted[height, width]), _edge(truth[height, width])
    right = np.count_nonzero(ours & _near(theirs, reach))
    found = np.count_nonzero(theirs & _near(ours, reach))
    return np.count_nonzero(ours), right, np.count_nonzero(theirs), found


def _edge(mask: np.ndarray) -> np.ndarray:
    """Give the pixels of a boolean mask that touch a pixel outside of it."""
    return mask & ~cv2.erode(mask.astype(np.uint8), _CROSS).astype(bool)


def _near(edge: np.ndarray, reach: float) -> np.ndarray:
    if not edge.any():
        return np.zeros_like(edge)
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= reach
