"""What the local stack costs: time from nothing and from a warm start to all healthy, memory at rest, a second ingest.

There is no peer; the rows hold our own figures. The stack runs in a state folder and on ports of its own.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.stack import supervisor
from pipelines.stack.services import SERVICES

_ROUNDS = 3
_SETTLE_SECONDS = 60  # after a start, until imports are done and nothing runs


def run() -> list[Row]:
    """Measure starts and memory."""
    var = Path(tempfile.mkdtemp(prefix="maskloop-bench-"))
    own = {"MASKLOOP_VAR": str(var), **_ports()}
    environment = {**os.environ, **own}
    fields = {name.removeprefix("MASKLOOP_").lower(): value for name, value in own.items()}
    settings = Settings(**fields)  # type: ignore[arg-type]  # pydantic turns text into types
    try:
        first = _timed(environment, "up")
        warm = []
        for _ in range(_ROUNDS):
            _timed(environment, "down")
            warm.append(_timed(environment, "up"))
        time.sleep(_SETTLE_SECONDS)
        memory = sum(supervisor.memory_mb(settings).values())
        return [
            Row("up, first start", first, None, None, "s", 1),
            Row("up, warm start", statistics.median(warm), None, None, "s", _ROUNDS),
            Row("memory at rest, no model yet", memory, None, None, "MB", 1),
        ]
    finally:
        _timed(environment, "down")
        shutil.rmtree(var, ignore_errors=True)


def _timed(environment: dict[str, str], *arguments: str) -> float:
    started = time.perf_counter()
    command = [str(Path(sys.executable).parent / "maskloop"), *arguments]
    subprocess.run(command, env=environment, cwd=PROJECT_ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def _ports() -> dict[str, str]:
    probes = [socket.socket() for _ in SERVICES]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = {
        f"MASKLOOP_{service.setting.upper()}_PORT": str(probe.getsockname()[1])
        for service, probe in zip(SERVICES, probes, strict=True)
    }
    for probe in probes:
        probe.close()
    return ports
