"""How errors end a task: what a person must fix fails at once, everything else is left to Airflow's retries; and
people are told of what failed.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipelines import errors
from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[Any]:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("callbacks", PROJECT_ROOT / "dags" / "callbacks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.no_retry_on_user_error()


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("no params.yaml"),
        errors.ContractError("labels differ"),
        errors.CredentialsError("wrong token"),
        errors.CatalogError("no column season"),
        errors.ChecksError("no garment"),
        errors.TrainingError("no such architecture"),
    ],
)
def test_what_people_must_fix_is_not_retried(guard: AbstractContextManager[Any], error: Exception) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=f"{type(error).__name__}: {error}"), guard:
        raise error


@pytest.mark.parametrize(
    "error",
    [
        errors.ServiceError("no answer"),
        errors.StorageError("no answer"),
        errors.ObjectChangedError("overwritten"),
        errors.DatasetError("the stage was killed"),
        errors.ModelError("MLflow does not answer"),
        RuntimeError("?"),
    ],
)
def test_what_may_pass_is_left_to_the_retries(guard: AbstractContextManager[Any], error: Exception) -> None:
    with pytest.raises(type(error)) as caught, guard:
        raise error
    assert caught.value is error


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A webhook's address, and what it was told."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.extend([body["text"]] if "text" in body else [])
            self.send_response(200 if "text" in body else 503)  # it is also asked as Airflow, which is not there
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_airflow_tells_people_of_failed_runs_and_retries_only_what_may_pass(
    tmp_path: Path, webhook: tuple[str, list[str]]
) -> None:
    """Runs in Airflow itself, with a database of its own."""
    address, told = webhook
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MASKLOOP"))}
    ours = {
        "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"), "MASKLOOP_VAR": str(tmp_path / "var"),
        "MASKLOOP_AIRFLOW_URL": address, "MASKLOOP_AIRFLOW_ADDRESS": "https://loop.example.org",
        "MASKLOOP_ALERT_WEBHOOK": f"{address}/hook", "PYTHONPATH": str(PROJECT_ROOT),
    }  # fmt: skip
    program = tmp_path / "dags" / "failing.py"
    program.parent.mkdir()
    shutil.copy(Path(__file__).with_name("fail_in_airflow.py"), program)
    done = subprocess.run(
        [sys.executable, str(program)], env=clean | ours, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    tries = json.loads(done.stdout.splitlines()[-1])

    assert tries == {"cut_short": ["success", 1], "stopped_by_checks": ["failed", 1], "out_of_reach": ["failed", 3]}
    begins = (
        "cut_short: the training was cut short ·",
        "stopped_by_checks failed in work: ",
        "out_of_reach failed in ",
    )
    for text, begin, dag in zip(told, begins, tries, strict=True):
        assert text.startswith(begin)
        assert f"https://loop.example.org/dags/{dag}/runs/manual__" in text
