"""Free space: what `retention` in params.yaml lets go, old rows of Airflow's database; then disk and last backup."""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag, task
from callbacks import RETRIES, no_retry_on_user_error, note_on_run, tell_people, tell_people_that


@dag(
    schedule=CronTriggerTimetable("10 4 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    on_failure_callback=tell_people,
    doc_md=__doc__,
    tags=["maskloop"],
)
def free_space() -> None:
    """Remove what nobody needs, every night, and say when the disk will be full."""

    @task(execution_timeout=timedelta(hours=4), **RETRIES)
    @no_retry_on_user_error()
    def collect_garbage() -> None:
        from rich.console import Console

        from pipelines.params import load_params
        from pipelines.retention.collect import Sources, as_tables, collect, require_all
        from pipelines.settings import get_settings

        settings = get_settings()
        plans = collect(Sources.of(settings, load_params(settings.params_path)))
        for table in as_tables(plans, done=True):
            Console(width=120).print(table)
        require_all(plans)

    @task(execution_timeout=timedelta(hours=1), trigger_rule="all_done", **RETRIES)
    @no_retry_on_user_error()
    def clean_airflow() -> None:
        from pipelines.local_stack.airflow_database import clean_airflow_database
        from pipelines.params import load_params
        from pipelines.settings import get_settings

        settings = get_settings()
        print(clean_airflow_database(settings, load_params(settings.params_path).retention.logs))

    @task(execution_timeout=timedelta(minutes=10), trigger_rule="all_done", **RETRIES)
    @no_retry_on_user_error()
    def measure_disk() -> None:
        from pipelines.local_stack.disk import record
        from pipelines.settings import get_settings

        disk = record(get_settings())
        note_on_run(str(disk))
        if disk.is_low:
            tell_people_that(f"the disk is nearly full: {disk}")

    @task(execution_timeout=timedelta(minutes=10), trigger_rule="all_done", **RETRIES)
    @no_retry_on_user_error()
    def check_backup() -> None:
        from pipelines.local_stack.backup_age import is_bucket, newest_backup
        from pipelines.settings import get_settings

        settings = get_settings()
        if is_bucket(settings.backup) and (age := newest_backup(settings)).is_too_old:
            tell_people_that(f"the newest backup is too old: {age}")

    collect_garbage() >> clean_airflow() >> [measure_disk(), check_backup()]


free_space()
