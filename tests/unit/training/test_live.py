"""Figures in MLflow while a training runs: real times and steps, and no training that MLflow could stop."""

import math
import time

import pytest
from mlflow import MlflowClient

from pipelines.dataset.dataset import Dataset
from pipelines.params import Params
from pipelines.training.live import LiveLog
from pipelines.training.train import train

Splits = dict[str, list[str]]


@pytest.fixture
def run_in_mlflow(empty_mlflow: str, monkeypatch: pytest.MonkeyPatch) -> tuple[MlflowClient, str]:
    """A run that the environment names, as the pipeline gives it to the stage."""
    client = MlflowClient(empty_mlflow)
    run = client.create_run(client.create_experiment("clothing"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", empty_mlflow)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    return client, run.info.run_id


def test_metrics_have_their_time_and_their_step(run_in_mlflow: tuple[MlflowClient, str]) -> None:
    client, run_id = run_in_mlflow
    before = time.time() * 1000

    with LiveLog() as live:
        live.log(4, {"train_loss": 2.5, "val_miou": math.nan})
        live.log(8, {"train_loss": 1.5, "val_miou": 0.25})

    loss, miou = (client.get_metric_history(run_id, name) for name in ("train_loss", "val_miou"))
    assert [(point.step, point.value) for point in loss] == [(4, 2.5), (8, 1.5)]
    assert [(point.step, point.value) for point in miou] == [(8, 0.25)]
    assert all(before - 1 <= point.timestamp <= time.time() * 1000 for point in loss)


def test_a_training_shows_how_far_it_is(
    run_in_mlflow: tuple[MlflowClient, str], dataset: Dataset, small_training: Params
) -> None:
    client, run_id = run_in_mlflow

    train(dataset, small_training)

    assert [point.value for point in client.get_metric_history(run_id, "steps_done")] == [1, 2, 3, 4]
    logged = client.get_run(run_id).data.metrics
    assert logged["steps_planned"] == 4
    assert set(logged) == {"train_loss", "val_miou", "learning_rate", "steps_done", "steps_planned"}


def test_a_server_that_cannot_be_reached_is_named_once_and_stops_nothing(
    free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with LiveLog() as live:
        for step in range(3):
            live.log(step, {"train_loss": 1.0})

    assert caplog.text.count("metrics of this training cannot be logged in MLflow") == 1


def test_without_a_run_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(LiveLog, "_send", lambda *_: pytest.fail("there is no run"))

    with LiveLog() as live:
        live.log(1, {"train_loss": 1.0})
