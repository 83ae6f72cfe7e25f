"""States that tests of several packages start from: labels, tiny models, an empty MLflow."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.params import Label, Params, load_params
from pipelines.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from pipelines.segmentation.clothing import ModelCard

COAT, DRESS = Label(id=3, name="coat", color="#1f77b4"), Label(id=7, name="dress", color="#d62728")


@pytest.fixture
def two_labels() -> Params:
    """The project's parameters with two labels whose ids have gaps, as after some labels were removed."""
    return load_params(PROJECT_ROOT / "params.yaml").model_copy(update={"labels": (COAT, DRESS)})


@pytest.fixture(scope="session")
def tiny_card() -> "ModelCard":
    """The smallest input that the encoder takes; channels 1 and 2 are the pixel values 3 and 7."""
    from pipelines.segmentation.clothing import ModelCard

    half = (0.5, 0.5, 0.5)
    return ModelCard(
        "FPN", "timm-tf_efficientnet_lite0", 32, 32, half, half, {COAT.name: COAT.id, DRESS.name: DRESS.id}
    )


@pytest.fixture(scope="session")
def model_that_sees_coats(tiny_card: "ModelCard", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network calls every pixel a coat."""
    import torch

    from pipelines.segmentation.clothing import build_network, save_model

    network, folder = build_network(tiny_card), tmp_path_factory.mktemp("model")
    head = network.segmentation_head[0]
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, 9.0, 0.0])
    save_model(network, tiny_card, folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, made once."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def empty_mlflow(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an MLflow without runs and models; its files go into the test's folder."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that is taken but not listened on: connections are refused, and nobody else gets it meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
