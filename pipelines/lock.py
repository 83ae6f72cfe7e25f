"""A lock between processes of one machine; the operating system gives it back when its holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold the lock that this file stands for; a second holder waits until the first is done or killed.

    Gives the file descriptor: a process that inherits it holds the lock as well, until it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
