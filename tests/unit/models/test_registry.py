"""Trainings in MLflow: a run from the first step on, and a version once, whatever is killed or repeated."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipelines.dataset.files import CURVES, MANIFEST, METRICS, MODEL, PROPOSALS, REPORT, STEPS
from pipelines.errors import ServiceError
from pipelines.models.registry import Registry
from pipelines.models.run import Training
from pipelines.params import Params
from pipelines.segmentation.model import CARD, WEIGHTS
from pipelines.segmentation.proposals import Seconds, load_proposals
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.training.acceptance import fit_proposals, region_table

PHOTO = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture
def trained(model_that_sees_coats: Path, tmp_path: Path) -> Training:
    """What a training leaves in its folder."""
    folder = tmp_path / "training"
    copytree(model_that_sees_coats, folder / MODEL)
    (folder / REPORT).mkdir()
    (folder / REPORT / "confusion.png").write_bytes(b"picture")
    (folder / CURVES).write_text("epoch,train_loss,val_miou\n0,1.5,\n1,0.9,0.4\n")
    coat = {"iou": 0.7, "dice": 0.8, "photos": 3}
    (folder / METRICS).write_text(json.dumps({"miou": 0.61, "mean_dice": 0.7, "per_class": {"coat": coat}}))
    copy(PROJECT_ROOT / "params.yaml", folder / "params.yaml")
    return Training(folder, "dataset-0003", "f" * 40, "+3 photos")


def test_a_training_is_registered_once(registry: Registry, trained: Training, params: Params) -> None:
    first = registry.register(trained, params, PHOTO)
    again = registry.register(trained, params, PHOTO)

    assert first == again
    assert (first.served_as, first.dataset, first.miou) == ("clothing:v1", "dataset-0003", 0.61)
    assert len(registry.client.search_model_versions("name = 'clothing'")) == 1


def test_the_same_weights_on_another_dataset_are_another_version(
    registry: Registry, trained: Training, params: Params
) -> None:
    registry.register(trained, params, PHOTO)

    later = replace(trained, dataset="dataset-0004", revision="e" * 40)

    assert registry.register(later, params, PHOTO).version == 2
    assert registry.version_trained_on("dataset-0003").version == 1
    assert registry.version_trained_on("dataset-0004").version == 2
    assert registry.version_trained_on("dataset-0005") is None


def test_a_run_that_got_no_version_is_taken_up(registry: Registry, trained: Training, params: Params) -> None:
    """As after a kill between the two."""
    killed = registry.register(trained, params, PHOTO)
    registry.client.delete_model_version("clothing", str(killed.version))

    assert registry.register(trained, params, PHOTO).run_id == killed.run_id


def test_a_run_that_broke_off_is_marked_and_not_taken_up(registry: Registry, trained: Training, params: Params) -> None:
    curves = (trained.folder / CURVES).read_text()
    (trained.folder / CURVES).unlink()
    with pytest.raises(FileNotFoundError):
        registry.register(trained, params, PHOTO)

    (trained.folder / CURVES).write_text(curves)
    version = registry.register(trained, params, PHOTO)

    experiment = registry.client.get_experiment_by_name("clothing").experiment_id
    runs = {run.info.run_id: run.info.status for run in registry.client.search_runs([experiment])}
    assert sorted(runs.values()) == ["FAILED", "FINISHED"]
    assert runs[version.run_id] == "FINISHED"


def test_a_run_that_was_killed_is_marked_so(registry: Registry, trained: Training, params: Params) -> None:
    experiment = registry.client.create_experiment("clothing")
    killed = registry.client.create_run(experiment, tags={"maskloop.fingerprint": trained.fingerprint})
    of_another = registry.client.create_run(experiment, tags={"maskloop.fingerprint": "other"})
    yesterday = int((time.time() - 86400) * 1000)
    left = registry.client.create_run(experiment, start_time=yesterday, tags={"maskloop.fingerprint": "older"})
    somebody_elses = registry.client.create_run(experiment, start_time=yesterday)

    registry.register(trained, params, PHOTO)

    assert registry.client.get_run(killed.info.run_id).info.status == "KILLED"
    assert registry.client.get_run(left.info.run_id).info.status == "KILLED"
    for other in (of_another, somebody_elses):
        assert registry.client.get_run(other.info.run_id).info.status == "RUNNING"


def test_a_run_holds_parameters_metrics_curves_and_lineage(
    registry: Registry, trained: Training, params: Params, tmp_path: Path
) -> None:
    version = registry.register(trained, params, PHOTO)

    data = registry.client.get_run(version.run_id).data
    assert data.params["train.architecture"] == params.train.architecture
    assert (data.metrics["test_miou"], data.metrics["iou/coat"], data.metrics["train_loss"]) == (0.61, 0.7, 0.9)
    assert data.tags["maskloop.dataset_revision"] == trained.revision
    assert [point.step for point in registry.client.get_metric_history(version.run_id, "val_miou")] == [1]
    network = registry.download(version, tmp_path / "download")
    assert sorted(path.name for path in network.iterdir()) == [CARD, WEIGHTS]
    assert (network / WEIGHTS).read_bytes() == (trained.folder / MODEL / WEIGHTS).read_bytes()


def open_training(trained: Training, revision: str = "f" * 40) -> Training:
    """The same training before it has a result."""
    (trained.folder / MODEL).rename(trained.folder / "not yet")
    return replace(trained, revision=revision)


def finish(training: Training) -> None:
    (training.folder / "not yet").rename(training.folder / MODEL)


def status_of(registry: Registry, run_id: str) -> str:
    return str(registry.client.get_run(run_id).info.status)


def test_a_run_is_there_while_the_training_goes_on_and_is_completed(
    registry: Registry, trained: Training, params: Params
) -> None:
    training = open_training(trained)
    began = int(time.time() * 1000)
    run_id = registry.begin_run(training, params)

    begun = registry.client.get_run(run_id)
    assert (begun.info.status, begun.data.params["train.lr"]) == ("RUNNING", str(params.train.lr))
    assert begun.data.tags["mlflow.source.git.commit"] == training.revision
    assert began <= begun.info.start_time

    registry.client.log_metric(run_id, "train_loss", 1.4, timestamp=began + 5, step=0)
    finish(training)
    os.utime(training.folder / METRICS, times=(began / 1000 + 120, began / 1000 + 120))
    registry.note_result(run_id, training)
    version = registry.register(training, params, PHOTO)

    done = registry.client.get_run(run_id)
    assert (version.run_id, done.info.status) == (run_id, "FINISHED")
    assert 118_000 < done.info.end_time - done.info.start_time <= 120_000, "the duration is the training's"
    assert done.data.tags["maskloop.minutes"] == "2"
    points = registry.client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in points] == [(0, 1.4), (1, 0.9)], "what was seen live is kept"
    assert all(began <= point.timestamp <= began + 121_000 for point in points)


def test_a_training_that_was_killed_is_marked_and_the_next_one_has_a_run_of_its_own(
    registry: Registry, trained: Training, params: Params
) -> None:
    training = open_training(trained)
    killed, next_one = (registry.begin_run(training, params) for _ in range(2))

    assert killed != next_one
    assert (status_of(registry, killed), status_of(registry, next_one)) == ("KILLED", "RUNNING")


def test_the_result_of_an_attempt_that_was_not_registered_goes_into_its_run(
    registry: Registry, trained: Training, params: Params
) -> None:
    """As when MLflow was down between the training and its registration, and the pipeline is run again."""
    training = open_training(trained)
    run_id = registry.begin_run(training, params)
    finish(training)
    registry.note_result(run_id, training)

    assert registry.begin_run(training, params) == run_id
    assert registry.register(training, params, PHOTO).run_id == run_id


def test_a_registration_that_mlflow_broke_off_goes_on_in_the_same_run(
    registry: Registry, trained: Training, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> str:
        raise MlflowException("the connection was reset")

    with monkeypatch.context() as broken:
        broken.setattr("pipelines.models.run._log_model", breaks)
        with pytest.raises(ServiceError, match="the connection was reset"):
            registry.register(trained, params, PHOTO)
    version = registry.register(trained, params, PHOTO)

    experiment = registry.client.get_experiment_by_name("clothing").experiment_id
    assert [run.info.run_id for run in registry.client.search_runs([experiment])] == [version.run_id]
    for name, steps in (("test_miou", [0]), ("train_loss", [0, 1])):
        points = registry.client.get_metric_history(version.run_id, name)
        assert [point.step for point in points] == steps, "nothing is logged twice"


def test_a_training_that_failed_is_marked(registry: Registry, trained: Training, params: Params) -> None:
    run_id = registry.begin_run(open_training(trained), params)

    registry.end_failed_run(run_id)

    assert status_of(registry, run_id) == "FAILED"


def test_a_repeated_request_leaves_one_run(
    registry: Registry, trained: Training, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client asks again when an answer was lost, and the server may have done it twice."""
    create_run = registry.client.create_run

    def twice(*arguments: Any, **fields: Any) -> Run:
        create_run(*arguments, **fields)
        return create_run(*arguments, **fields)

    monkeypatch.setattr(registry.client, "create_run", twice)
    run_id = registry.begin_run(open_training(trained), params)

    experiment = registry.client.get_experiment_by_name("clothing").experiment_id
    assert [run.info.run_id for run in registry.client.search_runs([experiment])] == [run_id]


