"""Plots of an evaluation: overlays of truth and predictions, the confusion matrix, calibration, learning curves."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipelines.dataset.dataset import Dataset
from pipelines.params import Params
from pipelines.segmentation.model import ClothingModel
from pipelines.training.confusion import Confusion
from pipelines.training.metrics import BINS, Evaluation

matplotlib.use("agg")
_PHOTO_HEIGHT = 420  # pixels of each photo in an overlay picture


def draw_overlays(
    model: ClothingModel, dataset: Dataset, per_photo: dict[str, float], params: Params, folder: Path
) -> None:
    """Draw photo, truth and prediction side by side, the worst photos first; names carry rank and mIoU."""
    worst = sorted(per_photo, key=lambda sha256: (per_photo[sha256], sha256))[: params.evaluate.overlays]
    for rank, sha256 in enumerate(worst):
        name = f"overlay-{rank:02d}-miou-{per_photo[sha256]:.2f}-{sha256[:8]}.jpg"
        (folder / name).write_bytes(draw_sheet(dataset, sha256, [model], params))


def draw_sheet(dataset: Dataset, sha256: str, models: Sequence[ClothingModel], params: Params) -> bytes:
    """Draw a photo, its truth, and the mask of each model, side by side; return a JPEG."""
    photo, truth = dataset.read_image(sha256), dataset.read_mask(sha256)
    masks = [truth, *(model.index_mask(photo) for model in models)]
    sheet = np.concatenate([_fit(panel) for panel in (photo, *(paint(photo, mask, params) for mask in masks))], axis=1)
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done, f"OpenCV cannot encode a picture of shape {sheet.shape}"
    return encoded.tobytes()


def draw_curves(curves: pd.DataFrame, path: Path) -> None:
    """Draw training loss and validation mIoU by step; `curves` is what `train` writes, older ones by epoch."""
    place = "step" if "step" in curves.columns else "epoch"
    figure = Figure(figsize=(6, 3), layout="constrained")
    losses = figure.subplots()
    losses.plot(curves[place], curves["train_loss"], color="tab:gray")
    losses.set(xlabel=place, ylabel="training loss")
    scores = losses.twinx()
    measured = curves.dropna(subset="val_miou")
    scores.plot(measured[place], measured["val_miou"], "o-", color="tab:blue")
    scores.set_ylabel("validation mIoU", color="tab:blue")
    figure.savefig(path, dpi=110)


def paint(photo: np.ndarray, index_mask: np.ndarray, params: Params, opacity: float = 0.6) -> np.ndarray:
    """Return a (H, W, 3) uint8 RGB photo with label colours over it; names are written on their regions."""
    colors = np.zeros((256, 3), np.float32)
    for label in params.labels:
        colors[label.id] = [int(label.color[i : i + 2], 16) for i in (1, 3, 5)]
    blended = photo * (1 - opacity) + colors[index_mask] * opacity
    painted = np.where(index_mask[..., None] > 0, blended, photo).astype(np.uint8)
    for label in params.labels:
        rows, columns = np.nonzero(index_mask == label.id)
        if len(rows) > index_mask.size * 0.003:
            where = (int(np.median(columns)) - 4 * len(label.name), int(np.median(rows)))
            for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(painted, label.name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, width, cv2.LINE_AA)
    return painted


def _fit(panel: np.ndarray) -> np.ndarray:
    width = round(panel.shape[1] * _PHOTO_HEIGHT / panel.shape[0])
    return cv2.resize(panel, (width, _PHOTO_HEIGHT), interpolation=cv2.INTER_AREA)


def draw_confusion(confusion: Confusion, names: list[str], path: Path) -> None:
    """Draw the confusion matrix over the classes that occur, each row as shares of its truth."""
    seen = np.nonzero(confusion.matrix.sum(0) + confusion.matrix.sum(1))[0]
    part = confusion.matrix[np.ix_(seen, seen)].astype(float)
    shares = part / np.maximum(part.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(1.5 + 0.5 * len(seen), 1.2 + 0.45 * len(seen)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(seen)), [names[i] for i in seen], rotation=45, ha="right")
    axes.set_yticks(range(len(seen)), [names[i] for i in seen])
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    for row, column in np.ndindex(shares.shape):
        if shares[row, column] >= 0.01:
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=7, color=color)
    figure.savefig(path, dpi=110)


def draw_calibration(evaluation: Evaluation, path: Path) -> None:
    """Draw a reliability diagram: accuracy against confidence by bin, and the share of pixels in each bin."""
    pixels, confidence, correct = evaluation.confidence_bins.sum(0).T
    filled = pixels > 0
    figure = Figure(figsize=(6, 4), layout="constrained")
    accuracy, amount = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    accuracy.plot([0, 1], [0, 1], color="tab:gray", linewidth=1, label="perfectly calibrated")
    mean_confidence = confidence[filled] / pixels[filled]
    accuracy.plot(mean_confidence, correct[filled] / pixels[filled], "o-", color="tab:blue", label="model")
    accuracy.set(ylabel="accuracy (share of pixels)", ylim=(0, 1))
    accuracy.legend(loc="upper left", frameon=False)
    amount.bar((np.arange(BINS) + 0.5) / BINS, 100 * pixels / max(1, pixels.sum()), width=0.9 / BINS, color="tab:gray")
    amount.set(xlabel="confidence (probability of the predicted class)", ylabel="% of pixels", xlim=(0, 1))
    figure.savefig(path, dpi=110)
