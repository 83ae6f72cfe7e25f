"""What is counted: Prometheus asks services that are there, and Airflow sends to where Prometheus listens."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from pipelines.settings import PROJECT_ROOT, Settings
from tests.unit.deploy.test_compose import SERVICES

FOLDER = PROJECT_ROOT / "deploy" / "metrics"
SEND = """
from airflow.observability.metrics.otel_logger import get_otel_logger, otel_logger
stats = get_otel_logger()
stats.gauge("executor.running_tasks", 3)
stats.incr("scheduler_heartbeat")
otel_logger.flush_otel_metrics()
"""


def test_prometheus_asks_the_services_of_the_compose_file() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    asked = {config["names"][0]: config["port"] for job in jobs for config in job.get("dns_sd_configs", ())}
    settings = SERVICES["segmentation"]["environment"]
    urls = {settings[f"MASKLOOP_{name}_URL"] for name in ("SEGMENTATION", "SEGMENT_ANYTHING")}
    assert {f"http://{name}:{port}" for name, port in asked.items()} == urls
    assert set(SERVICES["prometheus"]["networks"]) <= set(SERVICES["segmentation"]["networks"])


def test_prometheus_logs_in_at_the_services() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    logins = [job["basic_auth"] for job in jobs if "dns_sd_configs" in job]
    secret = "maskloop_service_password"
    login = {"username": Settings.model_fields["service_user"].default, "password_file": f"/run/secrets/{secret}"}
    assert logins == [login, login]
    assert "MASKLOOP_SERVICE_USER" not in SERVICES["segmentation"]["environment"], "it is the default"
    assert secret in SERVICES["prometheus"]["secrets"]
    assert SERVICES["prometheus"]["user"] == "10001:10001", "who may read the secrets"


def test_the_dashboard_draws_what_the_data_source_has() -> None:
    [source] = yaml.safe_load((FOLDER / "grafana/datasources/prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    board = json.loads((FOLDER / "grafana/dashboards/maskloop.json").read_text(encoding="utf-8"))
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == 8
    names = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\w+_\w+_\w+", target["expr"])
    }
    assert all(name.startswith(("bentoml_service_", "airflow_", "http_response_")) for name in names)


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that takes whatever is sent, and its notes: path and body of each request."""
    taken: list[tuple[str, bytes]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Take)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", taken
    server.shutdown()


def test_airflow_sends_to_where_prometheus_listens(
    receiver: tuple[str, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    address, taken = receiver
    composed = {k: v for k, v in SERVICES["airflow-scheduler"]["environment"].items() if k.startswith("OTEL_")}
    where = composed["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"].replace("prometheus:9090", address)
    environment = {
        **os.environ, **composed, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": where, "AIRFLOW_HOME": str(tmp_path),
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "none",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", SEND], env=environment, check=True, timeout=120)
    assert {path for path, _ in taken} == {"/api/v1/otlp/v1/metrics"}
    assert b"airflow.executor.running_tasks" in taken[0][1]
    assert b"airflow.scheduler_heartbeat" in taken[0][1]
