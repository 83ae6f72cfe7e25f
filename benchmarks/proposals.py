"""Which masks are shown: whether chances are calibrated, and how many of people's seconds showing only what pays saves.

A small network is trained on half of the photos, for long and for a few steps; the other half are photos whose masks no
model drew. Seconds follow from `effort` in params.yaml. Photos are drawn, unless MASKLOOP_CCP names a folder of
photos/, masks/ and labels.csv (columns index, label).
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._photos import real_photos
from benchmarks.harness import Row
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MODEL
from pipelines.demo.archive import Archive, SyntheticArchive
from pipelines.exchange.as_dataset import write_dataset
from pipelines.params import Params, load_params
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.segmentation.postprocess import classes_of_photo
from pipelines.segmentation.proposals import Seconds, describe_regions
from pipelines.settings import PROJECT_ROOT
from pipelines.training.acceptance import (
    calibration_error,
    chances_of,
    cross_fitted,
    fit_proposals,
    savings_by_photo,
)  # fmt: skip
from pipelines.training.data import photos_in
from pipelines.training.evaluate import evaluate_model
from pipelines.training.train import train

_DRAWN, _ALL = 240, 1_000_000  # photos
_STEPS = {"trained": 220, "barely trained": 8}
_TRAINING = {"image_height": 192, "image_width": 128, "predict_scale": 1.0, "max_minutes": 0, "patience": 0}
_FEW, _DRAWS = (12, 30, 60), 10
_OUTCOMES = ("accepted", "corrected", "deleted")
_BINS = 10
_ROUNDS = 20


def run() -> list[Row]:
    """Train, and measure what each model's masks are worth."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    split = params.split.model_copy(update={"test_share": 0.5, "val_share": 0.0})
    params, rows = params.model_copy(update={"split": split}), []
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name:
        dataset = Dataset(Path(name) / "dataset")
        write_dataset(dataset, *_source(Path(name), params))
        test = photos_in(dataset, "test")
        for kind, steps in _STEPS.items():
            options = _TRAINING | {"epochs": 1, "min_steps": steps, "max_steps": steps}
            train(dataset, params.model_copy(update={"train": params.train.model_copy(update=options)}))
            share = params.prelabel.min_region_share
            model = load_model(dataset.path(MODEL), min_region_share=share, reduced_precision=False)
            rows += judge(kind, model, dataset, test, params)
        rows.append(_time_to_describe(model, dataset.read_image(test[0])))
    return rows


def judge(kind: str, model: ClothingModel, dataset: Dataset, photos: Sequence[str], params: Params) -> list[Row]:
    """Measure a model on these photos of a dataset, none of which it was trained on."""
    regions = evaluate_model(model, dataset, photos, params.label_ids).regions
    seconds, effort = Seconds.from_params(params.effort), params.effort
    garments = dataset.manifest().set_index("sha256").loc[list(photos), "class_ids"].map(len).mean()
    by_hand = seconds.look + seconds.draw * float(garments)
    fitted, names = cross_fitted(regions, seconds, effort), list(_OUTCOMES)
    everything = fitted.assign(**dict(zip(names, (1.0, 0.0, 0.0), strict=True)))
    pays, all_of_them = (
        by_hand - float(savings_by_photo(table, photos, seconds, effort).mean()) for table in (fitted, everything)
    )
    count, title = len(photos), f"{kind}: seconds per photo"
    shown = float((seconds.saved(*fitted[names].to_numpy().T) > 0).sum()) / count
    return [
        Row(f"{kind}: regions per photo, shown, against predicted", shown, len(fitted) / count, None, "", 1),
        Row(f"{title}, what pays is shown, against nothing", pays, by_hand, by_hand / pays, "s", 1),
        Row(f"{title}, what pays is shown, against every region", pays, all_of_them, all_of_them / pays, "s", 1),
        *_calibration(kind, fitted, params),
        *(row for few in _FEW if 2 * few <= count for row in _of_few(kind, regions, photos, few, params)),
    ]


def _source(folder: Path, params: Params) -> tuple[Archive, Params, int]:
    """Return where photos come from, the parameters, and how many there are at most."""
    source = real_photos(params)
    if source is None:
        return SyntheticArchive(folder / "archive", params), params, _DRAWN
    return source, params, _ALL


def _calibration(kind: str, fitted: pd.DataFrame, params: Params) -> list[Row]:
    """Compare chances with what happened, over all regions and by tenths of the chance."""
    rows = []
    iou, chance = fitted["iou"].to_numpy(), fitted["accepted"].to_numpy()
    for what, chances, least in (
        ("accepted as it is", chance, params.effort.accept_iou),
        ("worth correcting", 1 - fitted["deleted"].to_numpy(), params.effort.correct_iou),
    ):
        happened = iou >= least
        error = calibration_error(chances, happened)
        rows.append(Row(f"{kind}: calibration error of {what}, families left out", error, None, None, "", 1))
        place = np.minimum((chances * _BINS).astype(int), _BINS - 1)
        for number in np.unique(place):
            inside = place == number
            name = f"{kind}: {what} from {number / _BINS:.1f} on, {inside.sum()} regions: chance, against share"
            rows.append(Row(name, float(chances[inside].mean()), float(happened[inside].mean()), None, "", 1))
    return rows


def _of_few(kind: str, regions: pd.DataFrame, photos: Sequence[str], few: int, params: Params) -> list[Row]:
    """Fit on a few of the photos and measure on the others, for several draws of the few."""
    seconds, effort = Seconds.from_params(params.effort), params.effort
    errors, saved, share = [], [], []
    for draw in range(_DRAWS):
        drawn = np.random.default_rng(draw).permutation(photos)
        known = regions["photo"].isin(set(drawn[:few]))
        others = regions[~known]
        fitted = fit_proposals(regions[known], seconds, effort)
        chances = chances_of(others, fitted)
        errors.append(calibration_error(chances[:, 0], (others["iou"] >= effort.accept_iou).to_numpy()))
        described = others.assign(**dict(zip(_OUTCOMES, chances.T, strict=True)))
        of_photo = savings_by_photo(described, drawn[few:].tolist(), seconds, effort)
        is_any = fitted.saved_per_photo > 0  # else nothing is shown
        saved.append(float(of_photo.mean()) if is_any else 0.0)
        share.append(float((seconds.saved(*chances.T) > 0).mean()) if is_any else 0.0)
    title = f"{kind}, fitted on {few} photos"
    return [
        Row(f"{title}: calibration error of accepted as it is", statistics.mean(errors), None, None, "", _DRAWS),
        Row(f"{title}: the same, worst draw", max(errors), None, None, "", _DRAWS),
        Row(f"{title}: seconds saved per photo", statistics.mean(saved), None, None, "s", _DRAWS),
        Row(f"{title}: the same, worst draw", min(saved), None, None, "s", _DRAWS),
        Row(f"{title}: share of regions shown", statistics.mean(share), None, None, "", _DRAWS),
    ]


def _time_to_describe(model: ClothingModel, photo: np.ndarray) -> Row:
    probabilities = model.probabilities(photo)
    mask = model.card.index_of_channel[classes_of_photo(probabilities, *photo.shape[:2])[0]]
    large = np.repeat(np.repeat(probabilities, 3, axis=1), 3, axis=2)  # more pixels than the default network's
    taken = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        describe_regions(large, mask, model.card)
        taken.append(1e3 * (time.perf_counter() - begun))
    name = f"describing regions, probabilities {'×'.join(map(str, large.shape))}"
    return Row(name, statistics.median(taken), None, None, "ms", _ROUNDS)
