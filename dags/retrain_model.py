"""Retrain: a new dataset version is trained on, and the model is promoted if it is better than the champion.

Steps: decide → train → evaluate → gate → promote, woken by the dataset and every hour. Each is safe to kill and to run
again.
"""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import fails_at_once_when_people_must_act, note_on_run, tell_people, tell_people_that

RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=20), "retry_exponential_backoff": True}


@dag(
    schedule=AssetOrTimeSchedule(  # by the clock as well: an event may be lost, or MLflow may have been down for long
        timetable=CronTriggerTimetable("20 * * * *", timezone="UTC"), assets=[assets.dataset]
    ),
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
    def decide() -> str:
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.settings import get_settings
        from pipelines.training.pipeline import dataset_to_train

        with fails_at_once_when_people_must_act():
            dataset = dataset_to_train(get_settings())
        if dataset is None:
            raise AirflowSkipException("nothing to train on, or too little that is new; the line above says which")
        return dataset

    @task(execution_timeout=timedelta(hours=20), **(RETRIES | {"retries": 2}))
    def train(dataset: str) -> str:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import train

        with fails_at_once_when_people_must_act():
            train(get_settings(), dataset)
        return dataset

    @task(execution_timeout=timedelta(hours=4), **RETRIES)
    def evaluate(dataset: str) -> str:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import evaluate

        with fails_at_once_when_people_must_act():
            evaluate(get_settings(), dataset)
        return dataset

    @task(execution_timeout=timedelta(hours=2), **RETRIES)  # MLflow may be down; the training's results wait on disk
    def gate(dataset: str) -> dict:
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.settings import get_settings
        from pipelines.training.pipeline import outcome, put_before_gate

        settings = get_settings()
        with fails_at_once_when_people_must_act():
            version, reason = put_before_gate(settings, dataset)
        if not version.is_complete:
            steps = f"{version.done_steps} of {version.planned_steps} steps"
            tell_people_that(f"the training of {version.served_as} on {dataset} was cut short after {steps}")
        if reason is None:
            said = outcome(settings, version)
            note_on_run(said)
            raise AirflowSkipException(said)
        return {"number": version.version, "dataset": dataset, "reason": reason}

    @task(outlets=[assets.model], execution_timeout=timedelta(minutes=15), **RETRIES)
    def promote(winner: dict, *, outlet_events: dict) -> dict:
        from pipelines.settings import get_settings
        from pipelines.training.pipeline import outcome, promote_winner

        settings = get_settings()
        with fails_at_once_when_people_must_act():
            version = promote_winner(settings, winner["number"], winner["reason"])
        note_on_run(outcome(settings, version))
        outlet_events[assets.model].extra = {"model": version.served_as, "dataset": winner["dataset"]}
        return {"model": version.served_as, "test_miou": version.miou, "reason": version.reason}

    promote(gate(evaluate(train(decide()))))


retrain_model()
