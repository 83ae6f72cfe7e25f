"""The retrain pipeline on real git, DVC, a bucket server and an MLflow: from a dataset's tag to a decision."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import START
from pipelines.dataset.mirror import SyncState, reconcile
from pipelines.dataset.pipeline import build_dataset, lay_out_version_before, publish_dataset
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, ServiceError
from pipelines.gcs.client import ensure_bucket
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.models.reader import NETWORK
from pipelines.models.registry import Registry
from pipelines.models.trainings import lay_out_start
from pipelines.params import Params
from pipelines.records import Annotation, ModelVersion
from pipelines.segmentation.model import WEIGHTS
from pipelines.settings import Settings
from pipelines.training.pipeline import (
    dataset_to_train,
    evaluate,
    outcome,
    promote_winner,
    put_before_gate,
    train,
)
from tests.unit.training.conftest import SMALLEST

TINY = {
    **SMALLEST, "encoder_weights": "none",
    "epochs": 1, "min_steps": 0, "max_steps": 2, "image_height": 32, "image_width": 32, "batch_size": 2,
    "predict_mirrored": False,
}  # fmt: skip
# A mask takes longer than drawing by hand, so that no model saves anybody time, however few photos happen to suit it.
NO_MASK_PAYS = {"accept": 100, "correct": 100}


@pytest.fixture
def settings(unchecked_workspace: Workspace, empty_mlflow: str, bucket_client: Client) -> Settings:
    target = f"target-{uuid4().hex[:12]}"
    ensure_bucket(bucket_client, target)
    return unchecked_workspace.settings.model_copy(update={"mlflow_url": empty_mlflow, "target_bucket": target})


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture
def dataset(
    unchecked_workspace: Workspace,
    settings: Settings,
    bucket_client: Client,
    annotated_photo: Callable[..., Annotation],
) -> str:
    """A published version of fourteen photos, each a group of its own, with a training of two steps."""
    workspace = unchecked_workspace
    path = workspace.path / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["train"] |= TINY
    document["effort"] |= NO_MASK_PAYS
    document["evaluate"] |= {"overlays": 1, "resamples": 100}
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    workspace.git("commit", "--quiet", "--all", "-m", "Train small")
    kept = [
        annotated_photo(f"photo-{number}", 10 * number, metadata={"collection": str(number)}, prediction_version="")
        for number in range(14)
    ]
    tasks = frozenset(annotation.task_id for annotation in kept)
    changes = Changes(tuple(kept), tasks, frozenset(), TaskCursor(tasks, None))
    state = reconcile(bucket_client, Dataset(workspace.path), SyncState("p"), changes)
    assert state is not None
    state.write(settings.var / "sync.json")
    lay_out_version_before(workspace)
    build_dataset(bucket_client, settings, "split")
    version = publish_dataset(bucket_client, settings)
    assert version is not None
    return version.tag


def judge(settings: Settings, dataset: str) -> ModelVersion:
    """Evaluate what was trained, put it before the gate, and promote it if the gate says so."""
    evaluate(settings, dataset)
    version, reason = put_before_gate(settings, dataset)
    return version if reason is None else promote_winner(settings, version.version, reason)


def runs_of(registry: Registry) -> dict[str, str]:
    experiment = registry.client.get_experiment_by_name("clothing").experiment_id
    return {run.info.run_id: run.info.status for run in registry.client.search_runs([experiment])}


def test_a_training_is_seen_while_it_goes_on_then_registered_and_judged(
    settings: Settings, registry: Registry, dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert dataset_to_train(settings, again=True) == dataset

    train(settings, dataset)

    [(run_id, status)] = runs_of(registry).items()
    assert status == "RUNNING"
    live = registry.client.get_metric_history(run_id, "train_loss")
    assert [point.step for point in live] == [1, 2], "the stage itself logged them"

    version = judge(settings, dataset)

    done = registry.client.get_run(run_id)
    assert (version.run_id, done.info.status, runs_of(registry)) == (run_id, "FINISHED", {run_id: "FINISHED"})
    assert registry.client.get_metric_history(run_id, "train_loss") == live
    assert done.data.tags["maskloop.steps"] == "2/2"
    assert done.inputs.dataset_inputs[0].dataset.name == dataset
    assert {"gate.json", "gate.md", "report.html", "metrics.json", "network"} <= {
        file.path for file in registry.client.list_artifacts(run_id)
    }
    assert not version.promoted, "no mask pays"
    assert outcome(settings, version).startswith("clothing:v1 stays challenger: first model: test mIoU")

    registry.client.delete_model_version_tag("clothing", "1", "maskloop.decision")  # as after a kill at the gate
    with caplog.at_level(logging.INFO):
        assert dataset_to_train(settings) == dataset
        train(settings, dataset)
    assert "only its comparison is missing" in caplog.text
    assert judge(settings, dataset) == version

    leave_a_step_undone(registry, version)
    assert dataset_to_train(settings) == dataset, "whatever is new"
    train(settings, dataset)
    goes_on = judge(settings, dataset)
    assert (goes_on.version, goes_on.done_steps, goes_on.planned_steps) == (2, 2, 2)
    assert registry.ancestors(goes_on)[0][0].version == 1
    live = registry.client.get_metric_history(goes_on.run_id, "train_loss")
    assert [point.step for point in live] == [2], "the step that was missing"


def test_nothing_is_trained_on_a_dataset_that_has_no_photo_to_judge_by(
    settings: Settings, dataset: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    manifest = Published.manifest
    monkeypatch.setattr(Published, "manifest", lambda self, tag: manifest(self, tag).assign(split="train"))
    caplog.set_level(logging.INFO)

    assert dataset_to_train(settings) is None

    assert "14 photos to train on and 0 to judge by" in caplog.text


def leave_a_step_undone(registry: Registry, version: ModelVersion) -> None:
    """Make a version look as if the minutes had ended its training after the first of two steps."""
    steps = {"planned_steps": 2, "done_steps": 1, "ended_by": "minutes", "started_from": "", "steps_before": 0}
    registry.client.log_text(version.run_id, json.dumps(steps), f"{NETWORK}/training.json")
    registry.tag(version, {"maskloop.steps": "1/2", "maskloop.ended_by": "minutes"})


def test_while_mlflow_is_down_it_trains_and_the_registration_makes_up_for_it(
    settings: Settings, registry: Registry, dataset: str, free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train(settings.model_copy(update={"mlflow_url": f"http://127.0.0.1:{free_port}"}), dataset)
    assert registry.client.get_experiment_by_name("clothing") is None

    version = judge(settings, dataset)

    [(run_id, status)] = runs_of(registry).items()
    assert (version.run_id, status) == (run_id, "FINISHED")
    assert [point.step for point in registry.client.get_metric_history(run_id, "train_loss")] == [1, 2]


def test_a_training_that_fails_is_marked_in_mlflow(
    unchecked_workspace: Workspace,
    settings: Settings,
    registry: Registry,
    dataset: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dvc = Workspace.dvc

    def fails(workspace: Workspace, *arguments: str, **options: object) -> str:
        if arguments[0] == "repro":
            raise DatasetError("the loss is nan at step 1 of 2")
        return run_dvc(workspace, *arguments, **options)  # type: ignore[arg-type]  # handed on as they come

    monkeypatch.setattr(Workspace, "dvc", fails)
    with pytest.raises(DatasetError, match="the loss is nan"):
        train(settings, dataset)

    assert list(runs_of(registry).values()) == ["FAILED"]


@pytest.fixture
def cut_short(registry: Registry, model_that_sees_coats: Path) -> ModelVersion:
    """A version whose training did 23 of 160 steps."""
    client = registry.client
    run = client.create_run(client.create_experiment("clothing")).info.run_id
    client.log_artifacts(run, str(model_that_sees_coats), NETWORK)
    client.log_text(run, json.dumps({"done_steps": 23, "planned_steps": 160, "ended_by": "minutes"}),
                    f"{NETWORK}/training.json")  # fmt: skip
    client.create_registered_model("clothing")
    tags = {"maskloop.dataset": "dataset-0001", "maskloop.steps": "23/160", "maskloop.ended_by": "minutes"}
    client.create_model_version("clothing", f"runs:/{run}/{NETWORK}", run, tags=tags)
    registry.note_decision(registry.version("1"), "cut short")
    return registry.version("1")


def test_a_training_that_was_cut_short_goes_on(
    unchecked_workspace: Workspace, settings: Settings, registry: Registry, cut_short: ModelVersion, params: Params,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for tag in ("dataset-0001", "dataset-0002"):
        unchecked_workspace.git("tag", "--annotate", "-m", "+1 photos", tag)
    folder = unchecked_workspace.path / START

    with caplog.at_level(logging.INFO):
        assert dataset_to_train(settings) == "dataset-0002"
    lay_out_start(registry, unchecked_workspace.path, params)

    assert "clothing:v1 was cut short after 23 of 160 steps and goes on" in caplog.text
    steps = json.loads((folder / "training.json").read_text())
    assert (steps["version"], steps["done_steps"], steps["ended_by"]) == ("clothing:v1", 23, "minutes")
    assert (folder / WEIGHTS).exists()
    assert outcome(settings, cut_short) == "clothing:v1 cut short 23/160 steps, goes on next time"

    registry.tag(cut_short, {"maskloop.steps": "160/160"})
    lay_out_start(registry, unchecked_workspace.path, params)
    assert not list(folder.glob("[!.]*")), "a training that starts from scratch finds nothing"


def test_a_training_that_starts_from_the_champion_needs_mlflow(
    params: Params, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = Registry(Settings(mlflow_url=f"http://127.0.0.1:{free_port}"))
    from_champion = params.model_copy(update={"train": params.train.model_copy(update={"start": "champion"})})

    lay_out_start(down, tmp_path, params)
    with pytest.raises(ServiceError, match="MASKLOOP_MLFLOW_URL"):
        lay_out_start(down, tmp_path, from_champion)


def test_a_paused_champion_is_told_with_what_became_of_a_challenger(
    settings: Settings, registry: Registry, cut_short: ModelVersion
) -> None:
    registry.promote(cut_short, "first model")
    registry.pause(cut_short, "masks cost 20 s per photo")
    refused = ModelVersion("clothing", 2, "run", "dataset-0002", 0.5, reason="no gain")

    assert outcome(settings, refused) == (
        "clothing:v2 stays challenger: no gain; the champion clothing:v1 is paused and draws no masks: "
        "masks cost 20 s per photo"
    )
