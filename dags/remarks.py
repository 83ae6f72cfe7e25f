"""The task that passes on what people say about photos."""

from datetime import timedelta

from airflow.sdk import task
from callbacks import RETRIES, no_retry_on_user_error, tell_people_that


@task(execution_timeout=timedelta(minutes=10), **RETRIES)
@no_retry_on_user_error()
def pass_on_remarks() -> None:
    """Show new doubts and skips in the tab "Review", and alert people about them."""
    from pipelines.quality.remarks import pass_on_remarks as pass_on
    from pipelines.settings import get_settings

    if news := pass_on(get_settings()):
        tell_people_that(news)
