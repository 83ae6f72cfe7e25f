"""The confusion matrix, and the figures that follow from it."""

import numpy as np


class Confusion:
    """Pixel counts by truth (rows) and prediction (columns) over `channels` classes; channel 0 is background."""

    def __init__(self, channels: int) -> None:
        self.matrix = np.zeros((channels, channels), np.int64)
        self.photos = np.zeros(channels, np.int64)  # photos whose truth has the class

    @classmethod
    def of(cls, per_photo: np.ndarray) -> "Confusion":
        """Add up the matrices of photos, (N, C, C) int64."""
        total = cls(per_photo.shape[1])
        total.matrix = per_photo.sum(0)
        total.photos = (per_photo.sum(2) > 0).sum(0)
        return total

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count (N, H, W) or (H, W) integer channel maps of equal shape."""
        channels = len(self.matrix)
        flat = truth.ravel().astype(np.int64) * channels + predicted.ravel()
        self.matrix += np.bincount(flat, minlength=channels**2).reshape(channels, channels)
        for photo in truth if truth.ndim == 3 else truth[None]:
            self.photos[np.unique(photo)] += 1

    def iou(self) -> np.ndarray:
        """Give intersection over union per class, (C,) float64; NaN for classes that the truth does not hold."""
        hit = np.diag(self.matrix).astype(float)
        union = self.matrix.sum(0) + self.matrix.sum(1) - hit
        return np.where(self.matrix.sum(1) > 0, hit / np.maximum(union, 1), np.nan)

    def dice(self) -> np.ndarray:
        """Give the Dice coefficient per class, (C,) float64; NaN for classes that the truth does not hold."""
        hit = np.diag(self.matrix).astype(float)
        total = self.matrix.sum(0) + self.matrix.sum(1)
        return np.where(self.matrix.sum(1) > 0, 2 * hit / np.maximum(total, 1), np.nan)

    def precision(self) -> np.ndarray:
        """Give, per class, the share of its predicted pixels that are right, (C,) float64; NaN without any."""
        predicted = self.matrix.sum(0)
        return np.where(predicted > 0, np.diag(self.matrix) / np.maximum(predicted, 1), np.nan)

    def recall(self) -> np.ndarray:
        """Give, per class, the share of its true pixels that were found, (C,) float64; NaN without any."""
        truth = self.matrix.sum(1)
        return np.where(truth > 0, np.diag(self.matrix) / np.maximum(truth, 1), np.nan)

    def miou(self) -> float:
        """Average the IoU over the classes that occur, background included; NaN for an empty matrix."""
        values = self.iou()
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
