"""Station 3: what people submitted becomes a dataset version; every half hour, or when an event says they did."""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from station import fails_at_once_when_people_must_act, note_on_run


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/30 * * * *", timezone="UTC"), assets=[assets.annotations]
    ),
    catchup=False,  # a run takes over everything since the last version
    max_active_runs=1,  # one writer per dataset; the workspace's lock holds for runs from the command line as well
    dagrun_timeout=timedelta(hours=6),
    doc_md=__doc__,
    tags=["maskloop"],
)
def sync_annotations() -> None:
    """Compile, check, push, verify, commit and tag."""

    @task(
        outlets=[assets.dataset],
        pool="workspace",
        retries=3,
        retry_delay=timedelta(seconds=20),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=3),
    )
    def publish(*, outlet_events: dict) -> dict:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.labelstudio.client import connect
        from pipelines.settings import get_settings
        from pipelines.sync import sync

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

    publish()


sync_annotations()
