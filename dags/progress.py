"""The tasks that count what pre-labels saved, and write the page of progress."""

from datetime import timedelta

from airflow.sdk import task
from callbacks import RETRIES, no_retry_on_user_error


@task(execution_timeout=timedelta(minutes=10), **RETRIES)
@no_retry_on_user_error()
def log_time_saved(published: dict) -> None:
    """Log the usage of masks and the time saved, up to the version that was published, to each model's run."""
    from pipelines.reports.prelabel_report import log_usage
    from pipelines.settings import get_settings

    print(f"usage and time saved are logged for {log_usage(get_settings(), published['dataset']) or 'no model'}")


# When no version was published as well: tasks come and go without one.
@task(execution_timeout=timedelta(minutes=10), trigger_rule="none_failed", **RETRIES)
@no_retry_on_user_error()
def write_progress_page() -> None:
    """Write the page that Label Studio's server shows at /maskloop/report."""
    from pipelines.reports.progress_page import update_page
    from pipelines.settings import get_settings

    print(f"progress: {update_page(get_settings())}")
