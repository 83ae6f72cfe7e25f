"""Review: masks that look wrong are shown in Label Studio's tab «Review», with each champion and weekly."""

from datetime import timedelta

import assets
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from callbacks import no_retry_on_user_error, note_on_run, tell_people
from progress import write_progress_page


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("40 5 * * 1", timezone="UTC"), assets=[assets.model]),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def review_labels() -> None:
    """Examine the newest dataset with models that did not learn from what they judge."""

    @task(retries=3, retry_delay=timedelta(seconds=30), execution_timeout=timedelta(hours=5))
    def examine() -> dict:
        from airflow.sdk.exceptions import AirflowSkipException
        from rich.console import Console

        from pipelines.dataset.published import Published
        from pipelines.labelstudio.client import connect
        from pipelines.models.registry import Registry
        from pipelines.params import load_params
        from pipelines.quality.metrics import as_tables, log_quality
        from pipelines.quality.review import review
        from pipelines.settings import get_settings

        settings = get_settings()
        published = Published.of(settings)
        if not published.tags():
            raise AirflowSkipException("no dataset is published yet: there is nothing to look through")
        with no_retry_on_user_error():
            registry, params = Registry(settings), load_params(settings.params_path)
            result = review(settings, published, registry, connect(settings), params)
            log_quality(registry, result)
        for table in as_tables(result):
            Console(width=120).print(table)
        note_on_run(str(result))
        return {"dataset": result.dataset, "suspicious": len(result.label_issues)}

    examine() >> write_progress_page()


review_labels()
