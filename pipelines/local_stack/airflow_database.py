"""Old rows of Airflow's database: runs, task instances, events and jobs, of which there are thousands a day."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from pipelines.errors import ServiceError
from pipelines.local_stack.services import environment
from pipelines.params import RetentionRule
from pipelines.settings import Settings


def clean_airflow_database(settings: Settings, rule: RetentionRule | str, now: datetime | None = None) -> str:
    """Delete rows that are older than the rule for logs keeps, by Airflow's own command; return what was done.

    Raise ServiceError with the end of its output when it fails.
    """
    if isinstance(rule, str) or rule.keep_days is None:
        return "all rows stay, as `retention.logs` says"
    before = (now or datetime.now(UTC)) - timedelta(days=rule.keep_days)
    command = [sys.executable, "-m", "airflow", "db", "clean", "--yes", "--skip-archive", "--error-on-cleanup-failure"]
    command += ["--clean-before-timestamp", before.isoformat(timespec="seconds")]
    # A task's own environment keeps the database from it.
    variables = {**os.environ, **environment(settings)}
    done = subprocess.run(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(f"`airflow db clean` ended with {done.returncode}: {done.stdout[-1500:]}")
    return f"rows of before {before:%Y-%m-%d} are deleted"
