"""Figures of a segmentation: everything follows from one confusion matrix."""

from collections.abc import Mapping

import numpy as np


class Confusion:
    """Pixel counts by truth (rows) and prediction (columns) over `channels` classes; channel 0 is background."""

    def __init__(self, channels: int) -> None:
        self.matrix = np.zeros((channels, channels), np.int64)
        self.photos = np.zeros(channels, np.int64)  # photos whose truth has the class

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

    def miou(self) -> float:
        """Average the IoU over the classes that occur, background included; NaN for an empty matrix."""
        values = self.iou()
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def figures(confusion: Confusion, labels: Mapping[str, int], photos: int) -> dict[str, object]:
    """Give the figures of metrics.json: mIoU and mean Dice over classes that occur, and both per class."""
    names = ["background", *labels]
    iou, dice = confusion.iou(), confusion.dice()
    per_class = {
        name: {"iou": round(float(iou[i]), 4), "dice": round(float(dice[i]), 4), "photos": int(confusion.photos[i])}
        for i, name in enumerate(names)
        if np.isfinite(iou[i])
    }
    return {
        "photos": photos,
        "miou": round(confusion.miou(), 4),
        "mean_dice": round(float(np.nanmean(dice)), 4),
        "per_class": per_class,
    }
