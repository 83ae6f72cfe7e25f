"""The server of docker-compose.yml, built and started for real: `make server-test`; half an hour, 60 GB of disk.

MASKLOOP_SERVER is `new` for a clone of its own, which is taken away afterwards, or the folder of a server that runs.
"""

import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.settings import PROJECT_ROOT

WANTED = os.environ.get("MASKLOOP_SERVER", "")
DOTENV = "MASKLOOP_STORAGE_EMULATOR=true\nMASKLOOP_STORAGE_URL=http://buckets:4443\n"
LABELS, LOOP = "labels.localhost", "loop.localhost"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests out where nobody asked for a server."""
    if not WANTED:
        folder = Path(__file__).parent
        for item in items:
            if folder in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs Docker and half an hour: make server-test"))


@dataclass(frozen=True)
class Server:
    """A running server; people come to it by names, operators by `deploy/maskloop`."""

    folder: Path
    project: str

    def maskloop(self, *arguments: str, ok: bool = True) -> str:
        """Run `deploy/maskloop` and give what it printed."""
        return self._run(["deploy/maskloop", *arguments], ok=ok)

    def docker(self, *arguments: str, ok: bool = True) -> str:
        """Run `docker`."""
        return self._run(["docker", *arguments], ok=ok)

    def compose(self, *arguments: str, ok: bool = True) -> str:
        """Run `docker-compose` on this project."""
        return self._run(["docker-compose", *arguments], ok=ok)

    def inside(self, service: str, *command: str, ok: bool = True) -> str:
        """Run a command in a service's container."""
        return self.docker("exec", self.containers(service)[0], *command, ok=ok)

    def python(self, service: str, program: str, *arguments: str) -> str:
        """Run a Python program in a service's container."""
        return self.inside(service, "python3", "-c", program, *arguments)

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of a service's containers, or of all, including ended ones."""
        wanted = ["--filter", f"label=com.docker.compose.project={self.project}"]
        if service:
            wanted += ["--filter", f"label=com.docker.compose.service={service}"]
        return self.docker("ps", "--all", "--quiet", *wanted).split()

    def inspect(self, service: str = "") -> list[dict[str, Any]]:
        """Return what Docker knows about containers."""
        containers: list[dict[str, Any]] = json.loads(self.docker("inspect", *self.containers(service)))
        return containers

    def log(self, container: str) -> str:
        """Return everything that a container has printed."""
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def secrets(self) -> dict[str, str]:
        """Return every secret by the name of its file."""
        names = [path.name for path in (self.folder / "deploy" / "secrets").iterdir()]
        text = self.docker(
            "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh",
            "-v", f"{self.folder}/deploy/secrets:/secrets:ro", "postgres:16", "-c",
            "cd /secrets && for one in *; do printf '%s\\0' \"$(cat $one)\"; done",
        )  # fmt: skip
        return dict(zip(sorted(names), text.split("\0"), strict=False))

    def authority(self) -> str:
        """Return the certificate of the server's own authority."""
        return self.inside("caddy", "cat", "/data/caddy/pki/authorities/local/root.crt")

    def visitor(self, host: str) -> httpx.Client:
        """Return a client that connects by a name, and trusts the server's own certificate authority."""
        trust = ssl.create_default_context(cadata=self.authority())

        class ByName(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                name, local_url = request.url.host, request.url.copy_with(host="127.0.0.1")
                headers = [(key, value) for key, value in request.headers.raw if key.lower() != b"host"]
                more = {**request.extensions, "sni_hostname": name}
                asked = httpx.Request(
                    request.method, local_url, headers=[(b"Host", name.encode()), *headers], stream=request.stream,
                    extensions=more,
                )  # fmt: skip
                return super().handle_request(asked)

        return httpx.Client(base_url=f"https://{host}", transport=ByName(verify=trust), timeout=60)

    def _run(self, command: list[str], *, ok: bool) -> str:
        environment = {**os.environ, "COMPOSE_PROJECT_NAME": self.project, "COMPOSE_PROFILES": "local"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ok, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A healthy server, with a bucket server instead of the cloud."""
    if WANTED != "new":
        yield Server(Path(WANTED).resolve(), os.environ.get("COMPOSE_PROJECT_NAME", "maskloop"))
        return
    folder = Path(tempfile.mkdtemp(prefix="maskloop-server-"))
    running = Server(folder / "clone", "maskloop-test")
    subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(running.folder)], check=True)
    (running.folder / ".env").write_text(DOTENV, encoding="utf-8")
    try:
        print(running.compose("build", "volumes", "segmentation"))
        print(running.maskloop("up"))
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans")
        shutil.rmtree(folder)