def test_a_run_names_its_dataset_with_the_photos_of_each_split(
    registry: Registry, trained: Training, params: Params
) -> None:
    (trained.folder / MANIFEST).parent.mkdir()
    pd.DataFrame({"split": ["train"] * 5 + ["val"] * 2 + ["test"] * 3}).to_parquet(trained.folder / MANIFEST)
    digest = hashlib.md5((trained.folder / MANIFEST).read_bytes()).hexdigest()
    training = replace(open_training(trained), cache="gs://datasets/dvc/files/md5")

    [logged] = registry.client.get_run(registry.begin_run(training, params)).inputs.dataset_inputs

    assert (logged.dataset.name, logged.dataset.digest) == ("dataset-0003", digest[:8])
    assert json.loads(logged.dataset.profile) == {"train": 5, "val": 2, "test": 3}
    assert json.loads(logged.dataset.source) == {"uri": f"gs://datasets/dvc/files/md5/{digest[:2]}/{digest[2:]}"}


def test_steps_are_noted_with_run_and_version(registry: Registry, trained: Training, params: Params) -> None:
    steps = {"planned_steps": 160, "done_steps": 23, "ended_by": "minutes", "started_from": "clothing:v1"}
    (trained.folder / STEPS).write_text(json.dumps(steps))

    version = registry.register(trained, params, PHOTO)

    assert (version.done_steps, version.planned_steps, version.ended_by) == (23, 160, "minutes")
    assert registry.client.get_run(version.run_id).data.tags["maskloop.steps"] == "23/160"
    assert registry.client.get_model_version("clothing", "1").tags["maskloop.started_from"] == "clothing:v1"


def test_what_decides_which_regions_are_shown_travels_with_the_network(
    registry: Registry, trained: Training, params: Params, tmp_path: Path
) -> None:
    proposals = fit_proposals(region_table([]), Seconds.from_params(params.effort), params.effort)
    (trained.folder / PROPOSALS).write_text(proposals.as_json())

    version = registry.register(trained, params, PHOTO)

    assert load_proposals(registry.download(version, tmp_path / "download")) == proposals


@pytest.fixture
def registry_that_is_down(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Registry(Settings(mlflow_url=f"http://127.0.0.1:{free_port}"))


def test_a_server_that_is_down_is_named_with_the_remedy(
    registry_that_is_down: Registry, trained: Training, params: Params
) -> None:
    for ask in (
        registry_that_is_down.champion,
        lambda: registry_that_is_down.version_trained_on("dataset-0001"),
        lambda: registry_that_is_down.register(trained, params, PHOTO),
    ):
        with pytest.raises(ServiceError, match="MASKLOOP_MLFLOW_URL"):
            ask()
