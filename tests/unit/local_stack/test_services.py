"""The services, the environment they start with, and their health checks."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio_site.maskloop_networks import banned_networks
from pipelines.local_stack.services import (
    SERVICES,
    bucket_server,
    environment,
    get_health,
    is_healthy,
    read_procfile,
    services_in,
)
from pipelines.settings import Settings

BY_NAME = {service.name: service for service in SERVICES}
HEALTHY = {"status": "healthy"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A stack with secrets, in a state folder whose name has a space."""
    secrets = ("label_studio_password", "label_studio_token", "airflow_password", "airflow_jwt_secret")
    return Settings(_env_file=None, var=tmp_path / "a stack", **{name: f"hush-{name}" for name in secrets})


@pytest.fixture
def in_the_cloud(settings: Settings) -> Settings:
    return settings.model_copy(update={"storage_emulator": False})


class TestProcfile:
    def test_it_lists_the_processes_of_all_services(self) -> None:
        processes = [name for service in SERVICES for name in service.processes]
        assert sorted(processes) == sorted(read_procfile())
        assert len(processes) == len(set(processes))

    def test_every_variable_is_in_the_environment(self, settings: Settings) -> None:
        given = environment(settings)
        for command in read_procfile().values():
            for name in re.findall(r"\$\{?(\w+)", command):
                assert given[name], name

    def test_no_secret_stands_in_a_command_line(self) -> None:
        for name, command in read_procfile().items():
            assert not re.search("PASSWORD|TOKEN|SECRET", command), name

    def test_the_shell_is_replaced_by_each_service(self) -> None:
        assert all(command.startswith("exec ") for command in read_procfile().values())


