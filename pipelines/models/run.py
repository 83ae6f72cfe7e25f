"""What a run in MLflow holds: everything needed to judge a training, to repeat it, and to serve its model."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import (
    CLICK_CURVES,
    CLICK_METRICS,
    CLICK_REPORT,
    CLICK_STEPS,
    CLICKS,
    CURVES,
    MANIFEST,
    METRICS,
    MODEL,
    PROPOSALS,
    REPORT,
    STEPS,
)  # fmt: skip
from pipelines.models.packing import pack_model_code, pinned_requirements
from pipelines.models.reader import NETWORK
from pipelines.models.signatures import CLICK_ENTRY, CLOTHING_ENTRY, Entry
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.segmentation.model import WEIGHTS

# Tags of runs and versions. People's registries hold them, so their names never change.
FINGERPRINT, DATASET, REVISION = "maskloop.fingerprint", "maskloop.dataset", "maskloop.dataset_revision"
STARTED_FROM, STEPS_DONE, MINUTES = "maskloop.started_from", "maskloop.steps", "maskloop.minutes"
_INTERVAL = ("miou_low", "miou_high")  # of metrics.json; the report has the intervals of the other metrics
_CURVES = ("train_loss", "val_miou", "val_iou_2_clicks", "learning_rate")
_SECTIONS = ("train", "clicks", "split", "compile", "evaluate", "promote", "effort")  # of params.yaml
_PACKAGES = (
    "torch", "torchvision", "segmentation-models-pytorch", "timm", "openvino", "opencv-python-headless", "numpy",
    "mlflow", "dvc",
)  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """What the stages of a training write, relative to its folder, how MLflow loads it, and which stage comes last."""

    model: Path
    steps: Path
    metrics: Path
    curves: Path
    report: Path
    more: tuple[Path, ...]  # that belong to the network's files, where they exist
    entry: Entry
    stage: str


CLOTHING_MODEL = Outputs(MODEL, STEPS, METRICS, CURVES, REPORT, (PROPOSALS,), CLOTHING_ENTRY, "evaluate")
CLICK_MODEL = Outputs(
    CLICKS, CLICK_STEPS, CLICK_METRICS, CLICK_CURVES, CLICK_REPORT, (), CLICK_ENTRY, "evaluate_clicks"
)


@dataclass(frozen=True)
class Training:
    """A training, begun or finished: the tag and git revision of its dataset, and the folder that it works in.

    `summary` says what is new in the dataset; `cache` is the address under which DVC's remote stores files by their
    hash, or empty; `outputs` says which kind of model is trained.
    """

    folder: Path
    dataset: str
    revision: str
    summary: str
    cache: str = ""
    outputs: Outputs = CLOTHING_MODEL

    @property
    def dataset_files(self) -> Dataset:
        """Return the dataset in its folder."""
        return Dataset(self.folder)

    @property
    def fingerprint(self) -> str:
        """Return a hash of dataset and weights, once there are any; the same training is registered once."""
        weights = sorted((self.folder / self.outputs.model).rglob(f"*{Path(WEIGHTS).suffix}"))  # a decoder's as well
        return sha256_hex(b"".join(path.read_bytes() for path in weights) + self.revision.encode())[:16]

    @property
    def is_finished(self) -> bool:
        """Return whether the folder holds a network."""
        return (self.folder / self.outputs.model / WEIGHTS).exists()

    @property
    def steps(self) -> dict[str, Any]:
        """Return what the training recorded about its steps; empty where it did not."""
        path = self.folder / self.outputs.steps
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    @property
    def ended_ms(self) -> int:
        """Return when its metrics were written, in milliseconds since 1970."""
        return int((self.folder / self.outputs.metrics).stat().st_mtime * 1000)


def tags_of(training: Training) -> dict[str, str]:
    """Return the tags that a run has from its start."""
    return {
        DATASET: training.dataset,
        REVISION: training.revision,
        "mlflow.source.name": f"dvc repro {training.outputs.stage}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": training.revision,
        "mlflow.note.content": f"Trained on {training.dataset} ({training.summary}).",
    }


def log_beginning(client: MlflowClient, run_id: str, training: Training, params: Params) -> None:
    """Log what is known before a training: its parameters and its dataset; logging it again changes nothing."""
    values = {f"{section}.{name}": str(value) for section in _SECTIONS for name, value in getattr(params, section)}
    client.log_batch(run_id, params=[Param(name, value) for name, value in values.items()])
    if (training.folder / MANIFEST).exists():
        client.log_inputs(run_id, [dataset_input(training)])


def dataset_input(training: Training) -> DatasetInput:
    """Return a training's dataset for MLflow: its tag, the manifest's MD5, as DVC has it, and photos by split."""
    data = (training.folder / MANIFEST).read_bytes()
    photos = pd.read_parquet(training.folder / MANIFEST, columns=["split"])["split"].value_counts()
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    source = {"uri": f"{training.cache}/{digest[:2]}/{digest[2:]}" if training.cache else str(MANIFEST)}
    profile = {split: int(photos.get(split, 0)) for split in ("train", "val", "test")}
    described = DatasetEntity(training.dataset, digest[:8], "dvc", json.dumps(source), profile=json.dumps(profile))
    return DatasetInput(described, [InputTag("mlflow.data.context", "training")])


def log_result(client: MlflowClient, run: Run, training: Training, photo: np.ndarray) -> None:
    """Log metrics, curves, plots, the environment and the model, and end the run at the time the training ended.

    What an interrupted attempt has already logged is not logged twice. `photo` is a (H, W, 3) uint8 RGB example.
    """
    folder, run_id, outputs = training.folder, run.info.run_id, training.outputs
    metrics = json.loads((folder / outputs.metrics).read_text(encoding="utf-8"))
    began = run.info.start_time
    ended = training.ended_ms if training.ended_ms >= began else max(began, run.info.end_time or 0)
    steps = training.steps
    curve = _missing_points(client, run_id, folder / outputs.curves, began, ended)
    client.log_batch(run_id, [*_shown_metrics(metrics, ended), *curve], tags=_progress(steps, began, ended))
    for path in (folder / "params.yaml", folder / outputs.metrics, folder / outputs.curves):
        client.log_artifact(run_id, str(path))
    client.log_artifacts(run_id, str(folder / outputs.report), "report")
    with tempfile.TemporaryDirectory() as scratch:
        network = lay_out_network(training, Path(scratch) / NETWORK)
        client.log_artifacts(run_id, str(network), NETWORK)
        if logged_model(client, run_id) is None:
            code = _log_model(run, network, outputs.entry, photo)
            client.log_dict(run_id, environment() | {"model_code": code}, "environment.json")
    client.set_terminated(run_id, "FINISHED", ended)


def lay_out_network(training: Training, target: Path) -> Path:
    """Copy a training's model into the folder `target` as its service loads it, and return `target`."""
    shutil.copytree(training.folder / training.outputs.model, target)
    for more in training.outputs.more:
        if (training.folder / more).exists():
            shutil.copy(training.folder / more, target)
    return target


