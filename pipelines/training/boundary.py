"""Two measures of how well predicted outlines agree with the true ones.

Boundary F-score: Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC
2013. A boundary pixel is correct when the other boundary of its class is within 0.75 % of the photo's diagonal. The
score is taken per photo and class, and averaged then.

Boundary IoU: Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: improving object-centric image segmentation
evaluation", CVPR 2021. Only the pixels of a mask within 2 % of the diagonal of its contour count, and their IoU is
taken over all photos, like that of whole masks.

Pixels whose truth is `IGNORE` count in neither, and no outline runs along them: what lies beyond is unknown.
"""

import math

import cv2
import numpy as np

from pipelines.params import IGNORE
from pipelines.training.confusion import ratio

TOLERANCE = 0.0075  # of the diagonal, for the boundary F-score
BAND = 0.02  # of the diagonal, for the boundary IoU
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def count_edges(predicted: np.ndarray, truth: np.ndarray, channels: int) -> np.ndarray:
    """Count boundary pixels of (H, W) uint8 channel maps, per class, as (channels, 4) int64.

    Columns: predicted, those of them near the true boundary, true, those of them near the predicted boundary. The
    photo's own edge is no boundary.
    """
    counts = np.zeros((channels, 4), np.int64)
    reach = max(1.0, TOLERANCE * math.hypot(*truth.shape))
    ignored = truth == IGNORE
    for channel in _seen(predicted, truth, ignored):
        counts[channel] = _edges_of_class(predicted == channel, truth == channel, ignored, reach)
    return counts


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """Return the F-score per photo and class, (..., C) float64, from counts as `count_edges` returns them, (..., C, 4).

    0 where only one of truth and prediction has a boundary of the class; NaN where neither has.
    """
    predicted, near_truth, true, near_prediction = np.moveaxis(counts.astype(float), -1, 0)
    precision = near_truth / np.maximum(predicted, 1)
    recall = near_prediction / np.maximum(true, 1)
    score = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return np.where(predicted + true > 0, score, np.nan)


def count_bands(predicted: np.ndarray, truth: np.ndarray, channels: int) -> np.ndarray:
    """Count pixels of (H, W) uint8 channel maps near the contour of their class, per class, as (channels, 3) int64.

    Columns: in both bands, in the true one, in the predicted one, so that `boundary_iou` is the IoU of these counts. A
    band holds the pixels of a mask at most d = max(1, round(0.02 · diagonal)) steps, straight or diagonal, from a pixel
    outside of it. As in the authors' code the photo ends a mask that it cuts off.
    """
    counts = np.zeros((channels, 3), np.int64)
    reach = max(1, round(BAND * math.hypot(*truth.shape)))
    ignored = truth == IGNORE
    for channel in _seen(predicted, truth, ignored):
        predicted_band, true_band = (_band(mask == channel, ignored, reach) for mask in (predicted, truth))
        counts[channel] = (
            np.count_nonzero(predicted_band & true_band),
            np.count_nonzero(true_band),
            np.count_nonzero(predicted_band),
        )
    return counts


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Return the boundary IoU per class, (..., C) float64, from counts as `count_bands` returns them, (..., C, 3)."""
    both, true, predicted = np.moveaxis(counts.astype(float), -1, 0)
    return ratio(both, true + predicted - both)


def _seen(predicted: np.ndarray, truth: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Return the classes in truth or prediction, where the truth is known."""
    return np.union1d(np.unique(predicted[~ignored]), np.unique(truth[~ignored]))


def _edges_of_class(
    predicted: np.ndarray, truth: np.ndarray, ignored: np.ndarray, reach: float
) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((predicted | truth) & ~ignored)
    margin = math.ceil(reach) + 2
    height = slice(max(0, rows.min() - margin), rows.max() + margin + 1)
    width = slice(max(0, columns.min() - margin), columns.max() + margin + 1)
    edge, true_edge = (_edge(mask[height, width], ignored[height, width]) for mask in (predicted, truth))
    near_truth = np.count_nonzero(edge & _near(true_edge, reach))
    near_prediction = np.count_nonzero(true_edge & _near(edge, reach))
    return np.count_nonzero(edge), near_truth, np.count_nonzero(true_edge), near_prediction


def _edge(mask: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Return the pixels of a boolean mask that touch a pixel outside of it; ignored pixels are neither."""
    inner = cv2.erode((mask | ignored).astype(np.uint8), _CROSS).astype(bool)
    return mask & ~ignored & ~inner


def _near(edge: np.ndarray, reach: float) -> np.ndarray:
    if not edge.any():
        return np.zeros_like(edge)
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= reach


def _band(mask: np.ndarray, ignored: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels of a boolean mask at most `reach` steps from a pixel outside of it, or of the photo."""
    padded = cv2.copyMakeBorder((mask | ignored).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    steps = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    return mask & ~ignored & (steps <= reach)
