"""Retrain: a new dataset version is trained on, and the model is promoted if it is better than the champion.

Steps: decide → train → evaluate → gate → promote, then those of the click model. Each is safe to kill and to run again.
"""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import RETRIES, no_retry_on_user_error, note_on_run, skip, tell_people, tell_people_that
from clicks import click_model


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("20 * * * *", timezone="UTC"), assets=[assets.dataset]),
    catchup=False,
    max_active_runs=1,  # never two trainings at once on one machine
    dagrun_timeout=timedelta(hours=24),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def retrain_model() -> None:
    """Train what was not trained yet, register it, compare it with the champion, and move the alias."""

    @task(execution_timeout=timedelta(minutes=15), **RETRIES)
    @no_retry_on_user_error()
    def decide() -> str:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import dataset_to_train

        return dataset_to_train(get_settings()) or skip("nothing, or too little that is new; the line above says which")

    @task(execution_timeout=timedelta(hours=16), **(RETRIES | {"retries": 2}))
    @no_retry_on_user_error()
    def train(dataset: str) -> str:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import train

        return train(get_settings(), dataset)

    @task(execution_timeout=timedelta(hours=4), **RETRIES)
    @no_retry_on_user_error()
    def evaluate(dataset: str) -> str:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import evaluate

        return evaluate(get_settings(), dataset)

    @task(execution_timeout=timedelta(hours=2), **RETRIES)  # MLflow may be down; the training's results wait on disk
    @no_retry_on_user_error()
    def gate(dataset: str) -> dict:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import outcome, put_before_gate

        version, reason = put_before_gate(get_settings(), dataset)
        said = outcome(get_settings(), version)
        if not version.is_complete:
            tell_people_that(said)
        if reason is None:
            note_on_run(said)
            skip(said)
        return {"number": version.version, "dataset": dataset, "reason": reason}

    @task(outlets=[assets.model], execution_timeout=timedelta(minutes=15), **RETRIES)
    @no_retry_on_user_error()
    def promote(winner: dict, *, outlet_events: dict) -> dict:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import outcome, promote_winner

        version = promote_winner(get_settings(), winner["number"], winner["reason"])
        note_on_run(outcome(get_settings(), version))
        outlet_events[assets.model].extra = {"model": version.served_as, "dataset": winner["dataset"]}
        return {"model": version.served_as, "test_miou": version.miou, "reason": version.reason}

    promote(decided := gate(evaluated := evaluate(train(decide()))))
    click_model(evaluated, decided)


retrain_model()