class TestEnvironment:
    def test_a_service_reads_the_same_settings(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        assert Settings(_env_file=None) == settings

    @pytest.mark.parametrize("outside", ["/usr/bin", None])
    def test_programs_of_this_environment_come_first_and_never_those_of_the_current_folder(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, outside: str | None
    ) -> None:
        monkeypatch.setenv("PATH", outside) if outside else monkeypatch.delenv("PATH")
        folders = environment(settings)["PATH"].split(os.pathsep)
        assert folders[0] == str(Path(sys.executable).parent)
        assert "/usr/bin" in folders
        assert "" not in folders

    def test_airflow_and_label_studio_get_their_secrets(self, settings: Settings) -> None:
        given = environment(settings)
        assert given["AIRFLOW__API_AUTH__JWT_SECRET"] == "hush-airflow_jwt_secret"
        assert given["LABEL_STUDIO_PASSWORD"] == "hush-label_studio_password"
        assert given["LABEL_STUDIO_USER_TOKEN"] == "hush-label_studio_token"

    def test_telemetry_is_off(self, settings: Settings) -> None:
        given = environment(settings)
        for name in ("COLLECT_ANALYTICS", "LATEST_VERSION_CHECK", "GX_ANALYTICS_ENABLED", "SENTRY_DSN"):
            assert given[name] in ("", "false"), name
        for name in ("DO_NOT_TRACK", "BENTOML_DO_NOT_TRACK", "DVC_NO_ANALYTICS", "MLFLOW_DISABLE_TELEMETRY"):
            assert given[name].lower() in ("1", "true"), name
        assert given["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "false"

    def test_state_stays_in_the_state_folder(self, settings: Settings) -> None:
        given = environment(settings)
        for name in ("AIRFLOW_HOME", "BENTOML_HOME", "LABEL_STUDIO_BASE_DATA_DIR"):
            assert Path(given[name]).is_relative_to(settings.var)

    def test_airflow_reaches_the_local_buckets_without_credentials(self, settings: Settings) -> None:
        given = environment(settings)
        assert given["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:4443"
        assert json.loads(given["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"]["is_anonymous"] is True

    def test_nothing_local_reaches_google_cloud_storage(self, in_the_cloud: Settings) -> None:
        given = environment(in_the_cloud)
        assert not given.keys() & {"STORAGE_EMULATOR_HOST", "RESOLVER_PROXY_GCS_DOWNLOAD_URL"}
        assert "anonymous" not in given["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"]


def test_the_bucket_server_runs_only_where_it_is_used(settings: Settings, in_the_cloud: Settings) -> None:
    assert services_in(settings) == SERVICES
    assert [service.name for service in SERVICES if service not in services_in(in_the_cloud)] == ["storage"]


def test_the_bucket_server_can_be_started() -> None:
    assert os.access(bucket_server(), os.X_OK)


class TestHealth:
    @pytest.fixture
    def answering(self, settings: Settings) -> Iterator[Callable[[int, Any], Settings]]:
        """Run a server that answers every request alike; returns settings in which it is every service."""
        servers = []

        def make(status: int, body: Any) -> Settings:
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(json.dumps(body).encode())

                def log_message(self, *_: Any) -> None:
                    pass

            servers.append(HTTPServer(("127.0.0.1", 0), Answer))
            Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
            url = f"http://127.0.0.1:{servers[-1].server_port}"
            return settings.model_copy(update={"mlflow_url": url, "airflow_url": url, "segmentation_url": url})

        yield make
        for server in servers:
            server.shutdown()
            server.server_close()

    def test_a_service_that_answers_is_healthy(self, answering: Callable[[int, Any], Settings]) -> None:
        assert is_healthy(BY_NAME["mlflow"], answering(200, "OK")) == (True, "")

    def test_a_failure_is_named_with_address_and_status(self, answering: Callable[[int, Any], Settings]) -> None:
        settings = answering(503, {})
        healthy, why = is_healthy(BY_NAME["mlflow"], settings)
        assert not healthy
        assert why == f"{settings.mlflow_url}/health: HTTP 503"

    def test_a_service_out_of_reach_is_named(self, settings: Settings, free_port: int) -> None:
        healthy, why = is_healthy(BY_NAME["mlflow"], settings.model_copy(update={"mlflow_port": free_port}))
        assert not healthy
        assert why == f"http://127.0.0.1:{free_port}/health: ConnectError"

    def test_airflow_is_healthy_when_all_its_parts_are(self, answering: Callable[[int, Any], Settings]) -> None:
        parts = dict.fromkeys(("metadatabase", "scheduler", "triggerer", "dag_processor"), HEALTHY)
        assert is_healthy(BY_NAME["airflow"], answering(200, parts))[0]
        for part in parts:
            answer = is_healthy(BY_NAME["airflow"], answering(200, parts | {part: {"status": None}}))
            assert answer == (False, f"{part} not healthy yet")

    def test_a_model_services_answer_is_given(self, answering: Callable[[int, Any], Settings]) -> None:
        assert get_health(answering(200, {"model_version": "clothing:v3"}).url("segmentation")) == {
            "model_version": "clothing:v3"
        }

    def test_a_model_service_out_of_reach_is_named_with_the_remedy(self, free_port: int) -> None:
        with pytest.raises(ServiceError, match=f"no answer from http://127.0.0.1:{free_port}.*maskloop up"):
            get_health(f"http://127.0.0.1:{free_port}")


def test_label_studio_may_reach_the_services_and_nothing_else_private() -> None:
    banned = "USER_ADDITIONAL_BANNED_SUBNETS"

    default = environment(Settings())[banned].split(",")
    private = environment(Settings(host="192.168.1.20"))[banned].split(",")

    assert not is_banned("127.0.0.1", default)
    assert is_banned("192.168.1.20", default)
    assert not is_banned("192.168.1.20", private)
    for networks in (default, private):
        for address in (
            "10.0.0.1", "169.254.169.254", "172.18.0.3", "192.168.1.21", "100.64.0.1", "::ffff:169.254.169.254",
            "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fd00::1", "fe80::1",
        ):  # fmt: skip
            assert is_banned(address, networks), address
        assert not is_banned("8.8.8.8", networks)
        assert not is_banned("2a00:1450:4001:82a::200e", networks)


def test_a_network_that_stays_open_is_cut_out_of_the_ban() -> None:
    networks = banned_networks(["192.168.213.0/24"])
    assert not is_banned("192.168.213.7", networks)
    assert is_banned("192.168.212.255", networks)
    assert is_banned("192.168.214.0", networks)
    assert is_banned("127.0.0.1", networks)


def is_banned(address: str, networks: list[str]) -> bool:
    """Check an address as Label Studio does, within its own IP version."""
    return any(ip_address(address) in ip_network(network) for network in networks)
