"""DVC stage `evaluate_clicks`: how many clicks segmenters need, by the field's measures, where masks are known.

Each garment is asked for by clicks in the middle of the largest part that is wrong, up to 20 of them: IoU after each,
and the number of clicks to an IoU of 0.80, 0.85 and 0.90 (NoC, Xu et al., "Deep interactive object selection", CVPR
2016), which counts 20 where it is not reached. The same garments are then corrected from masks that are partly wrong,
as a model draws them. Intervals hold 95 % of resamples of families of photos. The stage measures the learned model and
GrabCut on test photos whose masks no model drew any part of; it writes clicks.json and clicks_report/.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CLICK_METRICS, CLICK_REPORT, CLICKS
from pipelines.fs import write_atomically
from pipelines.log import run_stage
from pipelines.params import IGNORE, Params, load_params
from pipelines.records import PhotoAddress
from pipelines.segmentation.clicks import load_click_model
from pipelines.segmentation.interactive import GrabCutSegmenter, ImagePredictor, InteractiveSegmenter
from pipelines.segmentation.prompts import Prompts, already_open
from pipelines.segmentation.transforms import resize_image, resize_mask
from pipelines.training.bootstrap import interval, resampled
from pipelines.training.click_plots import draw_click_curves, draw_click_sheets
from pipelines.training.click_simulation import box_around, damaged, next_click
from pipelines.training.data import clean_photos, families_of, photos_in

logger = logging.getLogger(__name__)
ROWS = "garments.parquet"  # in the report: a row per segmenter and garment
MAX_CLICKS, CURVE = 20, 10  # clicks until one gives up; clicks of the curve
TARGETS = (0.80, 0.85, 0.90)
_MASK_CLICKS = 10  # from a mask that is there
_LEAST, _MOST = 0.4, 0.85  # IoU of masks that people correct
_LONG_SIDE = 1024  # pixels; larger photos are measured on a copy
_HARM = 1e-3  # by which an IoU must fall to count
_SEED = 620

StartOf = Callable[[str, np.ndarray, np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class ClickTruth:
    """A garment whose mask is known: the photo's name, its family, the label, and masks at the photo's size."""

    photo: str
    family: str
    label: str
    truth: np.ndarray  # (H, W) bool
    judged: np.ndarray  # (H, W) bool
    others: np.ndarray  # (H, W) bool, where other garments are


@dataclass(frozen=True)
class KnownPhoto:
    """A photo, (H, W, 3) uint8 RGB, with the garments on it that are measured."""

    name: str
    image: np.ndarray
    garments: Sequence[ClickTruth]


def known_photo(
    name: str, family: str, image: np.ndarray, mask: np.ndarray, labels: Mapping[str, int], min_share: float
) -> KnownPhoto:
    """Return a photo with its garments, from its index mask; garments below a share of the photo are left out."""
    scale = _LONG_SIDE / max(mask.shape)
    if scale < 1:
        size = max(1, round(mask.shape[0] * scale)), max(1, round(mask.shape[1] * scale))
        image, mask = resize_image(image, *size), resize_mask(mask, *size)
    judged, garments = mask != IGNORE, (mask > 0) & (mask != IGNORE)
    measured = []
    for label, index in labels.items():
        truth = mask == index
        if truth.mean() >= min_share:
            measured.append(ClickTruth(name, family, label, truth, judged, garments & ~truth))
    return KnownPhoto(name, image, measured)


def measure(
    segmenter: InteractiveSegmenter, photos: Iterable[KnownPhoto], start_of: StartOf | None = None
) -> pd.DataFrame:
    """Return a row per garment: what clicks, a box, and clicks on a mask that is partly wrong reach.

    Columns are `photo`, `family`, `label`, `share`, `iou_1` … `iou_10`, `noc80` … `noc90`, `reached80` … `reached90`,
    `box`, `start` (the IoU of the mask that is corrected, NaN where there is none), `mask_1` … `mask_4`, `mask_noc85`,
    and `seconds` (a click's median). `start_of` gives the mask that a model draws of a label; without it, masks are
    damaged by chance, the same for every segmenter.
    """
    rows = []
    for photo in photos:
        if not photo.garments:
            continue
        predictor = segmenter.set_image(
            PhotoAddress(f"gs://measured/{photo.name}", 1), already_open(photo.image), use_prior=True
        )
        rows += [_measured(predictor, garment, start_of) for garment in photo.garments]
    return pd.DataFrame(rows)


def _measured(predictor: ImagePredictor, garment: ClickTruth, start_of: StartOf | None) -> dict[str, Any]:
    seconds: list[float] = []
    curve = _click_through(predictor, garment, None, MAX_CLICKS, CURVE, seconds)
    row: dict[str, Any] = {
        "photo": garment.photo, "family": garment.family, "label": garment.label, "share": float(garment.truth.mean()),
    }  # fmt: skip
    row |= {f"iou_{number}": curve[min(number, len(curve)) - 1] for number in range(1, CURVE + 1)}
    for target in TARGETS:
        count = next((number for number, value in enumerate(curve, 1) if value >= target), None)
        row |= {f"noc{100 * target:.0f}": count or MAX_CLICKS, f"reached{100 * target:.0f}": count is not None}
    box = np.array(box_around(garment.truth), np.float32)
    answer = predictor.predict(Prompts(np.zeros((0, 2), np.float32), np.zeros(0, bool), box, garment.label))[0]
    row["box"] = iou(answer, garment)
    chance = np.random.default_rng([_SEED, len(garment.label), int(garment.truth.sum())])
    start = (
        _partly_wrong(garment, chance) if start_of is None else start_of(garment.photo, garment.truth, garment.judged)
    )
    if start is not None and _LEAST <= iou(start, garment) < _MOST:
        corrected = _click_through(predictor, garment, start, _MASK_CLICKS, 4, seconds)
        count = next((number for number, value in enumerate(corrected, 1) if value >= _MOST), _MASK_CLICKS)
        row |= {"start": iou(start, garment), "mask_noc85": count}
        row |= {f"mask_{number}": corrected[min(number, len(corrected)) - 1] for number in range(1, 5)}
    return row | {"seconds": float(np.median(seconds))}


def _click_through(
    predictor: ImagePredictor, garment: ClickTruth, mask: np.ndarray | None, most: int, least: int, seconds: list[float]
) -> list[float]:
    """Click until the last target is reached, but at least `least` and at most `most` times; return the IoU of each."""
    curve: list[float] = []
    points: list[tuple[int, int]] = []
    positives: list[bool] = []
    from_nothing = mask is None
    while len(curve) < most and (len(curve) < least or max(curve) < TARGETS[-1]):
        current = np.zeros_like(garment.truth) if mask is None else mask
        place = next_click(current, garment.truth, judged=garment.judged)
        if place is None:
            break  # nothing is wrong
        points.append(place[:2])
        positives.append(place[2])
        if mask is not None and not mask.any():
            mask = None  # the editor deletes a region that is empty
        if mask is None and not any(positives):
            curve.append(iou(current, garment))
            continue
        prompts = Prompts(
            np.array(points, np.float32), np.array(positives), None, garment.label, mask, from_clicks=from_nothing
        )
        begun = time.perf_counter()
        mask = predictor.predict(prompts)[0]
        seconds.append(time.perf_counter() - begun)
        curve.append(iou(mask, garment))
    return curve or [1.0]


def _partly_wrong(garment: ClickTruth, chance: np.random.Generator) -> np.ndarray | None:
    for _ in range(40):
        mask = damaged(garment.truth, garment.others, chance)
        if _LEAST <= iou(mask, garment) < _MOST:
            return mask
    return None


def iou(mask: np.ndarray, garment: ClickTruth) -> float:
    """Return the IoU of a (H, W) bool mask with a garment's, over the judged pixels: 0..1."""
    union = np.count_nonzero((mask | garment.truth) & garment.judged)
    return np.count_nonzero(mask & garment.truth & garment.judged) / union if union else 1.0


def summarise(rows: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Return the measures of one segmenter, with intervals by family, and by label.

    `iou_after` has ten values; `noc80`, `noc85` and `noc90` are means, `failures` the shares of garments that do not
    reach them, `box` the IoU of a box's answer. `from_mask` holds the IoU before and after 1 to 4 clicks, and the
    clicks to 0.85 from the mask and, for the same garments, from nothing. `harm` is the share of first clicks on a mask
    that lower its IoU.
    """
    values = _means(rows)
    values["intervals"] = _intervals(rows, resamples)
    values["by_label"] = {label: _means(part) for label, part in rows.groupby("label", sort=True)}
    return values


def judged_photos(dataset: Dataset, params: Params) -> Iterator[KnownPhoto]:
    """Yield test photos whose masks are blind, or all where none are, until enough garments are measured."""
    photos = clean_photos(dataset, "test") or photos_in(dataset, "test")
    return known_photos(dataset, photos, params, params.clicks.judged)


def known_photos(dataset: Dataset, photos: Sequence[str], params: Params, most: int) -> Iterator[KnownPhoto]:
    """Yield photos with their garments, in this order, until at least `most` garments are measured."""
    count = 0
    for sha256, family in zip(photos, families_of(dataset, photos), strict=True):
        if count >= most:
            return
        known = known_photo(
            sha256, family, dataset.read_image(sha256), dataset.read_mask(sha256), params.label_ids,
            params.clicks.smallest,
        )  # fmt: skip
        count += len(known.garments)
        yield known


def evaluate_clicks(dataset: Dataset, params: Params) -> None:
    """Measure the click model and GrabCut on a dataset's test split; write clicks.json and clicks_report/."""
    with tempfile.TemporaryDirectory(prefix="maskloop-clicks-") as scratch:
        segmenters: dict[str, InteractiveSegmenter] = {
            "clicks": load_click_model(dataset.path(CLICKS), Path(scratch), "clicks"), "grabcut": GrabCutSegmenter(),
        }  # fmt: skip
        photos = list(judged_photos(dataset, params))
        measured = {
            name: measure(segmenter, track(photos, f"clicks: {name}", transient=True))
            for name, segmenter in segmenters.items()
        }
        summaries = {name: summarise(rows, params.evaluate.resamples) for name, rows in measured.items()}
        folder = dataset.path(CLICK_REPORT)
        shutil.rmtree(folder, ignore_errors=True)  # the first time there is none
        folder.mkdir()
        draw_click_curves(summaries, folder / "curve.png")
        draw_click_sheets(segmenters["clicks"], photos, folder)
    pd.concat([rows.assign(segmenter=name) for name, rows in measured.items()]).to_parquet(folder / ROWS, index=False)
    values = {"photos": len(photos), "segmenters": summaries}
    write_atomically(dataset.path(CLICK_METRICS), (json.dumps(values, indent=1) + "\n").encode())
    logger.info(
        "clicks to an IoU of 0.85: %s", ", ".join(f"{name} {values['noc85']:.2f}" for name, values in summaries.items())
    )


def _means(rows: pd.DataFrame) -> dict[str, Any]:
    values: dict[str, Any] = {"garments": len(rows), "photos": rows["photo"].nunique()}
    values["iou_after"] = [round(float(rows[f"iou_{number}"].mean()), 4) for number in range(1, CURVE + 1)]
    values |= {f"noc{100 * t:.0f}": round(float(rows[f"noc{100 * t:.0f}"].mean()), 3) for t in TARGETS}
    values["failures"] = {f"{100 * t:.0f}": round(float(1 - rows[f"reached{100 * t:.0f}"].mean()), 4) for t in TARGETS}
    values["box"] = round(float(rows["box"].mean()), 4)
    values["seconds"] = round(float(rows["seconds"].median()), 4)
    corrected = rows[rows["start"].notna()] if "start" in rows else rows[:0]
    if len(corrected):
        to, anew = float(corrected["mask_noc85"].mean()), float(corrected["noc85"].mean())
        values["from_mask"] = {
            "garments": len(corrected),
            "iou_before": round(float(corrected["start"].mean()), 4),
            "iou_after": [round(float(corrected[f"mask_{number}"].mean()), 4) for number in range(1, 5)],
            "noc85": round(to, 3), "noc85_from_nothing": round(anew, 3), "ratio": round(to / anew, 3),
        }  # fmt: skip
        values["harm"] = round(float((corrected["mask_1"] < corrected["start"] - _HARM).mean()), 4)
    return values


def _intervals(rows: pd.DataFrame, resamples: int) -> dict[str, tuple[float, float]]:
    names = [*(f"iou_{number}" for number in (1, 2, 4)), *(f"noc{100 * t:.0f}" for t in TARGETS), "box"]
    counts = np.column_stack([np.ones(len(rows)), rows[names].to_numpy(float)])
    drawn = resampled(counts, rows["family"].tolist(), resamples)
    means = drawn[:, 1:] / np.maximum(drawn[:, :1], 1)
    return {name: tuple(round(v, 4) for v in interval(means[:, at], 0.95)) for at, name in enumerate(names)}  # type: ignore[misc]  # pairs


def main() -> None:
    """Run the stage in the current folder."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    evaluate_clicks(Dataset(Path.cwd()), load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("evaluate_clicks", main)
