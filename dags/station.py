"""How a station's errors end a task: what a person must mend fails at once, what may pass is retried."""

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
