"""Who asks: the run of Airflow on whose behalf a process sends requests; and how a stage ends."""

import json
from pathlib import Path

import pytest

from pipelines.errors import ChecksError
from pipelines.log import STAGE_ERROR, run_stage, who_asks


def test_requests_of_a_task_carry_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DAG_ID": "ingest_images", "DAG_RUN_ID": "scheduled__1", "TASK_ID": "ingest"}.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    assert who_asks() == {"X-Request-Id": "ingest_images/scheduled__1/ingest"}


def test_outside_a_run_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CTX_DAG_ID", raising=False)
    assert who_asks() == {}


@pytest.mark.parametrize("somebody_waits", [True, False])
def test_a_stage_ends_with_its_message_and_leaves_it_for_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, somebody_waits: bool
) -> None:
    def stage() -> None:
        raise ChecksError("no garment")

    left = tmp_path / "error.json"
    if somebody_waits:
        monkeypatch.setenv(STAGE_ERROR, str(left))
    with pytest.raises(SystemExit, match="check: no garment"):
        run_stage("check", stage)
    told = json.loads(left.read_text(encoding="utf-8")) if left.exists() else None
    assert told == ({"class": "ChecksError", "message": "check: no garment"} if somebody_waits else None)
