"""Files that are complete or unchanged after a kill, and a lock between the processes of one machine."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART_PATTERN = ".*.part"  # matches what a killed process left half written


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that it holds all of these bytes, or is as it was before.

    `mode` holds from the first byte on, less the umask: 0o600 for what nobody else may read. Several processes and
    threads may write the same file at once; the last one to finish wins.
    """
    with atomic_path(path, mode=mode) as part:
        part.write_bytes(data)


@contextmanager
def atomic_path(path: Path, *, mode: int = 0o666, suffix: str = "") -> Iterator[Path]:
    """Yield an empty file beside `path` to be written, which replaces `path` when the block ends without an error.

    After an error `path` is as it was before. `suffix` ends the yielded file's name, for writers that insist on one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part{suffix}")
    try:
        part.unlink(missing_ok=True)  # of a process that had the same number and was killed
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, mode))
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):  # the error that led here is the one to report
            part.unlink(missing_ok=True)


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


def is_held(path: Path) -> bool:
    """Return whether somebody holds the lock that this file stands for."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
