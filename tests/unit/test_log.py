"""Who asks: the run of Airflow on whose behalf a process sends requests."""

import pytest

from pipelines.log import who_asks


def test_requests_of_a_task_carry_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DAG_ID": "ingest_images", "DAG_RUN_ID": "scheduled__1", "TASK_ID": "ingest"}.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    assert who_asks() == {"X-Request-Id": "ingest_images/scheduled__1/ingest"}


def test_outside_a_run_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CTX_DAG_ID", raising=False)
    assert who_asks() == {}
