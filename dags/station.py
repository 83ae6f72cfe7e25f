"""What stations share: what a person must mend fails at once and is not retried, and results are noted on the run."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fails_at_once_when_people_must_act() -> Iterator[None]:
    """Turn bad input, bad settings and refused credentials into a failure without retries."""
    from airflow.sdk.exceptions import AirflowFailException

    from pipelines.errors import ConfigurationError, CredentialsError, DataError

    try:
        yield
    except (ConfigurationError, CredentialsError, DataError) as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def note_on_run(text: str) -> None:
    """Show a line beside the run in Airflow's pages; a run whose note cannot be written is none the worse."""
    import logging

    from airflow.sdk import get_current_context

    from pipelines.errors import ServiceError
    from pipelines.settings import get_settings
    from pipelines.stack.airflow import Airflow

    run = get_current_context()["dag_run"]
    try:
        Airflow(get_settings()).note(run.dag_id, run.run_id, text)
    except ServiceError as error:
        logging.getLogger(__name__).warning("the run has no note: %s", error)
