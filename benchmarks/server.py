"""A server of containers: how long until everything is healthy, how large the images are, what memory it takes.

Needs Docker and the images (`docker-compose build`); nothing may listen on 80 and 443. The server is a clone in a
folder of its own with the bucket server in place of the cloud, and is taken away afterwards.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row
from pipelines.settings import PROJECT_ROOT

_PROJECT = "maskloop-bench"
_UNITS = {"GiB": 1024.0**3, "MiB": 1024.0**2, "KiB": 1024.0, "B": 1.0}


def run() -> list[Row]:
    """Start a new server, stop it, start it again, and look at it; no rows where there is no Docker."""
    if shutil.which("docker-compose") is None:
        return []
    folder = Path(tempfile.mkdtemp(prefix="maskloop-bench-")) / "clone"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(folder)], check=True)
    (folder / ".env").write_text("MASKLOOP_STORAGE_EMULATOR=true\nMASKLOOP_STORAGE_URL=http://buckets:4443\n")
    try:
        first = _seconds(folder, "deploy/maskloop", "up")
        memory = _memory_mb(folder)
        _call(folder, "docker-compose", "down")
        again = _seconds(folder, "deploy/maskloop", "up")
    finally:
        _call(folder, "docker-compose", "down", "--volumes", "--remove-orphans")
        shutil.rmtree(folder.parent)
    airflow, serving = (_image_mb(f"maskloop/{name}") for name in ("airflow", "serving"))
    return [
        Row("first start to all healthy, images built", first, None, None, "s", 1),
        Row("start again to all healthy", again, None, None, "s", 1),
        Row("memory of all containers, idle", memory, None, None, "MB", 1),
        Row("image of Airflow", airflow, None, None, "MB", 1),
        Row("image of the model services, against that of Airflow", serving, airflow, airflow / serving, "MB", 1),
    ]


def _call(folder: Path, *command: str) -> str:
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": _PROJECT, "COMPOSE_PROFILES": "local"}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _seconds(folder: Path, *command: str) -> float:
    begun = time.monotonic()
    _call(folder, *command)
    return time.monotonic() - begun


def _image_mb(name: str) -> float:
    size = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Size}}", name], check=True, capture_output=True, text=True
    )
    return int(size.stdout) / 1e6


def _memory_mb(folder: Path) -> float:
    ids = _call(folder, "docker-compose", "ps", "-q").split()
    lines = _call(folder, "docker", "stats", "--no-stream", "--format", "{{json .MemUsage}}", *ids).splitlines()
    return sum(_bytes(json.loads(line).partition(" / ")[0]) for line in lines) / 1e6


def _bytes(text: str) -> float:
    unit = next(unit for unit in _UNITS if text.endswith(unit))
    return float(text.removesuffix(unit)) * _UNITS[unit]
