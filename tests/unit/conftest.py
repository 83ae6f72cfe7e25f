"""States that tests of several packages start from: labels, tiny models, a scripted Label Studio, an empty MLflow."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml
from google.cloud.storage import Client
from hypothesis import settings as hypothesis_settings
from PIL import Image

from pipelines.dataset.workspace import Workspace
from pipelines.gcs.client import ensure_bucket, put
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Label, Params, load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef, ModelVersion, RegionMask
from pipelines.settings import PROJECT_ROOT, Settings

if TYPE_CHECKING:
    from pipelines.models.registry import Registry
    from pipelines.segmentation.model import ModelCard

# No test depends on how busy the machine is.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

COAT, DRESS = Label(id=3, name="coat", color="#1f77b4"), Label(id=7, name="dress", color="#d62728")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Tiny networks: threads that wait for each other, and for busy processors, make them several times slower."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


class Answers:
    """Answers each `METHOD path` with its list of JSON values in turn; the last one repeats. Notes what was asked."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = {where: list(values) for where, values in answers.items()}
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        where = f"{request.method} {request.url.path}"
        body = json.loads(request.content) if request.content else None
        self.asked.append((where, dict(request.url.params), body))
        if where not in self.answers:
            return httpx.Response(404, text=f"nothing at {where}")
        values = self.answers[where]
        return httpx.Response(200, json=values.pop(0) if len(values) > 1 else values[0])


@pytest.fixture
def label_studio() -> Callable[[dict[str, list[Any]]], tuple[LabelStudioClient, Answers]]:
    """Make a client of a Label Studio with these answers."""

    def make(answers: dict[str, list[Any]]) -> tuple[LabelStudioClient, Answers]:
        server = Answers(answers)
        transport = httpx.MockTransport(server)
        return LabelStudioClient("http://label-studio.test", "token", transport=transport), server

    return make


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set MASKLOOP_ variables for a stack of their own."""
    for name in [name for name in os.environ if name.startswith("MASKLOOP_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def two_labels() -> Params:
    """The project's parameters with two labels whose ids have gaps, as after some labels were removed."""
    return load_params(PROJECT_ROOT / "params.yaml").model_copy(update={"labels": (COAT, DRESS)})


@pytest.fixture(scope="session")
def tiny_card() -> "ModelCard":
    """The smallest input that the encoder takes; channels 1 and 2 are the pixel values 3 and 7."""
    from pipelines.segmentation.model import ModelCard

    half = (0.5, 0.5, 0.5)
    return ModelCard(
        "FPN", "timm-mobilenetv3_small_minimal_100", 32, 32, half, half, {COAT.name: COAT.id, DRESS.name: DRESS.id}
    )


