"""Ingest: photos of the source bucket become labeling tasks; hourly, or when an event says the bucket changed."""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import no_retry_on_user_error, note_on_run, tell_people
from connections import connect_bucket


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("5 * * * *", timezone="UTC"), assets=[assets.bucket]),
    catchup=False,  # a run reconciles everything there is; missed hours hold nothing of their own
    max_active_runs=1,  # two runs would both find the same photos new
    dagrun_timeout=timedelta(hours=6),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def ingest_images() -> None:
    """Compare bucket and Label Studio, and create what is missing."""

    @task(
        outlets=[assets.tasks],
        retries=3,  # buckets and servers come back; bad photos are reported and not retried
        retry_delay=timedelta(seconds=20),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=3),  # tens of thousands of photos on the first run
    )
    def reconcile(*, outlet_events: dict) -> dict:
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.ingest.pipeline import ingest
        from pipelines.labelstudio.client import connect
        from pipelines.params import load_params

        settings, bucket = connect_bucket()
        with no_retry_on_user_error():
            report = ingest(bucket, connect(settings), settings, load_params(settings.params_path))
        print(report)
        note_on_run(report.total)
        if not report.created + report.updated:
            raise AirflowSkipException("no new and no changed photo: nobody needs to be woken")
        outlet_events[assets.tasks].extra = {"created": report.created, "updated": report.updated}
        return {"created": report.created, "updated": report.updated, "set_aside": len(report.problems)}

    reconcile()


ingest_images()
