"""Start the local stack with its progress shown step by step, set up what it needs, and stop it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.airflow_api import Airflow
from pipelines.contract import DAG_IDS, MLFLOW, POOLS
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import ensure_project
from pipelines.local_stack import supervisor
from pipelines.local_stack.secrets import ensure_secrets, write_airflow_passwords
from pipelines.local_stack.services import Service, environment, is_healthy, services_in
from pipelines.params import load_params
from pipelines.settings import Settings, get_settings

# A first start migrates three databases and imports packages for a minute of processor time, which takes long on a busy
# machine. A start therefore fails only when the services stop making progress.
_STANDSTILL_S = 240  # without progress: neither _WORK_S more seconds of processor time nor another healthy service
_WORK_S = 5
_LONGEST_START_S = 3600


def up(console: Console) -> Settings:
    """Start every service that does not run, wait until all are healthy, and set up what they need.

    Where services are containers, Docker Compose starts them. Raises ConfigurationError before anything is started when
    a port is taken or a part is not installed, and ServiceError with the end of its log when a service does not start.
    """
    settings = get_settings() if get_settings().composed else _prepare_settings()
    if settings.composed:
        console.print("The services are containers; checking them.")
    elif supervisor.is_running(settings):
        console.print("The stack is running; checking it.")
    else:
        _require_installed(settings)
        supervisor.require_free_ports(settings)
        with _step(console, "Preparing databases, workspace and folders"):
            _prepare_folders(settings)
        supervisor.start(settings)
    _wait_until_healthy(console, settings)
    for line in set_up(settings):
        console.print(f"  {line}")
    return settings


def set_up(settings: Settings) -> list[str]:
    """Create or correct buckets, Label Studio project and Airflow pools; return a line per change."""
    changes = []
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        workspace.ensure()
        if workspace.merge_source():
            changes.append("merged the project's latest commit into the workspace")
    if settings.storage_emulator:
        client = gcs.connect(settings)
        for name in (settings.source_bucket, settings.target_bucket, settings.dvc_bucket):
            if gcs.ensure_bucket(client, name):
                changes.append(f"created bucket gs://{name}")
    changes += ensure_project(connect(settings), load_params(settings.params_path), settings)
    airflow = Airflow(settings)
    changes += [f"created Airflow pool {name}" for name, why in POOLS.items() if airflow.ensure_pool(name, 1, why)]
    deadline = time.monotonic() + 60
    while not airflow.dags() >= DAG_IDS:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"Airflow has not read all DAGs: {'; '.join(airflow.import_errors()) or 'no error given'}"
            )
        time.sleep(0.5)
    return changes


def down(console: Console) -> None:
    """Stop what `up` started."""
    settings = get_settings()
    with _step(console, "Stopping"):
        stopped = supervisor.stop(settings)
    if not stopped:
        console.print(f"Nothing was running (state folder {settings.var}).")


def _prepare_settings() -> Settings:
    settings = get_settings()
    settings.var.mkdir(parents=True, exist_ok=True)
    if ensure_secrets(settings):
        get_settings.cache_clear()
        settings = get_settings()
    write_airflow_passwords(settings)
    return settings


def _require_installed(settings: Settings) -> None:
    program = Path(environment(settings)["LABEL_STUDIO"])
    if not program.exists():
        raise ConfigurationError(f"Label Studio is not installed ({program} is missing); run `make setup`")


def _prepare_folders(settings: Settings) -> None:
    for name in ("buckets", "mlflow", "label-studio", "airflow", "logs"):
        (settings.var / name).mkdir(parents=True, exist_ok=True)
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        workspace.ensure()
        workspace.merge_source()
    stamp = settings.var / "airflow" / "migrated"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != version("apache-airflow-core"):
        command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
        done = subprocess.run(
            command, env={**os.environ, **environment(settings)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServiceError(f"`airflow db migrate` failed: {done.stderr.strip()[-1500:]}")
        stamp.write_text(version("apache-airflow-core"), encoding="utf-8")


def _wait_until_healthy(console: Console, settings: Settings) -> None:
    started = progressed = time.monotonic()
    ready: dict[str, float] = {}
    worked = 0.0
    with Live(console=console, refresh_per_second=4) as live:
        while len(ready) < len(services_in(settings)):
            for service in services_in(settings):
                if service.name not in ready and is_healthy(service, settings)[0]:
                    ready[service.name], progressed = time.monotonic() - started, time.monotonic()
            live.update(_progress(settings, ready))
            _require_alive(settings)
            waited_for = [service for service in services_in(settings) if service.name not in ready]
            used = _processor_seconds(settings, waited_for)
            if used > worked + _WORK_S or used < worked:  # less: a service was restarted
                worked, progressed = used, time.monotonic()
            now = time.monotonic()
            if waited_for and (now - progressed > _STANDSTILL_S or now - started > _LONGEST_START_S):
                raise ServiceError("; ".join(f"{s.name}: {is_healthy(s, settings)[1]}" for s in waited_for))
            time.sleep(0.5)


def _processor_seconds(settings: Settings, services: Sequence[Service]) -> float:
    names = {name for service in services for name in service.processes}
    return sum(seconds for name, seconds in supervisor.processor_seconds(settings).items() if name in names)


def _require_alive(settings: Settings) -> None:
    for name, (state, _) in supervisor.states(settings).items():
        if state == "FATAL":
            tail = supervisor.log_tail(settings, name)
            raise ServiceError(f"{name} does not start; the end of {settings.var / 'logs' / name}.log:\n{tail}")


def _progress(settings: Settings, ready: dict[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "service", "address", "healthy after"):
        table.add_column(heading)
    for service in services_in(settings):
        mark, when = ("[green]✓", f"{ready[service.name]:.0f} s") if service.name in ready else ("[yellow]…", "")
        table.add_row(mark, service.name, service.url(settings), when)
    return table


@contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    with console.status(text):
        started = time.monotonic()
        yield
    console.print(f"[green]✓[/] {text} ({time.monotonic() - started:.0f} s)")


def addresses(settings: Settings) -> Table:
    """Return a table of every address for browsers, its purpose, and its login."""
    logins = {
        "label-studio": (settings.label_studio_email, settings.label_studio_password.get_secret_value()),
        "airflow": (settings.airflow_user, settings.airflow_password.get_secret_value()),
    }
    table = Table(title="Addresses", title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in ("address", "purpose", "login", "password"):
        table.add_column(heading, no_wrap=heading != "purpose")
    for service in services_in(settings):
        user, password = logins.get(service.name, ("–", "–"))
        page = _trainings_page(settings) if service.setting == MLFLOW else ""
        table.add_row(service.address(settings) + (page or service.page), service.purpose, user, password)
    return table


def _trainings_page(settings: Settings) -> str:
    """Return the path of MLflow's page with the runs of trainings; empty before the first training.

    MLflow opens an experiment on its pages for language models unless the path names its runs.
    """
    url = f"{settings.url(MLFLOW)}/api/2.0/mlflow/experiments/get-by-name"
    try:
        answer = httpx.get(url, params={"experiment_name": settings.model_name}, timeout=5).json()
        return f"/#/experiments/{int(answer['experiment']['experiment_id'])}/runs"
    except (httpx.HTTPError, LookupError, TypeError, ValueError):  # the table shows MLflow's first page then
        return ""
