"""DVC stage `evaluate`: the model on the test photos; writes metrics.json and report/ with pictures."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np

from pipelines.dataset.files import METRICS, MODEL, REPORT
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.segmentation.clothing import ClothingModel, load_model
from pipelines.training.data import photos_of, read_photo
from pipelines.training.metrics import Confusion, figures
from pipelines.training.report import draw_confusion, draw_overlays

logger = logging.getLogger(__name__)


def evaluate_model(
    model: ClothingModel, photos: list[str], labels: dict[str, int]
) -> tuple[Confusion, dict[str, float]]:
    """Predict test photos at their own size; gives the confusion matrix over `labels` and the mIoU of each photo.

    Classes that only one of model and truth knows count as errors, so models with other labels can be compared.
    """
    channel_of = np.zeros(256, np.uint8)
    for channel, label_id in enumerate([0, *labels.values()]):
        channel_of[label_id] = channel
    total, per_photo = Confusion(len(labels) + 1), {}
    for sha256 in photos:
        photo, truth = read_photo(sha256)
        predicted = channel_of[model.index_mask(photo)]
        one = Confusion(len(labels) + 1)
        one.add(predicted, channel_of[truth])
        total.matrix += one.matrix
        total.photos += one.photos
        per_photo[sha256] = one.miou()
    return total, per_photo


def evaluate(params: Params) -> None:
    """Evaluate model/ of the current folder on the test side."""
    model, photos = load_model(MODEL), photos_of("test")
    confusion, per_photo = evaluate_model(model, photos, params.label_ids)
    METRICS.write_text(json.dumps(figures(confusion, params.label_ids, len(photos)), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir()
    draw_confusion(confusion, ["background", *params.label_ids], REPORT / "confusion.png")
    draw_overlays(model, per_photo, params, REPORT)
    logger.info("test mIoU %.3f on %d photos", confusion.miou(), len(photos))


def main() -> None:
    """Run the stage in the current folder."""
    evaluate(load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("evaluate", main)
