"""Station 3: what people submitted becomes a dataset version; every half hour, or when an event says they did."""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import fails_at_once_when_people_must_act, note_on_run, tell_people

from pipelines.contract import WORKSPACE_POOL


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/30 * * * *", timezone="UTC"), assets=[assets.annotations]
    ),
    catchup=False,  # a run takes over everything since the last version
    max_active_runs=1,  # one writer per dataset; the workspace's lock holds for runs from the command line as well
    dagrun_timeout=timedelta(hours=6),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def sync_annotations() -> None:
    """Compile, check, push, verify, commit and tag; then tell MLflow what pre-labels were worth."""

    @task(
        outlets=[assets.dataset],
        pool=WORKSPACE_POOL,
        retries=3,
        retry_delay=timedelta(seconds=20),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=3),
    )
    def publish(*, outlet_events: dict) -> dict:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.dataset.pipeline import sync
        from pipelines.labelstudio.client import connect
        from pipelines.settings import get_settings

        settings = get_settings()
        bucket = GCSHook(gcp_conn_id=settings.google_connection).get_conn()
        with fails_at_once_when_people_must_act():
            version = sync(bucket, connect(settings), settings)
        if version is None:
            raise AirflowSkipException("nothing changed since the last dataset version")
        print(f"{version.tag}: {version.summary}")
        note_on_run(f"{version.tag}: {version.summary}")
        outlet_events[assets.dataset].extra = {"dataset": version.tag, "revision": version.revision}
        return {"dataset": version.tag, "revision": version.revision, "photos": version.photos}

    @task(retries=3, retry_delay=timedelta(seconds=20), execution_timeout=timedelta(minutes=10))
    def log_what_was_saved(published: dict) -> None:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook

        from pipelines.dataset.published import Published
        from pipelines.models.registry import Registry
        from pipelines.params import load_params
        from pipelines.reports.prelabel_report import log_effort
        from pipelines.settings import get_settings

        settings, dataset = get_settings(), published["dataset"]
        bucket = GCSHook(gcp_conn_id=settings.google_connection).get_conn()
        manifest = Published.of(settings, bucket).manifest(dataset)
        with fails_at_once_when_people_must_act():
            models = log_effort(Registry(settings), manifest, dataset, load_params(settings.params_path))
        print(f"what people did with their pre-labels is noted at: {', '.join(models) or 'no model'}")

    log_what_was_saved(publish())


sync_annotations()
