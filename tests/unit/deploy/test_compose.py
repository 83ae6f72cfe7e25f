"""What docker-compose.yml promises, read from the file: nothing is started, so it holds wherever the tests run."""

import re
from typing import Any

import pytest
import yaml

from pipelines.local_stack.services import read_procfile
from pipelines.settings import PROJECT_ROOT, Settings

DOCUMENT = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
EXCEPT_POSTGRES_AND_VOLUMES = sorted(set(SERVICES) - {"postgres", "volumes"})


def test_it_runs_every_process_of_the_procfile() -> None:
    own = {command[0] for service in SERVICES.values() if len(command := service.get("command") or []) == 1}
    third_party = {"storage", "label-studio"}  # images of their own
    assert own | third_party == set(read_procfile()) | {"airflow-worker"}


def test_caddy_alone_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"caddy"}
    assert DOCUMENT["networks"]["data"] == {"internal": True}
    assert set(SERVICES["postgres"]["networks"]) == set(SERVICES["redis"]["networks"]) == {"data"}


@pytest.mark.parametrize("name", EXCEPT_POSTGRES_AND_VOLUMES)
def test_services_have_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = service.get("user", "10001" if service["image"].startswith("maskloop/") else "root")
    assert user.startswith("10001")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_are_pinned_rotate_logs_and_start_again(name: str) -> None:
    service = SERVICES[name]
    image, _, version = service["image"].partition(":")
    assert version not in ("", "latest") or image.startswith("maskloop/")
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["restart"] in ("unless-stopped", "no", "on-failure")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"volumes", "airflow-init", "setup", "buckets"}))
def test_services_that_stay_have_limits_and_say_how_they_are(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", SERVICES[name]["mem_limit"])
    assert SERVICES[name]["healthcheck"]["test"]


def test_no_secret_is_a_variable() -> None:
    secret = re.compile(r"PASSWORD$|TOKEN$|SECRET|FERNET|_DATABASE$|_BROKER$|_KEY$|WEBHOOK$|SMTP_URL$")
    for name, service in SERVICES.items():
        variables = set(service.get("environment") or {})
        assert not {variable for variable in variables if secret.search(variable)}, name


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("airflow-") and name != "airflow-init"])
def test_airflow_can_tell_people_what_failed(name: str) -> None:
    service = SERVICES[name]
    assert {"maskloop_alert_webhook", "maskloop_smtp_url"} <= set(service["secrets"])
    assert "MASKLOOP_ALERT_EMAIL" in service["environment"]
    assert any(not (DOCUMENT["networks"][network] or {}).get("internal") for network in service["networks"])


def test_every_setting_reaches_the_services() -> None:
    """As a variable, or as a secret; the others are those of containers, and the login that Prometheus has as well."""
    fixed = {
        "var", "workspace", "storage_port", "label_studio_port", "mlflow_port", "segmentation_port",
        "segment_anything_port", "airflow_port", "service_user",
    }  # fmt: skip
    passed = {name.removeprefix("MASKLOOP_").lower() for name in DOCUMENT["x-settings"]}
    secrets = {name.removeprefix("maskloop_") for name in DOCUMENT["secrets"]}
    assert set(Settings.model_fields) - passed - secrets == fixed


GPU = yaml.safe_load((PROJECT_ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))["services"]


def test_a_gpu_goes_to_what_computes_and_changes_nothing_else() -> None:
    assert set(GPU) == {"airflow-worker", "segmentation", "segment-anything"}
    for name, service in GPU.items():
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        assert int(service["mem_limit"][:-1]) > int(SERVICES[name]["mem_limit"][:-1])
        assert set(service) <= {"deploy", "mem_limit", "image", "build"}
    assert GPU["segmentation"]["image"] == GPU["segment-anything"]["image"] != SERVICES["segmentation"]["image"]
    assert GPU["segmentation"]["build"] == {"args": {"TORCH": "cuda"}}
    assert "cuda) sync locked ;;" in (PROJECT_ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def test_every_secret_is_made(tmp_path: Any) -> None:
    made = (PROJECT_ROOT / "deploy" / "secrets.sh").read_text(encoding="utf-8")
    assert all(name in made for name in DOCUMENT["secrets"])
