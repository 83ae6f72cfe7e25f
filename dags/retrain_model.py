"""Stations 4 and 5: a new dataset version is trained, compared with the champion, and promoted if it is better.

Woken by the dataset, and looked after every hour.
"""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import fails_at_once_when_people_must_act, note_on_run, tell_people, tell_people_that


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
    """Train what was not trained yet, register it, and move the alias."""

    @task(retries=2, retry_delay=timedelta(seconds=20), execution_timeout=timedelta(hours=20))
    def train_newest() -> str:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.settings import get_settings
        from pipelines.training.pipeline import dataset_to_train, train

        settings = get_settings()
        bucket = GCSHook(gcp_conn_id=settings.google_connection).get_conn()
        with fails_at_once_when_people_must_act():
            dataset = dataset_to_train(bucket, settings)
        if dataset is None:
            raise AirflowSkipException("nothing to train on, or too little that is new; the line above says which")
        with fails_at_once_when_people_must_act():
            train(settings, dataset)
        return dataset

    @task(
        outlets=[assets.model],
        retries=3,  # MLflow may be down for a while; the training's results wait on disk
        retry_delay=timedelta(seconds=20),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=1),
    )
    def register_and_promote(dataset: str, *, outlet_events: dict) -> dict:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.settings import get_settings
        from pipelines.training.pipeline import outcome, register

        settings = get_settings()
        bucket = GCSHook(gcp_conn_id=settings.google_connection).get_conn()
        with fails_at_once_when_people_must_act():
            version = register(bucket, settings, dataset)
        if not version.is_complete:
            steps = f"{version.done_steps} of {version.planned_steps} steps"
            tell_people_that(f"the training of {version.served_as} on {dataset} was cut short after {steps}")
        said = outcome(settings, version)
        note_on_run(said)
        if not version.promoted:
            raise AirflowSkipException(said)
        outlet_events[assets.model].extra = {"model": version.served_as, "dataset": dataset}
        return {"model": version.served_as, "test_miou": version.miou, "reason": version.reason}

    register_and_promote(train_newest())


retrain_model()
