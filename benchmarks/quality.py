"""Masks that look wrong: how many of the planted errors stand among the first, by who judges and how that is scored.

In a tenth of the masks a garment gets another label, is left out, or is moved. A small network is trained on all of
these masks, errors included. Ours are the project's judges, which did not learn from the photo; the peer is the score
that cleanlab gives with the probabilities of the network that did: the softmin of each pixel's own label (Lad, Mueller:
"Estimating label errors in semantic segmentation data", 2023). Both scores are also given by the other judge. Photos
are drawn, unless MASKLOOP_CCP names a folder of photos/, masks/ and labels.csv (columns index, label).
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._photos import real_photos
from benchmarks.harness import Row
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST, MODEL
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.demo.archive import SyntheticArchive
from pipelines.exchange.as_dataset import write_dataset
from pipelines.params import Params, load_params
from pipelines.quality.folds import ENCODERS, Features, predict_out_of_fold
from pipelines.quality.label_errors import JudgedPhoto, find_label_issues
from pipelines.segmentation.model import load_model
from pipelines.segmentation.transforms import resize_mask
from pipelines.settings import PROJECT_ROOT
from pipelines.training.train import train

_PHOTOS, _WRONG = 300, 0.1
_STEPS = 300
_TRAINING = {"image_height": 224, "image_width": 160, "predict_scale": 1.0, "predict_mirrored": False}
_LEAST, _COMMON = 0.005, 10  # share of a garment that an error befalls; photos that show the label it gets
_MOVED = 0.1, 0.25  # by which shares of the photo's height
_FIRST = 10, 30
_TEMPERATURE = 0.1  # cleanlab's


def run() -> list[Row]:
    """Plant errors, train, judge, and return average precision and the precision among the first."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name:
        dataset = Dataset(Path(name) / "dataset")
        source = real_photos(params) or SyntheticArchive(Path(name) / "archive", params)
        manifest = write_dataset(dataset, source, params, _PHOTOS + 1).sort_values("sha256", ignore_index=True)
        split = ["train"] * (len(manifest) - 1) + ["test"]  # the network learns from all that is judged
        dataset.write_table(MANIFEST, manifest.assign(split=split))
        names = manifest["sha256"].tolist()[:-1]
        wrong = plant_errors(dataset, names, params, np.random.default_rng(11))
        options = _TRAINING | {"epochs": 1, "min_steps": _STEPS, "max_steps": _STEPS, "max_minutes": 0, "patience": 0}
        train(dataset, params.model_copy(update={"train": params.train.model_copy(update=options)}))
        families = dict(zip(manifest["sha256"], manifest.get("family", manifest["group"]), strict=True))
        return _compare(dataset, names, wrong, {name: str(families[name]) for name in names}, params)


def plant_errors(dataset: Dataset, names: list[str], params: Params, random: np.random.Generator) -> dict[str, str]:
    """Damage a share of these photos' masks; return by photo which error it has."""
    masks = {name: dataset.read_mask(name) for name in names}
    shown = pd.Series([value for mask in masks.values() for value in np.unique(mask) if value]).value_counts()
    common = [value for value in params.label_ids.values() if shown.get(value, 0) >= _COMMON]
    wrong = {}
    for number, name in enumerate(random.permutation(names)[: round(_WRONG * len(names))].tolist()):
        mask, kind = masks[name], ("other label", "left out", "moved")[number % 3]
        large = [value for value in np.unique(mask) if value and (mask == value).mean() >= _LEAST]
        if not large:
            continue
        label = int(random.choice(large))
        region = mask == label
        mask[region] = 0
        if kind == "other label":
            mask[region] = random.choice([value for value in common if value != label])
        elif kind == "moved":
            mask[_moved(region, random)] = label
        shard = shard_of(name)
        dataset.masks.write_shard(shard, dataset.masks.read_shard(shard) | {name: encode_mask(mask)})
        wrong[name] = kind
    return wrong


def _moved(region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = region.shape
    angle, far = random.uniform(0, 2 * np.pi), random.uniform(*_MOVED) * height
    rows, columns = (
        axis + round(far * turn) for axis, turn in zip(np.nonzero(region), (np.sin(angle), np.cos(angle)), strict=True)
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    moved = np.zeros_like(region)
    moved[rows[inside], columns[inside]] = True
    return moved


def _compare(
    dataset: Dataset, names: list[str], wrong: Mapping[str, str], families: Mapping[str, str], params: Params
) -> list[Row]:
    def by_network() -> Iterator[JudgedPhoto]:
        model = load_model(dataset.path(MODEL))
        for name in names:
            probabilities = model.probabilities(dataset.read_image(name))
            yield JudgedPhoto(name, dataset.read_mask(name), probabilities, model.card.labels, "network")

    def by_folds() -> Iterator[JudgedPhoto]:
        folder = dataset.root.parent / "features"
        features = [Features(folder, dataset.read_image, params.train, encoder) for encoder in ENCODERS]
        yield from predict_out_of_fold(families, features, dataset.read_mask, params.label_ids, params.quality.folds)

    begun = time.perf_counter()
    out_of_fold = list(by_folds())
    scores = {"largest difference, out of fold": _largest(out_of_fold)}
    seconds = time.perf_counter() - begun
    scores |= {
        "largest difference, in-sample": _largest(by_network()),
        "softmin, out of fold": _softmin(out_of_fold),
        "softmin, in-sample": _softmin(by_network()),
    }
    metrics = {way: _metrics(of_way, names, wrong) for way, of_way in scores.items()}
    peer = metrics.pop("softmin, in-sample")
    rows = [
        Row(f"{metric}: {way}", value, peer[metric], value / peer[metric] if peer[metric] else None, "", len(wrong))
        for way, of_way in metrics.items()
        for metric, value in of_way.items()
    ]
    return [*rows, Row("judging a photo out of fold", seconds / len(names), None, None, "s", len(names))]


def _largest(photos: Iterable[JudgedPhoto]) -> dict[str, float]:
    return {photo.sha256: photo.score for photo in find_label_issues(photos, _PHOTOS)}


def _softmin(photos: Iterable[JudgedPhoto]) -> dict[str, float]:
    """Score photos as cleanlab does, turned round so that more is worse."""
    scores = {}
    for photo in photos:
        values = np.array([0, *photo.labels.values()])
        channel = np.zeros(256, int)
        channel[values] = np.arange(len(values))
        labels = channel[resize_mask(photo.mask, *photo.probabilities.shape[1:])]
        own = np.take_along_axis(photo.probabilities, labels[None], axis=0)[0].astype(np.float64)
        weights = np.exp((1 - own) / _TEMPERATURE)
        scores[photo.sha256] = 1 - float((own * weights).sum() / weights.sum())
    return scores


def _metrics(scores: Mapping[str, float], names: list[str], wrong: Mapping[str, str]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    score = np.array([scores.get(name, -1.0) for name in names])
    is_wrong = np.array([name in wrong for name in names])
    first = is_wrong[np.argsort(-score, kind="stable")]
    metrics = {"average precision": float(average_precision_score(is_wrong, score))}
    metrics |= {f"precision among the first {count}": float(first[:count].mean()) for count in _FIRST}
    for kind in sorted(set(wrong.values())):
        counted = np.array([wrong.get(name, kind) == kind for name in names])
        metrics[f"average precision, {kind}"] = float(average_precision_score(is_wrong[counted], score[counted]))
    return metrics
