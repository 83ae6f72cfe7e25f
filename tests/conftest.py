"""Fixtures shared by all tests: parameters, a real bucket server, and the whole stack of real servers."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from pipelines.dataset.workspace import Workspace
from pipelines.local_stack.services import SERVICES
from pipelines.local_stack.services import bucket_server as bucket_server_program
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT, Settings

# Small enough for two cores, real in every part; an epoch of twenty photos is a step or two.
SMALL_CLICKS = {
    "image_height": 96, "image_width": 64, "predict_scale": 1.0, "min_steps": 20, "max_steps": 20, "max_minutes": 0,
    "judged": 4,
}  # fmt: skip
SMALL_TRAINING = {
    "architecture": "FPN", "decoder": {}, "encoder": "timm-tf_efficientnet_lite0", "epochs": 20, "min_steps": 0,
    "max_steps": 40,
    "image_height": 192, "image_width": 128, "predict_scale": 1.0, "predict_mirrored": False,
}  # fmt: skip
LONGEST_S = 900  # of one command; that the stack starts and makes its rounds is no part of any test's own limit


# Packages whose few tests take minutes: begun early, so that no process is left with them at the end.
LONG = ("forget", "training", "dataset", "simulation", "models", "quality")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put quick tests of the project as a whole first, then the long ones, then the rest."""

    def turn(item: pytest.Item) -> int:
        package = item.path.parent.name
        return 0 if package == "unit" else 1 + LONG.index(package) if package in LONG else 1 + len(LONG)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def params() -> Params:
    """The project's own parameters."""
    return load_params(PROJECT_ROOT / "params.yaml")


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """The address of a bucket server that stores everything in memory, or of the one in STORAGE_EMULATOR_HOST."""
    if other := os.environ.get("STORAGE_EMULATOR_HOST"):
        yield other
        return
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [
        str(bucket_server_program()), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
        "-public-host", f"127.0.0.1:{port}", "-external-url", url, "-log-level", "error",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        try:
            for _ in range(100):
                try:
                    httpx.get(url + "/_internal/healthcheck")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()


@pytest.fixture
def bucket_client(bucket_server: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of the bucket server; each test creates buckets with names of its own."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket_server)
    return Client(project="test", credentials=AnonymousCredentials())


@dataclass(frozen=True)
class Stack:
    """A running stack in a state folder of its own; `run` calls the command line against it."""

    settings: Settings
    environment: dict[str, str]

    def run(self, *arguments: str, ok: bool = True, **extra: str) -> str:
        """Run `maskloop` and give what it printed; `extra` are more environment variables."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "maskloop"), *arguments],
            env={**self.environment, **extra}, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
            timeout=LONGEST_S,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, (
            f"maskloop {' '.join(arguments)}: {done.stdout[-6000:]}{done.stderr[-3000:]}"
        )
        return done.stdout


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Start every service on free ports, with a training small enough for a test."""
    var = Path(tempfile.mkdtemp(prefix="maskloop-"))
    ports = free_ports(len(SERVICES))
    own = {"MASKLOOP_VAR": str(var), "MASKLOOP_SAM_CHECKPOINT": "none"} | {
        f"MASKLOOP_{service.setting.upper()}_PORT": str(port) for service, port in zip(SERVICES, ports, strict=True)
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MASKLOOP_")} | own
    _commit_small_training(_settings(var, own))
    running = Stack(_settings(var, own), environment)
    try:
        running.run("up")
        yield Stack(_settings(var, own), environment)
    finally:
        running.run("down")
        if artefacts := os.environ.get("MASKLOOP_TEST_ARTEFACTS"):
            shutil.copytree(var / "logs", Path(artefacts) / "logs", dirs_exist_ok=True)
        shutil.rmtree(var, ignore_errors=True)  # a log that is still being written must not fail the tests


@pytest.fixture(scope="session")
def stack_after_two_rounds(stack: Stack) -> Stack:
    """Run the demo's two rounds on 40 drawn photos; twelve more photos are left open with pre-labels."""
    print(stack.run("demo", "--count", "40"))
    return stack


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _settings(var: Path, own: dict[str, str]) -> Settings:
    fields = {name.removeprefix("MASKLOOP_").lower(): value for name, value in own.items()}
    # pydantic turns text into types, and _env_file is pydantic-settings' own argument.
    return Settings(_env_file=var / "secrets.env", **fields)  # type: ignore[call-arg,arg-type]  # text, and its own argument


def _commit_small_training(settings: Settings) -> None:
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure()
    path = workspace.path / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["train"].update(SMALL_TRAINING)
    document["clicks"].update(SMALL_CLICKS)
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    workspace.git("commit", "--quiet", "--all", "-m", "Train small, for tests")
