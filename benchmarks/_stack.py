"""The whole local stack in a state folder and on ports of its own, for benchmarks that need real servers together."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from benchmarks._service import free_ports
from pipelines.airflow_api import Airflow
from pipelines.contract import MLFLOW, SEGMENT_ANYTHING
from pipelines.local_stack.services import SERVICES, get_health
from pipelines.models.reader import CHAMPION, NETWORK
from pipelines.services import ask_service
from pipelines.settings import PROJECT_ROOT, SECRETS_FILE, Settings


@dataclass(frozen=True)
class LocalStack:
    """A stack that `command("up")` starts; `settings()` holds the secrets once it was started.

    `up_without_clock` starts it so that no DAG runs by itself beside what is measured.
    """

    settings: Callable[[], Settings]
    command: Callable[..., None]
    environment: dict[str, str]  # what makes it this stack and no other

    def up_without_clock(self) -> None:
        """Start the stack and pause its DAGs."""
        self.command("up")
        airflow = Airflow(self.settings())
        for dag in airflow.dags():
            airflow.pause(dag)

    def who_answers_clicks(self) -> str:
        """Return the version that answers clicks, after the click model in MASKLOOP_BENCH_CLICKS was promoted.

        That is the folder of a click model, as `maskloop train --what clicks` writes it; without it those answer that
        are there in a new installation.
        """
        if folder := os.environ.get("MASKLOOP_BENCH_CLICKS"):
            promote_clicks(self.settings(), Path(folder))
        return str(get_health(self.settings().url(SEGMENT_ANYTHING))["answers"]["edit"])


def promote_clicks(settings: Settings, folder: Path) -> None:
    """Register the click model in `folder`, make it champion, and let the service load it."""
    client, name = MlflowClient(settings.url(MLFLOW)), settings.clicks_model_name
    run = client.create_run(client.create_experiment("benchmark"))
    client.log_artifacts(run.info.run_id, str(folder), NETWORK)
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/{NETWORK}", run.info.run_id)
    client.set_registered_model_alias(name, CHAMPION, version.version)
    ask_service(settings, SEGMENT_ANYTHING, "/reload", {}, timeout_s=300)


@contextmanager
def local_stack() -> Iterator[LocalStack]:
    """Yield a stack that is stopped, and its state deleted, at the end."""
    var = Path(tempfile.mkdtemp(prefix="maskloop-bench-"))
    ports = free_ports(len(SERVICES))
    own = {"MASKLOOP_VAR": str(var)} | {
        f"MASKLOOP_{service.setting.upper()}_PORT": str(port) for service, port in zip(SERVICES, ports, strict=True)
    }

    def settings() -> Settings:
        fields = {name.removeprefix("MASKLOOP_").lower(): value for name, value in own.items()}
        return Settings(_env_file=var / SECRETS_FILE, **fields)  # type: ignore[arg-type]  # pydantic turns text into types

    def command(*arguments: str) -> None:
        program = str(Path(sys.executable).parent / "maskloop")
        subprocess.run(
            [program, *arguments], env={**os.environ, **own}, cwd=PROJECT_ROOT, check=True, capture_output=True
        )

    try:
        yield LocalStack(settings, command, own)
    finally:
        command("down")
        shutil.rmtree(var, ignore_errors=True)  # a file left over must not hide what was measured, or why it failed
