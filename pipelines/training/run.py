"""What a run in MLflow holds: all that is needed to judge a training, to repeat it, and to serve its model."""

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from pipelines.dataset.files import CURVES, METRICS, MODEL, REPORT
from pipelines.images import sha256_hex
from pipelines.params import Params
from pipelines.segmentation.clothing import CARD, WEIGHTS, load_card
from pipelines.training.figures import FIGURES

NETWORK = "network"  # artifact folder with weights.safetensors and model.json: what the service loads
FINGERPRINT, DATASET = "maskloop.fingerprint", "maskloop.dataset"
_NO_METRICS = ("photos", "per_class")  # of metrics.json
_BY_LABEL = (*FIGURES, "iou_low", "iou_high")  # of them; metrics.json holds the other intervals
_PACKAGES = (
    "torch", "torchvision", "lightning", "segmentation-models-pytorch", "openvino", "opencv-python-headless", "numpy",
    "mlflow", "dvc",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedModel:
    """A finished training: the folder it left, and the dataset it came from."""

    folder: Path
    dataset: str
    revision: str
    summary: str

    @property
    def fingerprint(self) -> str:
        """Identify dataset and weights: the same training is registered once."""
        return sha256_hex((self.folder / MODEL / WEIGHTS).read_bytes() + self.revision.encode())[:16]


def log_run(client: MlflowClient, name: str, trained: TrainedModel, params: Params, example: np.ndarray) -> Run:
    """Log parameters, curves, figures, pictures, the environment and the model in the experiment `name`.

    A run that breaks off is marked FAILED. `example` is a (1, H, W, 3) uint8 RGB photo.
    """
    folder = trained.folder
    figures = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    mlflow.set_experiment(name)
    tags = {
        FINGERPRINT: trained.fingerprint,
        DATASET: trained.dataset,
        "maskloop.dataset_revision": trained.revision,
        "mlflow.note.content": f"Trained on **{trained.dataset}** ({trained.summary}).",
    }
    with mlflow.start_run(run_name=f"{name} on {trained.dataset}", tags=tags) as run:
        for section in ("train", "split", "compile", "evaluate", "promote"):
            mlflow.log_params({f"{section}.{name}": value for name, value in getattr(params, section)})
        mlflow.log_metrics({f"test_{key}": value for key, value in figures.items() if key not in _NO_METRICS})
        for label, values in figures["per_class"].items():
            mlflow.log_metrics({f"{key}/{label}": values[key] for key in _BY_LABEL if key in values})
        _log_curve(client, run.info.run_id, folder / CURVES)
        for path in (folder / "params.yaml", folder / METRICS, folder / CURVES):
            mlflow.log_artifact(str(path))
        mlflow.log_dict(environment(), "environment.json")
        mlflow.log_artifacts(str(folder / REPORT), "report")
        mlflow.log_artifacts(str(folder / MODEL), NETWORK)
        _log_model(folder / MODEL, example)
    return run


def _log_curve(client: MlflowClient, run_id: str, path: Path) -> None:
    table = pd.read_csv(path)
    points = [
        Metric(name, float(value), 0, int(epoch))
        for name in ("train_loss", "val_miou")
        for epoch, value in zip(table["epoch"], table[name], strict=True)
        if np.isfinite(value)
    ]
    client.log_batch(run_id, metrics=points)


def environment() -> dict[str, Any]:
    """Describe the machine and the packages that a training depends on."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _log_model(folder: Path, example: np.ndarray) -> None:
    """Log the model as code and two plain files: it loads with `mlflow.pyfunc.load_model` and holds no pickle."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    package = Path(__file__).resolve().parent.parent
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]),
    )
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(package / "training" / "pyfunc_model.py"),
        artifacts={NETWORK: str(folder)},
        code_paths=[str(package)],
        signature=signature,
        input_example=example,
        pip_requirements=[
            "torch",
            "openvino",
            "segmentation-models-pytorch",
            "safetensors",
            "opencv-python-headless",
            "pillow",
            "pydantic",
        ],
        metadata={"labels": dict(load_card(folder).labels), "files": [WEIGHTS, CARD]},
    )
