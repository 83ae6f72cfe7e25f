"""Python programs that start at once: forks of servers that have imported what the programs need.

DVC and the stages spend most of their seconds importing. `warm_servers` does that beside other work, for one command's
length. The `python` in the folder that it gives asks a server to run `python -m PROGRAM`; without an answer, or for
anything else, it becomes the ordinary interpreter. So nothing depends on the servers but time.
"""

import json
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset.warm import client


@dataclass(frozen=True)
class Program:
    """A program of `python -m NAME`, and what to import for it besides itself.

    Each is `module`, or `module:function` for a function that imports.
    """

    name: str
    needs: tuple[str, ...] = ()


@contextmanager
def warm_servers(
    servers: Sequence[Sequence[Program]], folder: Path, environment: Mapping[str, str], keep_open: Sequence[int] = ()
) -> Iterator[Path]:
    """Start a server for each group of programs, in `folder`; gives a folder whose `python` knows them.

    The servers, and what they run, keep the file descriptors `keep_open`.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-warm-") as name:
        place = Path(name)
        command = shlex.join([sys.executable, "-I", "-S", str(client.__file__), name])
        (place / "python").write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (place / "python").chmod(0o700)
        running = [_start(programs, place, folder, environment, keep_open) for programs in servers]
        try:
            yield place
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _start(
    programs: Sequence[Program], place: Path, folder: Path, environment: Mapping[str, str], keep_open: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start a server; its sockets are there at once, so that nobody comes too early."""
    doors = []
    for program in programs:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.bind(str(place / program.name))
        door.listen()
        doors.append(door)
    served = [(door.fileno(), program.name, program.needs) for door, program in zip(doors, programs, strict=True)]
    command = [sys.executable, "-m", "pipelines.dataset.warm.server", str(place), json.dumps(served)]
    kept = [*(door.fileno() for door in doors), *keep_open]
    process = subprocess.Popen(
        command, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=kept,
        start_new_session=True,
    )  # fmt: skip
    for door in doors:
        door.close()
    return process
