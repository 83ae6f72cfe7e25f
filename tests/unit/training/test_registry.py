"""The registry: a training is registered once, the champion moves by alias, and the model loads by its name."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import copy, copytree

import mlflow
import numpy as np
import pytest

from pipelines.dataset.files import CURVES, METRICS, MODEL, REPORT
from pipelines.errors import ModelError, ServiceError
from pipelines.params import Params
from pipelines.segmentation.clothing import CARD, WEIGHTS
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.training.registry import Registry
from pipelines.training.run import TrainedModel

EXAMPLE = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture
def registry(empty_mlflow: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model puts the code it carries in front
    return Registry(Settings(mlflow_url=empty_mlflow))


@pytest.fixture
def trained(model_that_sees_coats: Path, tmp_path: Path) -> TrainedModel:
    """What a training leaves in its folder."""
    folder = tmp_path / "training"
    copytree(model_that_sees_coats, folder / MODEL)
    (folder / REPORT).mkdir()
    (folder / REPORT / "confusion.png").write_bytes(b"picture")
    (folder / CURVES).write_text("epoch,train_loss,val_miou\n0,1.5,\n1,0.9,0.4\n")
    coat = {"iou": 0.7, "dice": 0.8, "photos": 3}
    (folder / METRICS).write_text(json.dumps({"miou": 0.61, "mean_dice": 0.7, "per_class": {"coat": coat}}))
    copy(PROJECT_ROOT / "params.yaml", folder / "params.yaml")
    return TrainedModel(folder, "dataset-0003", "f" * 40, "+3 photos")


def test_a_training_is_registered_once(registry: Registry, trained: TrainedModel, params: Params) -> None:
    first = registry.register(trained, params, EXAMPLE)
    again = registry.register(trained, params, EXAMPLE)

    assert first == again
    assert (first.served_as, first.dataset, first.miou) == ("clothing:v1", "dataset-0003", 0.61)
    assert len(registry.client.search_model_versions("name = 'clothing'")) == 1


def test_the_same_weights_on_another_dataset_are_another_version(
    registry: Registry, trained: TrainedModel, params: Params
) -> None:
    registry.register(trained, params, EXAMPLE)

    later = replace(trained, dataset="dataset-0004", revision="e" * 40)

    assert registry.register(later, params, EXAMPLE).version == 2
    assert registry.version_trained_on("dataset-0003").version == 1
    assert registry.version_trained_on("dataset-0004").version == 2
    assert registry.version_trained_on("dataset-0005") is None


def test_a_run_that_got_no_version_is_taken_up(registry: Registry, trained: TrainedModel, params: Params) -> None:
    """As after a kill between the two."""
    killed = registry.register(trained, params, EXAMPLE)
    registry.client.delete_model_version("clothing", str(killed.version))

    assert registry.register(trained, params, EXAMPLE).run_id == killed.run_id


def test_a_run_that_broke_off_is_marked_and_not_taken_up(
    registry: Registry, trained: TrainedModel, params: Params
) -> None:
    curves = (trained.folder / CURVES).read_text()
    (trained.folder / CURVES).unlink()
    with pytest.raises(FileNotFoundError):
        registry.register(trained, params, EXAMPLE)

    (trained.folder / CURVES).write_text(curves)
    version = registry.register(trained, params, EXAMPLE)

    experiment = registry.client.get_experiment_by_name("clothing").experiment_id
    runs = {run.info.run_id: run.info.status for run in registry.client.search_runs([experiment])}
    assert sorted(runs.values()) == ["FAILED", "FINISHED"]
    assert runs[version.run_id] == "FINISHED"


def test_a_run_that_was_killed_is_marked_so(registry: Registry, trained: TrainedModel, params: Params) -> None:
    experiment = registry.client.create_experiment("clothing")
    killed = registry.client.create_run(experiment, tags={"maskloop.fingerprint": trained.fingerprint})
    of_another = registry.client.create_run(experiment, tags={"maskloop.fingerprint": "other"})
    yesterday = int((time.time() - 86400) * 1000)
    left = registry.client.create_run(experiment, start_time=yesterday, tags={"maskloop.fingerprint": "older"})
    somebody_elses = registry.client.create_run(experiment, start_time=yesterday)

    registry.register(trained, params, EXAMPLE)

    assert registry.client.get_run(killed.info.run_id).info.status == "KILLED"
    assert registry.client.get_run(left.info.run_id).info.status == "KILLED"
    for other in (of_another, somebody_elses):
        assert registry.client.get_run(other.info.run_id).info.status == "RUNNING"


def test_a_run_holds_parameters_figures_curves_and_lineage(
    registry: Registry, trained: TrainedModel, params: Params, tmp_path: Path
) -> None:
    version = registry.register(trained, params, EXAMPLE)

    data = registry.client.get_run(version.run_id).data
    assert data.params["train.architecture"] == params.train.architecture
    assert (data.metrics["test_miou"], data.metrics["iou/coat"], data.metrics["train_loss"]) == (0.61, 0.7, 0.9)
    assert data.tags["maskloop.dataset_revision"] == trained.revision
    assert [point.step for point in registry.client.get_metric_history(version.run_id, "val_miou")] == [1]
    network = registry.download(version, tmp_path / "download")
    assert sorted(path.name for path in network.iterdir()) == [CARD, WEIGHTS]
    assert (network / WEIGHTS).read_bytes() == (trained.folder / MODEL / WEIGHTS).read_bytes()


def test_a_registered_model_loads_by_name_and_predicts(
    registry: Registry, trained: TrainedModel, params: Params
) -> None:
    registry.promote(registry.register(trained, params, EXAMPLE), "first")

    model = mlflow.pyfunc.load_model("models:/clothing@champion")

    masks = model.predict(np.zeros((2, 40, 50, 3), np.uint8))
    assert (masks.shape, masks.dtype) == ((2, 40, 50), np.uint8)
    assert (masks == 3).all()


def test_a_registered_model_runs_elsewhere_with_the_code_it_carries(
    registry: Registry, trained: TrainedModel, params: Params, tmp_path: Path
) -> None:
    registry.register(trained, params, EXAMPLE)
    script = """
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/clothing/1")
import pipelines
print(pipelines.__file__, model.predict(np.zeros((1, 40, 50, 3), np.uint8)).shape)
"""

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MLFLOW_TRACKING_URI": registry.url, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert done.stdout.strip().endswith("(1, 40, 50)")


def test_the_champion_moves_with_its_reason_and_its_predecessor(
    registry: Registry, trained: TrainedModel, params: Params
) -> None:
    assert registry.champion() is None
    first = registry.register(trained, params, EXAMPLE)
    assert registry.champion() is None
    second = registry.register(replace(trained, revision="e" * 40), params, EXAMPLE)

    registry.promote(first, "first model")
    registry.promote(second, "better")
    registry.promote(second, "a repeated request changes nothing")

    champion = registry.champion()
    assert (champion.version, champion.reason) == (2, "better")
    assert registry.client.get_model_version("clothing", "2").tags["maskloop.previous"] == "1"


def test_rolling_back_goes_from_champion_to_champion(registry: Registry, trained: TrainedModel, params: Params) -> None:
    versions = [registry.register(replace(trained, revision=letter * 40), params, EXAMPLE) for letter in "abc"]
    for version in versions:
        registry.promote(version, "better")

    served = [registry.roll_back()[1].version for _ in range(2)]

    assert served == [2, 1]
    assert registry.champion().version == 1
    assert registry.version("3").reason == "rolled back to clothing:v2 by hand; before: better"
    with pytest.raises(ModelError, match="clothing:v1 is the first champion"):
        registry.roll_back()


def test_without_a_champion_there_is_nothing_to_roll_back(registry: Registry) -> None:
    with pytest.raises(ModelError, match="clothing has no champion yet"):
        registry.roll_back()


def test_what_was_weighed_stands_with_run_and_version(
    registry: Registry, trained: TrainedModel, params: Params, tmp_path: Path
) -> None:
    version = registry.register(trained, params, EXAMPLE)

    registry.promote(version, "better", "| a table |")

    assert registry.client.get_model_version("clothing", "1").description == "| a table |"
    table = Path(registry.client.download_artifacts(version.run_id, "gate.md", str(tmp_path)))
    assert table.read_text() == "| a table |"


def test_a_refused_challenger_says_why(registry: Registry, trained: TrainedModel, params: Params) -> None:
    version = registry.register(trained, params, EXAMPLE)

    registry.note_decision(version, "no gain")

    assert registry.version_trained_on("dataset-0003").reason == "no gain"
    assert registry.champion() is None


@pytest.fixture
def registry_that_is_down(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Registry(Settings(mlflow_url=f"http://127.0.0.1:{free_port}"))


def test_a_server_that_is_down_is_named_with_the_remedy(
    registry_that_is_down: Registry, trained: TrainedModel, params: Params
) -> None:
    for ask in (
        registry_that_is_down.champion,
        lambda: registry_that_is_down.version_trained_on("dataset-0001"),
        lambda: registry_that_is_down.register(trained, params, EXAMPLE),
    ):
        with pytest.raises(ServiceError, match="MASKLOOP_MLFLOW_URL"):
            ask()
