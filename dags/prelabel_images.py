"""Prelabel: the next tasks get masks, or none; when tasks or the champion are new, and every ten minutes."""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import no_retry_on_user_error, tell_people

from pipelines.contract import EMBEDDINGS_POOL

RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=15), "retry_exponential_backoff": True}


@dag(
    schedule=AssetOrTimeSchedule(  # by the clock as well, because people take tasks out of the queue
        timetable=CronTriggerTimetable("*/10 * * * *", timezone="UTC"), assets=(assets.tasks | assets.model)
    ),
    catchup=False,
    max_active_runs=1,  # two runs would predict the same tasks
    dagrun_timeout=timedelta(hours=12),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def prelabel_images() -> None:
    """Plan batches, predict them side by side, and get the next photos ready for clicks."""

    @task(execution_timeout=timedelta(minutes=10), **RETRIES)
    def plan() -> list[dict]:
        from pipelines.labelstudio.client import connect
        from pipelines.params import load_params
        from pipelines.prelabel.pipeline import plan_batches
        from pipelines.settings import get_settings

        settings = get_settings()
        with no_retry_on_user_error():
            return [dict(b) for b in plan_batches(connect(settings), settings, load_params(settings.params_path))]

    @task(
        execution_timeout=timedelta(minutes=15),  # a dozen photos take seconds; minutes mean a hung service
        max_active_tis_per_dag=2,  # two requests keep the service busy; it processes photos side by side itself
        **RETRIES,
    )
    def predict(batch: dict) -> int:
        from pipelines.labelstudio.client import connect
        from pipelines.params import load_params
        from pipelines.prelabel.pipeline import Batch, prelabel_batch
        from pipelines.settings import get_settings

        settings = get_settings()
        with no_retry_on_user_error():
            report = prelabel_batch(connect(settings), settings, load_params(settings.params_path), Batch(**batch))
        print(f"{report.asked} tasks: {report.masks} with masks, {report.blind} blind, {len(report.problems)} problems")
        return report.masks + report.blind

    @task(outlets=[assets.predictions], execution_timeout=timedelta(minutes=5), **RETRIES)
    def total(created: list[int]) -> int:
        return sum(created)

    # Encoding takes every core of the service. It ends within ten minutes and leaves the rest to the next run.
    @task(pool=EMBEDDINGS_POOL, execution_timeout=timedelta(minutes=30), **RETRIES)
    def embed() -> int:
        from pipelines.labelstudio.client import connect
        from pipelines.params import load_params
        from pipelines.prelabel.embed import embed_ahead
        from pipelines.settings import get_settings

        settings = get_settings()
        with no_retry_on_user_error():
            report = embed_ahead(connect(settings), settings, load_params(settings.params_path))
        print(f"{report.ready} of the next {report.queued} photos are ready for clicks")
        return report.ready

    total(predict.expand(batch=plan()))
    embed()


prelabel_images()
