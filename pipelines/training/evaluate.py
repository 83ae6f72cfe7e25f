"""DVC stage `evaluate`: the model on the test photos; writes metrics.json and report/ with pictures."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipelines.dataset.files import METRICS, MODEL, REPORT
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.segmentation.clothing import ClothingModel, load_model
from pipelines.segmentation.runtime import callers_at_once
from pipelines.training.boundary import count_edges
from pipelines.training.data import metadata_of, photos_of, read_photo
from pipelines.training.figures import Evaluation, count_certainty, figures, figures_of_slices
from pipelines.training.metrics import Confusion
from pipelines.training.report import draw_calibration, draw_confusion, draw_overlays

logger = logging.getLogger(__name__)
CLASSES = "classes.csv"  # in the report: every figure by label
SLICES = "slices.csv"  # in the report: mIoU by catalogue data


def evaluate_model(model: ClothingModel, photos: Sequence[str], labels: Mapping[str, int]) -> Evaluation:
    """Predict photos at their own size and count, over `labels` and background.

    Classes that only one of model and truth knows count as errors, so models with other labels can be compared.
    """
    channel_of = np.zeros(256, np.uint8)
    channel_of[list(labels.values())] = np.arange(1, len(labels) + 1)
    with ThreadPoolExecutor(callers_at_once()) as pool:
        counted = list(pool.map(lambda sha256: _count(model, sha256, channel_of, len(labels) + 1), photos))
    confusions, edges, certainty = (np.stack(arrays) for arrays in zip(*counted, strict=True))
    return Evaluation(tuple(photos), confusions, edges, certainty)


def _count(
    model: ClothingModel, sha256: str, channel_of: np.ndarray, channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photo, index = read_photo(sha256)
    answer, confidence = model.confident_mask(photo)
    predicted, truth = channel_of[answer], channel_of[index]
    confusion = Confusion(channels)
    confusion.add(predicted, truth)
    right = (predicted == truth).astype(np.uint8)
    if confidence.shape != right.shape:
        right = cv2.resize(right, confidence.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return confusion.matrix, count_edges(predicted, truth, channels), count_certainty(confidence, right)


def evaluate(params: Params) -> None:
    """Evaluate model/ of the current folder on the test side."""
    model, photos, rounds = load_model(MODEL), photos_of("test"), params.evaluate.resamples
    found = evaluate_model(model, photos, params.label_ids)
    values = figures(found, params.label_ids, rounds)
    METRICS.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(REPORT, ignore_errors=True)  # the first time there is none
    REPORT.mkdir()
    classes = pd.DataFrame.from_dict(values["per_class"], orient="index")
    classes.rename_axis("label").to_csv(REPORT / CLASSES)
    draw_confusion(found.confusion, ["background", *params.label_ids], REPORT / "confusion.png")
    draw_calibration(found, REPORT / "calibration.png")
    draw_overlays(model, found.miou_of_photo, params, REPORT)
    slices = figures_of_slices(found, metadata_of(photos, params.evaluate.slices), rounds)
    pd.DataFrame(slices, columns=["slice", "value", "photos", "miou", "low", "high"]).to_csv(
        REPORT / SLICES, index=False
    )
    logger.info("test mIoU %.3f on %d photos", found.confusion.miou(), len(photos))


def main() -> None:
    """Run the stage in the current folder."""
    evaluate(load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("evaluate", main)
