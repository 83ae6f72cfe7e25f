"""The table of addresses leads to the pages that people need, and fits a log of 120 columns."""

import io
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from pipelines.local_stack.lifecycle import addresses
from pipelines.settings import Settings


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Settings]]:
    """Run a server that knows experiments' ids by name, as MLflow answers; returns settings in which it is MLflow."""
    servers = []

    def make(experiments: dict[str, str]) -> Settings:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                [name] = parse_qs(urlsplit(self.path).query)["experiment_name"]
                known = name in experiments
                body = {"experiment": {"experiment_id": experiments[name]}} if known else {"error_code": "NONE"}
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
        secrets = {"label_studio_password": "p" * 16, "airflow_password": "p" * 16}
        return Settings(_env_file=None, var=tmp_path, mlflow_port=servers[-1].server_port, **secrets)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def printed(settings: Settings) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(addresses(settings))
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO


def test_mlflow_is_opened_on_the_runs_of_trainings(mlflow: Callable[[dict[str, str]], Settings]) -> None:
    settings = mlflow({"Default": "0", "clothing": "7"})
    assert f"{settings.url('mlflow')}/#/experiments/7/runs " in printed(settings)


def test_before_the_first_training_it_is_opened_on_its_experiments(
    mlflow: Callable[[dict[str, str]], Settings],
) -> None:
    settings = mlflow({"Default": "0"})
    assert f"{settings.url('mlflow')}/#/experiments " in printed(settings)


def test_an_mlflow_that_does_not_answer_stops_no_table(tmp_path: Path, free_port: int) -> None:
    assert f":{free_port}/#/experiments " in printed(Settings(_env_file=None, var=tmp_path, mlflow_port=free_port))


def test_the_table_shows_addresses_and_passwords_whole(mlflow: Callable[[dict[str, str]], Settings]) -> None:
    text = printed(mlflow({"clothing": "123"}))
    assert "…" not in text
    assert text.count("p" * 16) == 2
