"""The guided filter: class probabilities follow the edges that the photo shows.

A network's probabilities are smooth across the outline of a garment, because its features are a quarter of the photo's
size or less. In every small window the filter replaces them by the linear function of the photo's colours that comes
closest, so that they change where the colours do (He, Sun, Tang, "Guided image filtering", TPAMI 2013; computed on a
smaller copy as in He and Sun, "Fast guided filter", 2015).
"""

from typing import Final

import cv2
import numpy as np

SHRINK: Final = 4  # windows are fitted on a copy of the photo that is so many times smaller, the size of the features
MASK_SHRINK: Final = 2  # … and of a single mask's network, whose features are larger
WINDOWS: Final = 32  # the radius of a window is the photo's longer edge divided by this
SMOOTHNESS: Final = 1e-4  # colours, 0..1, whose variance in a window is far below this are one colour
_LEAST: Final = 0.05  # classes that are nowhere more probable stay as they are
_SUREST: Final = 1e-3  # distance of a mask's probabilities from 0 and 1, for their logits


class GuidedFilter:
    """Filters planes of values by one (h, w, 3) uint8 RGB photo; windows are fitted on one `shrink` times smaller."""

    def __init__(self, photo: np.ndarray, shrink: int = SHRINK) -> None:
        height, width = photo.shape[:2]
        self._photo = photo.astype(np.float32) / 255
        self._small_size = max(1, width // shrink), max(1, height // shrink)  # as OpenCV has it: width first
        small = cv2.resize(self._photo, self._small_size, interpolation=cv2.INTER_AREA)
        radius = max(1, round(max(height, width) / shrink / WINDOWS))
        self._window = 2 * radius + 1, 2 * radius + 1
        self._colours = list(cv2.split(small))
        self._means = [self._mean(colour) for colour in self._colours]
        covariance = np.empty((*small.shape, 3), np.float32)
        for row in range(3):
            for column in range(3):
                products = self._mean(self._colours[row] * self._colours[column])
                covariance[..., row, column] = products - self._means[row] * self._means[column]
        self._inverse = np.linalg.inv(covariance + SMOOTHNESS * np.eye(3, dtype=np.float32))

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Return the (h, w) float32 values that follow the photo's edges; they may leave the range of the input."""
        small = cv2.resize(plane, self._small_size, interpolation=cv2.INTER_AREA)
        mean = self._mean(small)
        pairs = zip(self._colours, self._means, strict=True)
        covariance = np.stack([self._mean(colour * small) - average * mean for colour, average in pairs], axis=-1)
        slopes = (self._inverse @ covariance[..., None])[..., 0]
        offset = mean - (slopes * np.stack(self._means, axis=-1)).sum(axis=-1)
        size = plane.shape[::-1]
        enlarged = cv2.resize(self._mean(slopes), size, interpolation=cv2.INTER_LINEAR)
        values = (enlarged * self._photo).sum(axis=-1)
        return np.asarray(values + cv2.resize(self._mean(offset), size, interpolation=cv2.INTER_LINEAR))

    def _mean(self, values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, self._window, borderType=cv2.BORDER_REFLECT)


def follow_edges(probabilities: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Return (C, h, w) float32 class probabilities that change where the colours of a (h, w, 3) uint8 RGB photo do.

    They are in 0..1 and add up to 1, as those given do.
    """
    filtered, guide = np.empty_like(probabilities), GuidedFilter(photo)
    for channel, plane in enumerate(probabilities):
        filtered[channel] = guide(plane) if plane.max() > _LEAST else plane
    np.maximum(filtered, 0, out=filtered)
    total = filtered.sum(axis=0)
    return np.divide(filtered, total, out=probabilities.copy(), where=total > 0)


def mask_that_follows_edges(logits: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Return the (h, w) float32 logits of one mask, of any size, that change where a (h, w, 3) uint8 RGB photo does."""
    height, width = photo.shape[:2]
    probabilities = (1 + np.tanh(logits / 2)) / 2  # the logistic function, which overflows nowhere in this form
    enlarged = cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_LINEAR)
    filtered = GuidedFilter(photo, MASK_SHRINK)(enlarged).clip(_SUREST, 1 - _SUREST)
    return np.asarray(np.log(filtered / (1 - filtered)), dtype=np.float32)
