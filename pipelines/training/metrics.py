"""The confusion matrix, and the figures that follow from it."""

import numpy as np


def pixels_of(confusions: np.ndarray) -> np.ndarray:
    """Take from confusion matrices, (..., C, C), each class's pixels: (..., C, 3) that are hit, true and predicted."""
    hit = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([hit, confusions.sum(-1), confusions.sum(-2)], axis=-1)


def figures_of_pixels(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Give IoU, Dice, precision and recall by class, each (..., C) float64 in 0..1, from pixels as `pixels_of` gives.

    A class that the truth does not hold has NaN; so has precision where nothing was predicted.
    """
    hit, true, predicted = np.moveaxis(pixels.astype(float), -1, 0)
    there = true > 0
    return {
        "iou": np.where(there, hit / np.maximum(true + predicted - hit, 1), np.nan),
        "dice": np.where(there, 2 * hit / np.maximum(true + predicted, 1), np.nan),
        "precision": np.where(there & (predicted > 0), hit / np.maximum(predicted, 1), np.nan),
        "recall": np.where(there, hit / np.maximum(true, 1), np.nan),
    }


def mean_iou(pixels: np.ndarray) -> np.ndarray:
    """Average the IoU over the classes that occur, background included: (...) float64 from (..., C, 3) pixels.

    NaN where no class occurs.
    """
    iou = figures_of_pixels(pixels)["iou"]
    there = np.isfinite(iou)
    count = there.sum(-1)
    total = np.where(there, iou, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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

    def figures(self) -> dict[str, np.ndarray]:
        """Give IoU, Dice, precision and recall by class, as `figures_of_pixels` does: each (C,) float64."""
        return figures_of_pixels(pixels_of(self.matrix))

    def iou(self) -> np.ndarray:
        """Give intersection over union per class, (C,) float64; NaN for classes that the truth does not hold."""
        return self.figures()["iou"]

    def miou(self) -> float:
        """Average the IoU over the classes that occur, background included; NaN for an empty matrix."""
        return float(mean_iou(pixels_of(self.matrix)))
