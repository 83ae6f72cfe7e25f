"""Airflow's API as it is asked, against a scripted server."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipelines import airflow_api
from pipelines.airflow_api import Airflow
from pipelines.errors import ServiceError
from pipelines.settings import Settings

Serve = Callable[[dict[str, str]], tuple[Settings, list[tuple[str, Any]]]]
TOKEN = {"POST /auth/token": json.dumps({"access_token": "secret"})}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server that gives these answers by method and path; gives its settings, and what it was sent.

    It fails as often before as an answer begins with `!`.
    """
    servers = []

    def start(answers: dict[str, str]) -> tuple[Settings, list[tuple[str, Any]]]:
        sent: list[tuple[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = f"{self.command} {self.path}"
                sent.append((request, json.loads(self.rfile.read(length)) if length else None))
                name = request.partition("?")[0]
                failed = sum(earlier.partition("?")[0] == name for earlier, _ in sent) <= answers[name].count("!")
                body = answers[name].lstrip("!").encode()
                self.send_response(500 if failed else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PATCH = do_POST

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
        return Settings(airflow_url=f"http://127.0.0.1:{servers[-1].server_port}", var=tmp_path), sent

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_event_is_reported_on_the_asset_of_that_name_alone(serve: Serve) -> None:
    assets = [
        {"id": 4, "name": "maskloop://models", "uri": "maskloop://models/"},
        {"id": 5, "name": "maskloop://model", "uri": "maskloop://model/"},  # Airflow adds the slash
    ]
    settings, sent = serve(
        TOKEN | {"GET /api/v2/assets": json.dumps({"assets": assets}), "POST /api/v2/assets/events": "{}"}
    )

    Airflow(settings).emit("maskloop://model", {"model": "clothing:v3"})

    assert sent[-1] == ("POST /api/v2/assets/events", {"asset_id": 5, "extra": {"model": "clothing:v3"}})


def test_an_asset_that_no_dag_named_yet_is_said_so(serve: Serve) -> None:
    settings, _ = serve(TOKEN | {"GET /api/v2/assets": '{"assets": []}'})

    with pytest.raises(ServiceError, match="knows no asset maskloop://model yet"):
        Airflow(settings).emit("maskloop://model", {})


def test_what_may_be_asked_twice_is_asked_again_when_the_server_failed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_api, "_PAUSES_S", (0.0, 0.0))
    settings, sent = serve(
        TOKEN | {
            "PATCH /api/v2/dags/sync": "!{}", "GET /api/v2/dags": '!!!{"dags": []}',
            "POST /api/v2/dags/sync/dagRuns": '!{"dag_run_id": "twice"}',
        }
    )  # fmt: skip
    airflow = Airflow(settings)

    airflow.pause("sync")
    with pytest.raises(ServiceError, match="HTTP 500"):
        airflow.dags()
    with pytest.raises(ServiceError, match="HTTP 500"):
        airflow.trigger("sync")

    asked = [request for request, _ in sent[1:]]
    assert asked == [
        "PATCH /api/v2/dags/sync", "PATCH /api/v2/dags/sync", "GET /api/v2/dags", "GET /api/v2/dags",
        "GET /api/v2/dags", "POST /api/v2/dags/sync/dagRuns",
    ], "a run that is started twice would be two"  # fmt: skip


def test_a_pool_is_created_once_although_the_database_was_locked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "_PAUSES_S", (0.0,))
    settings, sent = serve(
        {"POST /auth/token": "!" + TOKEN["POST /auth/token"], "GET /api/v2/pools": '{"pools": []}'}
        | {"POST /api/v2/pools": "!{}"}
    )

    assert Airflow(settings).ensure_pool("embeddings", 1, "one at a time")

    assert [request for request, _ in sent].count("POST /api/v2/pools") == 2


@pytest.mark.parametrize("answer", ["<html>Welcome</html>", "{}"])
def test_another_program_on_the_port_is_named_as_such(serve: Serve, answer: str) -> None:
    settings, _ = serve({"POST /auth/token": answer})

    with pytest.raises(ServiceError, match=r"so it is not Airflow; see MASKLOOP_AIRFLOW_URL"):
        Airflow(settings)
