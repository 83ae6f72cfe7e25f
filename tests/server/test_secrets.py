"""Secrets: in files of one account, mounted where they are needed, and seen nowhere else."""

import stat

import pytest

from tests.server.conftest import Server

pytestmark = pytest.mark.timeout(1800)
WHO_NEEDS = {
    "redis.conf": {"redis"},
    "databases.sql": {"postgres"},
    "postgres_password": {"postgres"},
    "label_studio_database_password": {"label-studio"},
    "label_studio_secret_key": {"label-studio"},
    "maskloop_mlflow_database": {"mlflow"},
}


def values_of(server: Server) -> dict[str, str]:
    return {name: value for name, value in server.secrets().items() if len(value) >= 20 and "\n" not in value}


def test_each_file_is_readable_by_one_account(server: Server) -> None:
    for path in (server.folder / "deploy" / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400, path.name
        assert path.stat().st_uid != 0, path.name


def test_services_get_the_secrets_they_need(server: Server) -> None:
    mounted: dict[str, set[str]] = {}
    for one in server.inspect():
        service = one["Config"]["Labels"]["com.docker.compose.service"]
        for mount in one["Mounts"]:
            if mount["Destination"].startswith("/run/secrets/"):
                mounted.setdefault(mount["Destination"].rpartition("/")[2], set()).add(service)
    assert {name: mounted[name] for name in WHO_NEEDS} == WHO_NEEDS
    for name, services in mounted.items():
        if name.startswith("maskloop_airflow"):
            assert all(service.startswith("airflow") or service == "setup" for service in services), name
    assert "caddy" not in set().union(*mounted.values())


def test_no_secret_is_in_what_docker_tells_or_in_logs_or_images(server: Server) -> None:
    containers = server.containers()
    texts = {"inspect": server.docker("inspect", *containers)}
    texts |= {f"log of {one}": server.log(one) for one in containers}
    texts |= {
        f"history of {image}": server.docker("history", "--no-trunc", image)
        for image in ("maskloop/airflow", "maskloop/serving")
    }
    secrets = values_of(server)
    assert len(secrets) > 10
    seen = [(what, name) for what, text in texts.items() for name, value in secrets.items() if value in text]
    assert seen == []


def test_nobody_else_runs_as_root(server: Server) -> None:
    by_service = {
        one["Config"]["Labels"]["com.docker.compose.service"]: one["Config"]["User"] for one in server.inspect()
    }
    as_root = {service for service, user in by_service.items() if user in ("", "0", "root", "0:0")}
    assert as_root <= {"postgres", "volumes"}  # both give it up, or end, at once
    assert server.inside("postgres", "sh", "-c", "ps -o user= -p 1 2>/dev/null || stat -c %U /proc/1").split()[0] != ""
