"""Train and evaluate on a folder of masked photos: no bucket, no Label Studio, no MLflow, no Airflow.

The same stages as in the loop work on a dataset folder that is made of the photos; what they are given stays untouched.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, METRICS, MODEL, PROPOSALS, REPORT, START
from pipelines.errors import ConfigurationError, ModelError
from pipelines.exchange.as_dataset import write_dataset
from pipelines.exchange.masked_photos import MaskedPhotos
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.segmentation.model import CARD, ClothingModel, load_model
from pipelines.settings import Settings
from pipelines.training.evaluate import evaluate, evaluate_model
from pipelines.training.metrics import compute_metrics
from pipelines.training.report import write_folder_page
from pipelines.training.train import train

if TYPE_CHECKING:
    from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)
_WITH_INTERVAL = ("miou", "miou_foreground", "pixel_accuracy", "mean_class_accuracy", "boundary_iou")


def train_on_folder(source: MaskedPhotos, params: Params, out: Path, *, minutes: float | None = None) -> dict[str, Any]:
    """Train on the train split of masked photos, evaluate on the test split, and write the model folder `out`.

    `out` then holds weights.safetensors, model.json, training.json and proposals.json, which `load_model` reads, and
    metrics.json, curves.csv, report.html and report/. `minutes` replaces `train.max_minutes`, the safety net. A
    training that was killed resumes when it is started again with the same arguments. Return what metrics.json holds.

    Raise ConfigurationError when `out` holds something else, DatasetError when no photo can be used or no photo falls
    in the train or the test split, and TrainingError for options that no network can be built with.
    """
    if out.exists() and any(out.iterdir()) and not ((out / CARD).exists() or (out / "work").exists()):
        raise ConfigurationError(f"{out} holds other files; give --out a new folder")
    if minutes is not None:
        params = params.model_copy(update={"train": params.train.model_copy(update={"max_minutes": minutes})})
    work = out / "work"
    (work / START).mkdir(parents=True, exist_ok=True)
    manifest = write_dataset(Dataset(work), source, params)
    logger.info("%d photos: %s", len(manifest), manifest["split"].value_counts().to_dict())
    dataset = Dataset(work)
    train(dataset, params)
    evaluate(dataset, params)
    write_folder_page(work / "report.html", dataset, params)
    for part in (*(work / MODEL).iterdir(), *(work / name for name in (PROPOSALS, METRICS, CURVES, "report.html"))):
        part.replace(out / part.name)
    shutil.rmtree(out / REPORT, ignore_errors=True)  # of an earlier training
    (work / REPORT).replace(out / REPORT)
    shutil.rmtree(work)
    return dict(json.loads((out / METRICS).read_text(encoding="utf-8")))


def evaluate_on_folder(source: MaskedPhotos, params: Params, model: ClothingModel) -> dict[str, Any]:
    """Measure a model on every photo of a folder, in 32 bits, at the photos' own size.

    Return `photos`, `miou`, `miou_foreground`, `pixel_accuracy`, `mean_class_accuracy`, `boundary_iou`, each a mapping
    with `value`, `low` and `high`, and `iou`, such a mapping for each label; `low` and `high`, which hold 95 % of
    resamples of families of look-alike photos, are left out where there are too few photos for them.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-evaluate-") as scratch:
        dataset = Dataset(Path(scratch))
        photos = sorted(write_dataset(dataset, source, params)["sha256"])
        evaluation = evaluate_model(model, dataset, photos, params.label_ids)
        values = compute_metrics(evaluation, params.label_ids, params.evaluate.resamples)
    per_class: Mapping[str, Mapping[str, float]] = values["per_class"]
    return {
        "photos": len(photos),
        **{key: _with_interval(values, key) for key in _WITH_INTERVAL},
        "iou": {label: _with_interval(of_label, "iou") for label, of_label in per_class.items() if "iou" in of_label},
    }


def load_named_model(settings: Settings, name: str) -> ClothingModel:
    """Load `models:/NAME@champion` or `models:/NAME/3` from MLflow, or a model folder, to run in 32 bits.

    Raise ModelError when there is no such model.
    """
    if not name.startswith("models:/"):
        return load_model(Path(name).expanduser(), reduced_precision=False)
    registry, version = registered(settings, name)
    with tempfile.TemporaryDirectory() as scratch:
        return load_model(registry.download(version, Path(scratch)), version=version.served_as, reduced_precision=False)


def registered(settings: Settings, name: str) -> "tuple[Registry, ModelVersion]":
    """Return the version of MLflow's registry that `models:/NAME@champion` or `models:/NAME/3` names, and the registry.

    Raise ModelError when there is no such version.
    """
    from pipelines.models.registry import Registry

    model, at, alias = name.removeprefix("models:/").partition("@")
    model, _, number = model.partition("/")
    registry = Registry(settings.model_copy(update={"model_name": model}))
    if at and alias != "champion":
        raise ModelError(f"{name}: the only alias is champion; give models:/{model}@champion or models:/{model}/NUMBER")
    version = registry.champion() if at else registry.version(number)
    if version is None:
        raise ModelError(f"{registry.url} has no {name}; give models:/{model}/NUMBER of those it lists, or a folder")
    return registry, version


def _with_interval(values: Mapping[str, float], key: str) -> dict[str, float]:
    evaluation = {"value": values[key], "low": values.get(f"{key}_low"), "high": values.get(f"{key}_high")}
    return {name: value for name, value in evaluation.items() if value is not None}
