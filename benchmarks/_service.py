"""A model service as it runs in the stack, alone with a bucket: for what only the whole path shows."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from pipelines.gcs import client as gcs
from pipelines.local_stack.services import bucket_server, environment
from pipelines.settings import PROJECT_ROOT, Settings

BUCKET = "archive"


@dataclass(frozen=True)
class RunningService:
    """A service that answers at `url`; photos are put into its bucket with `upload`."""

    settings: Settings
    url: str
    process: subprocess.Popen[bytes]
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=600))

    def post(self, path: str, body: Any) -> Any:
        """Ask, and fail on any answer but success."""
        return self.http.post(self.url + path, json=body).raise_for_status().json()

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Put a photo into the bucket and return its task."""
        ref = gcs.put(gcs.connect(self.settings), BUCKET, name, data, "image/jpeg")
        return {"data": {"image": ref.uri, "generation": str(ref.generation)}}

    def memory_mb(self, which: str = "rss") -> float:
        """Return the memory of the service's processes now, in MB; `which`: rss, or peak_rss since the start."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        if which == "rss":
            return sum(member.memory_info().rss for member in family) / 1e6
        status = "".join(Path(f"/proc/{member.pid}/status").read_text() for member in family)
        return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


@contextmanager
def bucket(var: Path) -> Iterator[Settings]:
    """Run a bucket server and yield settings of a machine with two free ports for services."""
    ports = free_ports(3)
    settings = Settings(
        var=var, storage_port=ports[0], segmentation_port=ports[1], segment_anything_port=ports[2],
        mlflow_url="http://127.0.0.1:9",  # nobody answers there: the model on disk serves
    )  # fmt: skip
    command = [
        str(bucket_server()), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(ports[0]),
        "-external-url", settings.storage_endpoint or "", "-log-level", "error",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        try:
            wait_for(f"{settings.storage_endpoint}/_internal/healthcheck")
            for name in (settings.source_bucket, settings.target_bucket):
                gcs.ensure_bucket(gcs.connect(settings), name)
            yield settings
        finally:
            process.terminate()


@contextmanager
def running(settings: Settings, module: str, **extra: str) -> Iterator[RunningService]:
    """Start `bentos.MODULE.service` on its port."""
    name = {"segmentation": "Segmentation", "segment_anything": "SegmentAnything"}[module]
    port = getattr(settings, f"{module}_port")
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", f"bentos.{module}.service:{name}",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    log = (settings.var / f"{module}.log").open("ab")
    own = {**os.environ, **environment(settings), **extra}
    with log, subprocess.Popen(command, env=own, cwd=PROJECT_ROOT, stdout=log, stderr=log) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield RunningService(settings, f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    """Wait until a server answers with success; raise TimeoutError after two minutes."""
    for _ in range(600):
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not up yet
        time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer within two minutes")


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