@pytest.fixture(scope="session")
def model_that_sees_coats(tiny_card: "ModelCard", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network calls every pixel a coat."""
    import torch

    from pipelines.segmentation.model import build_network, save_model

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


@pytest.fixture(scope="session")
def annotate() -> Callable[..., Annotation]:
    """Make an annotation of a 30×20 photo; each label covers a range of rows, and the last one drawn wins."""
    from pipelines.labelstudio.render import region_json

    def make(uuid: str, rows: Mapping[str, slice], **changes: Any) -> Annotation:
        masks = {label: np.zeros((30, 20), bool) for label in rows}
        for label, where in rows.items():
            masks[label][where] = True
        regions = [region_json(RegionMask(label, mask, 1.0), f"region-{label}") for label, mask in masks.items()]
        image = ImageRef(f"gs://archive/photos/{uuid}.png", 1, sha256_hex(uuid.encode()), 30, 20)
        annotation = Annotation(
            uuid, 1, image, {"collection": "Autumn"}, "ada@example.org", datetime(2026, 1, 1, tzinfo=UTC), 12.5, False,
            "clothing:v1", {"result": regions},
        )  # fmt: skip
        return replace(annotation, **changes)

    return make


@pytest.fixture
def three_models() -> pd.DataFrame:
    """A manifest: sixty photos by hand, then thirty with masks and fifteen without at the time of each of three models.

    The masks of the first cost time, those of the second save some, and the last is of another registry.
    """
    usual = {"": 60.0, "clothing:v1": 90.0, "clothing:v2": 20.0, "segformer": 60.0}
    shown = ["", "", "clothing:v1", "clothing:v2", "segformer"]
    versions = [("" if place % 3 == 1 else version) for version in shown for place in range(45 if version else 30)]
    count = len(versions)
    return pd.DataFrame({
        "sha256": [f"{place:064x}" for place in range(count)],
        "family": [f"{place // 6} {place % 3 == 1}" for place in range(count)],
        "prediction_version": versions, "blind": [not version for version in versions],
        "split": ["train" if version else "test" for version in versions],
        "lead_time_s": [usual[version] * (1 + 0.02 * (place % 5)) for place, version in enumerate(versions)],
        "updated_at": [f"2026-{1 + place // 24:02}-01T{place % 24:02}:00:00+00:00" for place in range(count)],
        "annotators": [[f"labeler-{place % 2}"] for place in range(count)],
        "annotations": [[str(place)] for place in range(count)],
        "label_pixels": ['{"coat": 30, "dress": 20}'] * count,
        "regions_untouched": [int(bool(version)) for version in versions], "regions_changed": [0] * count,
        "regions_manual": [1 if version else 2 for version in versions],
        "regions_deleted": [int(version == "clothing:v1") for version in versions],
        "prelabel_pixels": ['{"": [80, 70, 70], "coat": [20, 30, 20]}' if version else "" for version in versions],
    })  # fmt: skip


@pytest.fixture
def archive_bucket(bucket_client: Client) -> str:
    """A bucket of the test's own."""
    name = f"archive-{uuid4().hex[:12]}"
    ensure_bucket(bucket_client, name)
    return name


@pytest.fixture
def annotated_photo(
    bucket_client: Client, archive_bucket: str, annotate: Callable[..., Annotation]
) -> Callable[..., Annotation]:
    """Put a photo of a shade into the bucket and annotate it."""

    def make(uuid: str, shade: int, rows: Mapping[str, slice] | None = None, **fields: Any) -> Annotation:
        data = io.BytesIO()
        Image.fromarray(np.full((30, 20, 3), shade, np.uint8)).save(data, "PNG")
        ref = put(bucket_client, archive_bucket, f"{uuid}.png", data.getvalue(), "image/png")
        image = ImageRef(ref.uri, ref.generation, sha256_hex(data.getvalue()), 30, 20)
        return annotate(uuid, {"coat": slice(5, 20)} if rows is None else rows, image=image, **fields)

    return make


@pytest.fixture
def empty_bucket(bucket_client: Client) -> str:
    """A bucket of its own on the test's bucket server."""
    name = f"bucket-{uuid4().hex[:12]}"
    ensure_bucket(bucket_client, name)
    return name


@pytest.fixture
def project_workspace(tmp_path: Path, bucket_server: str, bucket_client: Client) -> Workspace:
    """A workspace of the code as it is in this folder, committed or not, with a git remote and a dataset bucket."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "pipelines", project / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".dvc/config", ".dvc/.gitignore", "data/.gitignore", "dvc.yaml", "params.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, project / name)
    for command in ("init --quiet", "add --all", "-c user.name=Ada -c user.email=ada@x.org commit --quiet -m Start"):
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    settings = Settings(
        _env_file=None, var=tmp_path / "var", storage_emulator=True, host="127.0.0.1",
        storage_port=int(bucket_server.rpartition(":")[2]), dvc_bucket=f"datasets-{uuid4().hex[:12]}",
        git_remote=str(tmp_path / "remote.git"),
    )  # fmt: skip
    ensure_bucket(bucket_client, settings.dvc_bucket)
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure(project)
    return workspace


@pytest.fixture
def unchecked_workspace(project_workspace: Workspace) -> Workspace:
    """A workspace whose datasets are not checked, for tests of something else: a check is half of a sync's time."""
    path = project_workspace.path / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["check"]["severity"] = dict.fromkeys(document["check"]["severity"], "off")
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    project_workspace.git("commit", "--quiet", "--all", "-m", "No checks")
    return project_workspace


@pytest.fixture
def registry(empty_mlflow: str, monkeypatch: pytest.MonkeyPatch) -> "Registry":
    """The registry of an MLflow without runs and models."""
    from pipelines.models.registry import Registry

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model puts the code it carries in front
    return Registry(Settings(mlflow_url=empty_mlflow))


@pytest.fixture
def add_version(registry: "Registry") -> Callable[..., ModelVersion]:
    """Add a version without any files; keywords are tags of the version, `miou` is its test mIoU."""

    def add(miou: float = 0.5, **tags: str) -> ModelVersion:
        client = registry.client
        found = client.get_experiment_by_name(registry.name)
        run = client.create_run(found.experiment_id if found else client.create_experiment(registry.name)).info.run_id
        client.log_metric(run, "test_miou", miou)
        if not registry.versions():
            client.create_registered_model(registry.name)
        named = {f"maskloop.{name}": value for name, value in {"dataset": "dataset-0001", **tags}.items()}
        made = client.create_model_version(registry.name, f"runs:/{run}/network", run, tags=named)
        version = registry.version(str(made.version))
        assert version is not None
        return version

    return add