def logged_model(client: MlflowClient, run_id: str) -> str | None:
    """Return the id of the model that a run holds; None when it holds none, or its upload was interrupted."""
    outputs = client.get_run(run_id).outputs
    models = [output.model_id for output in (outputs.model_outputs if outputs else ())]
    ready = [model for model in models if client.get_logged_model(model).status.value == "READY"]
    return ready[-1] if ready else None


def _shown_metrics(metrics: Mapping[str, Any], time_ms: int) -> list[Metric]:
    """Return the metrics that MLflow's pages show; the metrics' file and the report hold all of them."""
    values = _click_metrics(metrics) if "segmenters" in metrics else _clothing_metrics(metrics)
    return [Metric(name, value, time_ms, 0) for name, value in values.items()]


def _clothing_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    shown = [key for key in metrics if key in _INTERVAL or not key.endswith(("_low", "_high"))]
    values = {f"test_{key}": metrics[key] for key in shown if isinstance(metrics[key], float)}
    return values | {f"iou/{label}": scores["iou"] for label, scores in metrics["per_class"].items() if "iou" in scores}


def _click_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, measured in metrics["segmenters"].items():
        prefix = "" if name == "clicks" else f"{name}/"
        values |= {f"{prefix}iou_after_{clicks}": measured["iou_after"][clicks - 1] for clicks in (1, 2, 4)}
        values |= {
            f"{prefix}{key}": measured[key] for key in ("noc80", "noc85", "noc90", "box", "harm") if key in measured
        }
        if "from_mask" in measured:
            values[f"{prefix}from_mask_noc85"] = measured["from_mask"]["noc85"]
    return values


def _progress(steps: Mapping[str, Any], began_ms: int, ended_ms: int) -> list[RunTag]:
    values = {MINUTES: f"{(ended_ms - began_ms) / 60_000:.0f}"} if ended_ms > began_ms else {}
    if steps:
        values[STEPS_DONE] = f"{steps['done_steps']}/{steps['planned_steps']}"
        values[STARTED_FROM] = steps.get("started_from", "")
    return [RunTag(name, value) for name, value in values.items() if value]


def _missing_points(client: MlflowClient, run_id: str, path: Path, began_ms: int, ended_ms: int) -> list[Metric]:
    """Return the points of the learning curve that did not reach the run during the training.

    Their times are interpolated between those of the points that did.
    """
    table = pd.read_csv(path)
    position = table["step"] if "step" in table.columns else table["epoch"]
    points = []
    for name in _CURVES:
        if name not in table.columns:
            continue
        logged = {point.step: point.timestamp for point in client.get_metric_history(run_id, name)}
        known = {min([0, *logged]): began_ms, max([int(position.max()), *logged]): ended_ms, **logged}
        steps = sorted(known)
        times = np.interp(position.to_numpy(float), steps, [known[step] for step in steps]).tolist()
        points += [
            Metric(name, float(value), int(time), int(step))
            for step, value, time in zip(position, table[name], times, strict=True)
            if np.isfinite(value) and step not in logged
        ]
    return points


def environment() -> dict[str, Any]:
    """Return a description of the machine and the packages that a training depends on."""
    import torch

    from pipelines.segmentation.runtime import multiplies_bfloat16

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "multiplies_bfloat16": multiplies_bfloat16(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _log_model(run: Run, network: Path, entry: Entry, photo: np.ndarray) -> str:
    """Log the model as code and a few plain files, and return the name of its package of code.

    `mlflow.pyfunc.load_model` loads it, and it holds no pickle.
    """
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    with tempfile.TemporaryDirectory() as scratch:
        code, package = pack_model_code(Path(scratch), entry.code)
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                artifacts={NETWORK: str(network)},
                code_paths=[str(package)],
                signature=entry.signature(),
                input_example=entry.example(photo),
                pip_requirements=pinned_requirements(),
                metadata={"labels": entry.labels(network), "files": sorted(path.name for path in network.iterdir())},
            )
    return package.name
