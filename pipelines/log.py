"""Logging of commands and stages: Maskloop's own lines at INFO, everybody else's from WARNING on."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import MaskloopError

REQUEST_ID = "X-Request-Id"
STAGE_ERROR = (
    "MASKLOOP_STAGE_ERROR"  # names the file in which a stage leaves its error for the process that waits for it
)
_RUN = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID")  # Airflow sets these for its tasks


def who_asks() -> dict[str, str]:
    """Give the header that names the DAG, run and task on whose behalf this process asks others; else nothing."""
    parts = [os.environ.get(name, "") for name in _RUN]
    return {REQUEST_ID: "/".join(parts)} if all(parts) else {}


def configure_logging(*handlers: logging.Handler) -> None:
    """Set up the root logger once per process; without handlers plain lines go to standard error."""
    if handlers:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=handlers)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("pipelines", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)
    for noisy in ("py.warnings", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Run a DVC stage as a program: errors that Maskloop knows end it with their message, not with a traceback.

    Where the environment names a file in `STAGE_ERROR`, the class and message of the error are left there: DVC, which
    may run in between, hands on neither.
    """
    configure_logging()
    try:
        stage()
    except MaskloopError as error:
        if file := os.environ.get(STAGE_ERROR):
            told = {"class": type(error).__name__, "message": f"{name}: {error}"}
            Path(file).write_text(json.dumps(told), encoding="utf-8")
        sys.exit(f"{name}: {error}")
