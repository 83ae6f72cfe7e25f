"""The tasks of the click model, which follow those of the clothing model in the same run."""

from datetime import timedelta
from typing import Any

from airflow.sdk import task
from callbacks import RETRIES, no_retry_on_user_error, skip


# Once the clothing model is through, whatever became of it; not when there was nothing to train on.
@task(execution_timeout=timedelta(hours=16), trigger_rule="none_failed_min_one_success", **(RETRIES | {"retries": 2}))
@no_retry_on_user_error()
def train_clicks(dataset: str) -> str:
    """Train on the dataset of the run, beginning with the clothing model's weights."""
    from pipelines.settings import get_settings
    from pipelines.training.clicks_pipeline import train

    why = train(get_settings(), dataset)
    return skip(f"no click model is trained: {why}") if why else dataset


@task(execution_timeout=timedelta(hours=4), **RETRIES)
@no_retry_on_user_error()
def evaluate_clicks(dataset: str) -> str:
    """Measure how many clicks the model and GrabCut need."""
    from pipelines.settings import get_settings
    from pipelines.training.clicks_pipeline import evaluate

    evaluate(get_settings(), dataset)
    return dataset


@task(execution_timeout=timedelta(hours=2), **RETRIES)
@no_retry_on_user_error()
def gate_clicks(dataset: str) -> dict:
    """Register the model, compare it with what answers now, and note who answers what."""
    from pipelines.settings import get_settings
    from pipelines.training.clicks_pipeline import put_before_gate

    version, reason = put_before_gate(get_settings(), dataset)
    if reason is None:
        skip(f"{version.served_as} stays challenger: {version.reason}")
    return {"number": version.version, "reason": reason}


@task(execution_timeout=timedelta(minutes=15), **RETRIES)
@no_retry_on_user_error()
def promote_clicks(winner: dict) -> str:
    """Move the alias, and tell the service that answers clicks."""
    from pipelines.settings import get_settings
    from pipelines.training.clicks_pipeline import promote_winner

    return promote_winner(get_settings(), winner["number"], winner["reason"]).served_as


def click_model(dataset: Any, clothing_model: Any) -> None:
    """Chain the tasks for the dataset that a task returns, after the gate of the clothing model."""
    trained = train_clicks(dataset)
    clothing_model >> trained
    promote_clicks(gate_clicks(evaluate_clicks(trained)))
