"""DVC stage `evaluate`: the model on the test photos; writes metrics.json, proposals.json and report/ with plots.

Only photos are judged whose masks no model drew any part of. The network computes in 32 bits, so that metrics of
different machines can be compared; how far the precision that it is served in agrees with that is one of the metrics.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import METRICS, MODEL, PROPOSALS, REPORT
from pipelines.fs import write_atomically
from pipelines.log import run_stage
from pipelines.params import IGNORE, Params, load_params
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.segmentation.postprocess import classes_of_photo, without_specks
from pipelines.segmentation.proposals import describe_regions
from pipelines.segmentation.runtime import max_concurrency, multiplies_bfloat16
from pipelines.training.acceptance import (
    Rows,
    calibration_error,
    cross_fitted,
    estimate_seconds,
    fit_proposals,
    region_rows,
    region_table,
    savings_by_photo,
)  # fmt: skip
from pipelines.training.boundary import count_bands, count_edges
from pipelines.training.confusion import Confusion
from pipelines.training.data import clean_photos, families_of, metadata_of, photos_in
from pipelines.training.floor import floor_of
from pipelines.training.metrics import BINS, Evaluation, compute_metrics, count_confidence, metrics_by_slice
from pipelines.training.plots import draw_calibration, draw_confusion, draw_overlays

logger = logging.getLogger(__name__)
CLASSES = "classes.csv"  # in the report: every metric by label
SLICES = "slices.csv"  # in the report: mIoU by catalogue data
_SLICE_COLUMNS = ("slice", "value", "photos", "families", "miou", "low", "high", "reference", "difference")


@dataclass(frozen=True)
class _Counted:
    """What is counted on one photo; see `Evaluation`. `equal` of `pixels` are the same in the served precision."""

    confusion: np.ndarray
    edges: np.ndarray
    bands: np.ndarray
    confidence_bins: np.ndarray
    garment_confidence_bins: np.ndarray
    regions: Rows
    equal: int
    pixels: int


def evaluate_model(
    model: ClothingModel,
    dataset: Dataset,
    photos: Sequence[str],
    labels: Mapping[str, int],
    *,
    families: Sequence[str] | None = None,
    served: ClothingModel | None = None,
) -> Evaluation:
    """Predict photos at their own size and count, over `labels` and background; there may be no photo at all.

    Classes that only one of model and truth knows count as errors. `families` has one per photo; left out, they are the
    manifest's. `served` is the same model in the precision it is served in, if that is another one.
    """
    families = families_of(dataset, photos) if families is None else tuple(families)
    with ThreadPoolExecutor(max_concurrency()) as pool:
        pairs = zip(photos, families, strict=True)
        counted = list(pool.map(lambda pair: _count(model, dataset, pair[0], pair[1], labels, served), pairs))
    channels, pixels = len(labels) + 1, sum(photo.pixels for photo in counted)

    def stacked(name: str, *shape: int) -> np.ndarray:
        return np.stack([getattr(photo, name) for photo in counted]) if counted else np.zeros((0, *shape), np.int64)

    return Evaluation(
        photos=tuple(photos),
        families=tuple(families),
        confusions=stacked("confusion", channels, channels),
        edges=stacked("edges", channels, 4),
        bands=stacked("bands", channels, 3),
        confidence_bins=stacked("confidence_bins", BINS, 3),
        garment_confidence_bins=stacked("garment_confidence_bins", BINS, 3),
        regions=region_table([row for photo in counted for row in photo.regions]),
        agreement=sum(photo.equal for photo in counted) / pixels if pixels else 1.0,
    )


def _count(
    model: ClothingModel, dataset: Dataset, sha256: str, family: str, labels: Mapping[str, int],
    served: ClothingModel | None,
) -> _Counted:  # fmt: skip
    photo, index = dataset.read_image(sha256), dataset.read_mask(sha256)
    channel_of, channels = _channels(labels), len(labels) + 1
    probabilities = model.probabilities(photo)
    channel_map, confidence = classes_of_photo(probabilities, *index.shape)
    index_mask = model.card.index_of_channel[channel_map]
    predicted, truth = channel_of[index_mask], channel_of[index]
    confusion = Confusion(channels)
    confusion.add(predicted, truth)
    shown = without_specks(index_mask, model.min_region_share * index_mask.size)
    regions = region_rows(sha256, family, describe_regions(probabilities, shown, model.card), shown, index)
    equal = index_mask.size if served is None else np.count_nonzero(served.index_mask(photo) == index_mask)
    return _Counted(
        confusion.matrix, count_edges(predicted, truth, channels), count_bands(predicted, truth, channels),
        *_confidence_bins(predicted, truth, confidence), regions, int(equal), index_mask.size,
    )  # fmt: skip


def _confidence_bins(predicted: np.ndarray, truth: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count all pixels, and those that are a garment in truth or prediction, at the size of the probabilities."""
    if confidence.shape != truth.shape:
        predicted, truth = (
            cv2.resize(mask, confidence.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            for mask in (predicted, truth)
        )
    judged, correct = truth != IGNORE, predicted == truth
    garments = judged & ((predicted > 0) | (truth > 0))
    of_all, of_garments = (count_confidence(confidence[pixels], correct[pixels]) for pixels in (judged, garments))
    return of_all, of_garments


def _channels(labels: Mapping[str, int]) -> np.ndarray:
    """Return the channel of each pixel value, (256,) uint8; values of no label are background, `IGNORE` stays."""
    channel_of = np.zeros(256, np.uint8)
    channel_of[list(labels.values())] = np.arange(1, len(labels) + 1)
    channel_of[IGNORE] = IGNORE
    return channel_of


def evaluate(dataset: Dataset, params: Params) -> None:
    """Evaluate the model beside a dataset on its test split, and fit which of its regions are shown."""
    model, rounds = _load(dataset, params, reduced_precision=False), params.evaluate.resamples
    served = _load(dataset, params, reduced_precision=True) if serves_in_other_precision() else None
    clean = clean_photos(dataset, "test")
    test = clean or photos_in(dataset, "test")
    if not clean:
        logger.warning(
            "models drew parts of the masks of all %d test photos: every metric favours that model; label test "
            "photos without masks, as the queue serves them now",
            len(test),
        )
    blind = evaluate_model(model, dataset, [*test, *clean_photos(dataset, "val")], params.label_ids, served=served)
    evaluation = blind.on(test)
    values = {"clean_photos": len(clean), **compute_metrics(evaluation, params.label_ids, rounds)}
    values |= {"served_agreement": round(blind.agreement, 5)} | _judge_proposals(dataset, blind, test, params)
    write_atomically(dataset.path(METRICS), (json.dumps(values, indent=1) + "\n").encode())
    _write_report(model, dataset, evaluation, values["per_class"], params)
    logger.info(
        "test mIoU %.3f on %d photos of %d families; masks save %.1f s per photo", values["miou"], len(test),
        values["families"], values["seconds_saved"],
    )  # fmt: skip


def serves_in_other_precision() -> bool:
    """Return whether this machine serves models in another precision than the 32 bits they are judged in."""
    return multiplies_bfloat16() and not _has_gpu()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _load(dataset: Dataset, params: Params, *, reduced_precision: bool) -> ClothingModel:
    share = params.prelabel.min_region_share
    return load_model(dataset.path(MODEL), min_region_share=share, reduced_precision=reduced_precision)


def _judge_proposals(dataset: Dataset, blind: Evaluation, test: Sequence[str], params: Params) -> dict[str, float]:
    """Write proposals.json, fitted on all these photos; return the time saved on the test photos, cross-fitted.

    `acceptance_error` is the calibration error of the chance that a region is accepted as it is.
    """
    seconds = estimate_seconds(dataset.manifest(), params.effort)
    proposals = fit_proposals(blind.regions, seconds, params.effort)
    write_atomically(dataset.path(PROPOSALS), proposals.as_json().encode())
    regions = cross_fitted(blind.regions, seconds, params.effort)
    accepted = regions["iou"].to_numpy(float) >= params.effort.accept_iou
    error = calibration_error(regions["accepted"].to_numpy(float), accepted, BINS)
    evaluation = blind.on(test)
    saved = savings_by_photo(regions[regions["photo"].isin(test)], evaluation.photos, seconds, params.effort)
    floor = floor_of(saved, evaluation.families, params.evaluate.resamples)
    return floor.as_metrics() | {"acceptance_error": round(error, 4)}


def _write_report(
    model: ClothingModel, dataset: Dataset, evaluation: Evaluation, per_class: dict[str, dict[str, float]],
    params: Params,
) -> None:  # fmt: skip
    folder = dataset.path(REPORT)
    shutil.rmtree(folder, ignore_errors=True)  # the first time there is none
    folder.mkdir()
    pd.DataFrame.from_dict(per_class, orient="index").rename_axis("label").to_csv(folder / CLASSES)
    draw_confusion(evaluation.confusion, ["background", *params.label_ids], folder / "confusion.png")
    draw_calibration(evaluation, folder / "calibration.png")
    draw_overlays(model, dataset, evaluation.miou_of_photo, params, folder)
    columns = metadata_of(dataset, evaluation.photos, params.evaluate.slices)
    slices = metrics_by_slice(evaluation, columns, params.evaluate.resamples)
    pd.DataFrame(slices, columns=list(_SLICE_COLUMNS)).to_csv(folder / SLICES, index=False)


def main() -> None:
    """Run the stage in the current folder."""
    evaluate(Dataset(Path.cwd()), load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("evaluate", main)
