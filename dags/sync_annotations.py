"""Sync: what people submitted becomes a dataset version; every half hour, or as soon as enough is new.

Steps: read → compile → check → publish. Each is safe to kill and to run again.
"""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import RETRIES, no_retry_on_user_error, note_on_run, skip, tell_people
from connections import connect_bucket
from progress import log_time_saved, write_progress_page
from remarks import pass_on_remarks

from pipelines.contract import WORKSPACE_POOL

WRITER = {"pool": WORKSPACE_POOL, "execution_timeout": timedelta(hours=2), **RETRIES}  # one step at a time


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
    """Read annotations, compile masks, check and split them, publish the version; then count what pre-labels saved."""

    @task(**WRITER)
    @no_retry_on_user_error()
    def read() -> None:
        from pipelines.dataset.pipeline import read_annotations
        from pipelines.labelstudio.client import connect
        from pipelines.models.gain import detectable_gain

        settings, bucket = connect_bucket()
        if not read_annotations(bucket, connect(settings), settings, detectable_gain(settings)):
            skip("nothing changed since the last dataset version")

    @task(**WRITER)
    @no_retry_on_user_error()
    def build(stage: str) -> None:
        from pipelines.dataset.pipeline import build_dataset

        settings, bucket = connect_bucket()
        build_dataset(bucket, settings, stage)

    @task(outlets=[assets.dataset], **WRITER)
    @no_retry_on_user_error()
    def publish(*, outlet_events: dict) -> dict:
        from pipelines.dataset.pipeline import build_dataset, publish_dataset

        settings, bucket = connect_bucket()
        build_dataset(bucket, settings, "split")
        version = publish_dataset(bucket, settings)
        if version is None:
            skip("nothing changed since the last dataset version")
        note_on_run(f"{version.tag}: {version.summary}")
        outlet_events[assets.dataset].extra = {"dataset": version.tag, "revision": version.revision}
        return {"dataset": version.tag, "revision": version.revision, "photos": version.photos}

    pass_on_remarks()
    published = publish()
    read() >> build.override(task_id="compile")("compile") >> build.override(task_id="check")("check") >> published
    log_time_saved(published) >> write_progress_page()


sync_annotations()
