"""Sync: what people submitted becomes a dataset version; every half hour, or when an event says they did.

Steps: read → compile → check → publish. Each is safe to kill and to run again.
"""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import fails_at_once_when_people_must_act, note_on_run, tell_people
from connections import connect_bucket

from pipelines.contract import WORKSPACE_POOL

RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=20), "retry_exponential_backoff": True}
WRITER = {"pool": WORKSPACE_POOL, **RETRIES}  # one step at a time writes into the workspace


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

    @task(execution_timeout=timedelta(hours=2), **WRITER)
    def read() -> None:
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.dataset.pipeline import read_annotations
        from pipelines.labelstudio.client import connect
        from pipelines.settings import get_settings

        settings = get_settings()
        with fails_at_once_when_people_must_act():
            something_new = read_annotations(connect_bucket(settings), connect(settings), settings)
        if not something_new:
            raise AirflowSkipException("nothing changed since the last dataset version")

    @task(execution_timeout=timedelta(hours=2), **WRITER)
    def compile() -> None:
        from pipelines.dataset.pipeline import build_dataset
        from pipelines.models.gain import detectable_gain
        from pipelines.settings import get_settings

        settings = get_settings()
        with fails_at_once_when_people_must_act():
            build_dataset(connect_bucket(settings), settings, "compile", detectable_gain(settings))

    @task(execution_timeout=timedelta(hours=1), **WRITER)
    def check() -> None:
        from pipelines.dataset.pipeline import build_dataset
        from pipelines.settings import get_settings

        settings = get_settings()
        with fails_at_once_when_people_must_act():
            build_dataset(connect_bucket(settings), settings, "check")

    @task(outlets=[assets.dataset], execution_timeout=timedelta(hours=3), **WRITER)
    def publish(*, outlet_events: dict) -> dict:
        from airflow.sdk.exceptions import AirflowSkipException

        from pipelines.dataset.pipeline import build_dataset, publish_dataset
        from pipelines.settings import get_settings

        settings = get_settings()
        bucket = connect_bucket(settings)
        with fails_at_once_when_people_must_act():
            build_dataset(bucket, settings, "split")
            version = publish_dataset(bucket, settings)
        if version is None:
            raise AirflowSkipException("nothing changed since the last dataset version")
        print(f"{version.tag}: {version.summary}")
        note_on_run(f"{version.tag}: {version.summary}")
        outlet_events[assets.dataset].extra = {"dataset": version.tag, "revision": version.revision}
        return {"dataset": version.tag, "revision": version.revision, "photos": version.photos}

    @task(execution_timeout=timedelta(minutes=10), **RETRIES)
    def log_time_saved(published: dict) -> None:
        from pipelines.dataset.published import Published
        from pipelines.models.registry import Registry
        from pipelines.params import load_params
        from pipelines.reports.prelabel_report import log_effort
        from pipelines.settings import get_settings

        settings, dataset = get_settings(), published["dataset"]
        manifest = Published.of(settings).manifest(dataset)
        with fails_at_once_when_people_must_act():
            models = log_effort(Registry(settings), manifest, dataset, load_params(settings.params_path))
        print(f"the time that pre-labels saved is noted at: {', '.join(models) or 'no model'}")

    published = publish()
    read() >> compile() >> check() >> published
    log_time_saved(published)


sync_annotations()
