"""How errors end a task: what a person must mend fails at once, everything else is left to Airflow's retries."""

import importlib.util
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pipelines import errors
from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[Any]:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("station", PROJECT_ROOT / "dags" / "station.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fails_at_once_when_people_must_act()


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("no params.yaml"),
        errors.ContractError("labels differ"),
        errors.CredentialsError("wrong token"),
        errors.CatalogError("no column season"),
    ],
)
def test_what_people_must_mend_is_not_retried(guard: AbstractContextManager[Any], error: Exception) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=f"{type(error).__name__}: {error}"), guard:
        raise error


@pytest.mark.parametrize(
    "error",
    [
        errors.ServiceError("no answer"),
        errors.StorageError("no answer"),
        errors.ObjectChangedError("overwritten"),
        RuntimeError("?"),
    ],
)
def test_what_may_pass_is_left_to_the_retries(guard: AbstractContextManager[Any], error: Exception) -> None:
    with pytest.raises(type(error)) as caught, guard:
        raise error
    assert caught.value is error
