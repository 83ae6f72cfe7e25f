"""Work in a process of its own: its seconds, and the peak memory of that process and all that it starts."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Measured:
    """What a call took, and the largest sum of resident memory of its processes, in MB (10**6 bytes)."""

    seconds: float
    peak_mb: float


def measure_apart(call: Callable[..., object], *arguments: Any) -> Measured:
    """Call a function of a module in a new process and measure it; raise RuntimeError when it fails there.

    Memory is sampled twenty times a second. Pages that processes share count in each of them, as `ps` counts them.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_timed, args=(sender, call, arguments))
    process.start()
    sender.close()
    peak = 0.0
    while not receiver.poll(_INTERVAL_S):
        peak = max(peak, _memory_mb(process.pid or 0))
    try:
        seconds = float(receiver.recv())
    except EOFError as error:
        raise RuntimeError(f"{call.__module__}.{call.__name__} failed in a process of its own; see above") from error
    finally:
        process.join()
    return Measured(seconds, peak)


def _timed(sender: Connection, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    begun = time.perf_counter()
    call(*arguments)
    sender.send(time.perf_counter() - begun)


def _memory_mb(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss / 1e6
    return total
