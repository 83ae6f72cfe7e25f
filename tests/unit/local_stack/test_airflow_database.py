"""Old rows leave Airflow's database by Airflow's own command; a run of the DAG is in tests/integration."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipelines.errors import ServiceError
from pipelines.local_stack.airflow_database import clean_airflow_database
from pipelines.local_stack.services import environment
from pipelines.params import RetentionRule
from pipelines.settings import Settings

RULE = RetentionRule(keep_days=180)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(_env_file=None, var=tmp_path / "var")
    (settings.var / "airflow").mkdir(parents=True)
    return settings


@pytest.mark.parametrize("rule", ["all", RetentionRule(keep_newest=3)])
def test_without_an_age_all_rows_stay(settings: Settings, rule: RetentionRule | str) -> None:
    assert clean_airflow_database(settings, rule) == "all rows stay, as `retention.logs` says"


def test_rows_that_are_older_than_the_rule_keeps_go(settings: Settings) -> None:
    command, variables = [sys.executable, "-m", "airflow", "db", "migrate"], {**os.environ, **environment(settings)}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    assert clean_airflow_database(settings, RULE, datetime(2026, 7, 1, tzinfo=UTC)) == (
        "rows of before 2026-01-02 are deleted"
    )


def test_a_database_that_does_not_answer_is_an_error(settings: Settings) -> None:
    away = settings.model_copy(update={"airflow_database": SecretStr("postgresql+psycopg2://a:hunter2@127.0.0.1:1/a")})
    with pytest.raises(ServiceError, match=r"`airflow db clean` ended with \d+: ") as caught:
        clean_airflow_database(away, RULE)
    assert "hunter2" not in str(caught.value)
