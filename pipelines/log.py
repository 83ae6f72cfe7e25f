"""Logging of commands and stages: Maskloop's own messages from INFO on, those of other packages from WARNING on."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import MaskloopError

REQUEST_ID = "X-Request-Id"
STAGE_ERROR = "MASKLOOP_STAGE_ERROR"  # names the file to which a stage writes its error, for the process that waits
_RUN = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID")  # Airflow sets these for its tasks


def who_asks() -> dict[str, str]:
    """Return the header that names the DAG, run and task that this process works for; empty outside Airflow."""
    parts = [os.environ.get(name, "") for name in _RUN]
    return {REQUEST_ID: "/".join(parts)} if all(parts) else {}


def configure_logging(*handlers: logging.Handler) -> None:
    """Set up the root logger once per process; without handlers plain lines go to standard error."""
    if handlers:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=handlers)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for own in ("pipelines", "__main__"):
        logging.getLogger(own).setLevel(logging.INFO)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Run a DVC stage as a program: a MaskloopError ends it with its message instead of a traceback.

    Where the environment names a file in `STAGE_ERROR`, the class and message of the error are written there, because
    DVC, which may run in between, reports neither.
    """
    configure_logging()
    try:
        stage()
    except MaskloopError as error:
        if file := os.environ.get(STAGE_ERROR):
            details = {"class": type(error).__name__, "message": f"{name}: {error}"}
            Path(file).write_text(json.dumps(details), encoding="utf-8")
        sys.exit(f"{name}: {error}")
