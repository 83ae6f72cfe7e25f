"""The confusion matrix, and the metrics that follow from it.

A class counts in a mean when the truth or the prediction holds it, as in torchmetrics and mmsegmentation: a class that
was only predicted has an IoU of 0. Pixels whose truth is `IGNORE` are left out of everything.
"""

import numpy as np

from pipelines.params import IGNORE


def pixels_of(confusions: np.ndarray) -> np.ndarray:
    """Return each class's pixels in confusion matrices, (..., C, C): (..., C, 3) true positives, true and predicted."""
    tp = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([tp, confusions.sum(-1), confusions.sum(-2)], axis=-1)


def iou_of_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return the IoU by class, (..., C) float64 in 0..1, from (..., C, 3) pixels; NaN for absent classes."""
    tp, true, predicted = np.moveaxis(pixels.astype(float), -1, 0)
    return ratio(tp, true + predicted - tp)


def metrics_of_pixels(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return IoU, Dice, precision and recall by class, each (..., C) float64 in 0..1, from (..., C, 3) pixels.

    With true positives, false negatives and false positives: IoU = tp / (tp + fn + fp), Dice = 2 tp / (2 tp + fn + fp),
    precision = tp / (tp + fp), recall = tp / (tp + fn). What is undefined is NaN: IoU and Dice of a class that
    neither truth nor prediction hold, recall without truth, precision without prediction.
    """
    tp, true, predicted = np.moveaxis(pixels.astype(float), -1, 0)
    return {
        "iou": iou_of_pixels(pixels),
        "dice": ratio(2 * tp, true + predicted),
        "precision": ratio(tp, predicted),
        "recall": ratio(tp, true),
    }


def summary_of_pixels(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of all classes together, each (...) float64 in 0..1, from (..., C, 3) pixels.

    `miou` and `mean_dice` are means over the classes in truth or prediction, background included; `miou_foreground`
    leaves the background, class 0, out. `pixel_accuracy` is the share of correct pixels, `mean_class_accuracy`
    the mean recall over the classes in the truth (Long, Shelhamer, Darrell: "Fully convolutional networks for semantic
    segmentation", CVPR 2015). NaN where there is nothing to average.
    """
    metrics = metrics_of_pixels(pixels)
    return {
        "miou": mean_of_known(metrics["iou"]),
        "miou_foreground": mean_of_known(metrics["iou"][..., 1:]),
        "pixel_accuracy": ratio(pixels[..., 0].sum(-1).astype(float), pixels[..., 1].sum(-1).astype(float)),
        "mean_class_accuracy": mean_of_known(metrics["recall"]),
        "mean_dice": mean_of_known(metrics["dice"]),
    }


def mean_iou(pixels: np.ndarray) -> np.ndarray:
    """Average the IoU over the classes in truth or prediction, background included: (...) from (..., C, 3) pixels.

    NaN where no class occurs.
    """
    return mean_of_known(iou_of_pixels(pixels))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Average the values that are not NaN over the last axis; NaN where there are none."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(float))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide element by element; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


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
        """Count (N, H, W) or (H, W) integer channel maps of equal shape; pixels with `IGNORE` as truth do not count."""
        channels = len(self.matrix)
        for photo, answer in zip(truth, predicted, strict=True) if truth.ndim == 3 else [(truth, predicted)]:
            judged = photo != IGNORE
            flat = photo[judged].astype(np.int64) * channels + answer[judged]
            self.matrix += np.bincount(flat, minlength=channels**2).reshape(channels, channels)
            self.photos[np.unique(photo[judged])] += 1

    def metrics(self) -> dict[str, np.ndarray]:
        """Return IoU, Dice, precision and recall by class, as `metrics_of_pixels` does: each (C,) float64."""
        return metrics_of_pixels(pixels_of(self.matrix))

    def iou(self) -> np.ndarray:
        """Return intersection over union per class, (C,) float64; NaN for absent classes."""
        return self.metrics()["iou"]

    def miou(self) -> float:
        """Average the IoU over the classes in truth or prediction, background included; NaN for an empty matrix."""
        return float(mean_iou(pixels_of(self.matrix)))
