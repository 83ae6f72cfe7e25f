"""Files that are complete or unchanged after a kill, and a lock between processes of one machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it holds all of these bytes, or is as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold the lock that this file stands for; a second holder waits until the first is done or killed.

    Yield the file descriptor: a process that inherits it holds the lock as well, until it ends. The operating system
    releases the lock when its last holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
