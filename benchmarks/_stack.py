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

from benchmarks._service import free_ports
from pipelines.airflow_api import Airflow
from pipelines.local_stack.services import SERVICES
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
