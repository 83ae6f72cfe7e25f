"""What the DAG files share: how errors end a task, who hears of failed runs, and notes on runs."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=20), "retry_exponential_backoff": True}


@contextmanager
def no_retry_on_user_error() -> Iterator[None]:
    """Turn bad input, bad settings and refused credentials into a failure without retries; a decorator of tasks."""
    from airflow.sdk.exceptions import AirflowFailException

    from pipelines.errors import ConfigurationError, CredentialsError, DataError

    try:
        yield
    except (ConfigurationError, CredentialsError, DataError) as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def skip(why: str) -> NoReturn:
    """End a task, and with it the rest of its run, because there is nothing to do."""
    from airflow.sdk.exceptions import AirflowSkipException

    raise AirflowSkipException(why)


def tell_people(context: Mapping[str, Any]) -> None:
    """Alert people that a run failed; each DAG has this as its `on_failure_callback`.

    It belongs to the DAG and not to its tasks: Airflow calls nothing for a task whose process was killed, and nothing
    for one that did not end before its run had to. Airflow's DAG processor calls it, in its own environment.
    """
    from pipelines.reports.alerts import alert_of_failed_run
    from pipelines.settings import get_settings

    task = context.get("ti")
    alert_of_failed_run(
        get_settings(), context["dag"].dag_id, context["run_id"], task.task_id if task else "", context["reason"]
    )


def tell_people_that(what: str) -> None:
    """Alert people about the run of this task, which has not failed."""
    from airflow.sdk import get_current_context

    from pipelines.reports.alerts import send_alert
    from pipelines.settings import get_settings

    run = get_current_context()["dag_run"]
    send_alert(get_settings(), f"{run.dag_id}: {what}", run.dag_id, run.run_id)


def note_on_run(text: str) -> None:
    """Show a line beside the run in Airflow's pages and in the task's log; a run without its note is as good."""
    from airflow.sdk import get_current_context

    from pipelines.airflow_api import Airflow
    from pipelines.errors import ServiceError
    from pipelines.settings import get_settings

    print(text)
    run = get_current_context()["dag_run"]
    try:
        Airflow(get_settings()).note(run.dag_id, run.run_id, text)
    except ServiceError as error:
        logging.getLogger(__name__).warning("the run has no note: %s", error)
