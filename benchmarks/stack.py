"""What the local stack costs: time from nothing and from a warm start to all healthy, and memory at rest.

There is no peer; the rows hold times of the stack alone. The stack runs in a state folder and on ports of its own.
"""

import statistics
import time
from collections.abc import Callable

from benchmarks._stack import local_stack
from benchmarks.harness import Row
from pipelines.local_stack import supervisor

_ROUNDS = 3
_SETTLE_SECONDS = 60  # after a start, until imports are done and nothing runs


def run() -> list[Row]:
    """Measure starts and memory."""
    with local_stack() as stack:
        first = _seconds(lambda: stack.command("up"))
        warm = []
        for _ in range(_ROUNDS):
            stack.command("down")
            warm.append(_seconds(lambda: stack.command("up")))
        time.sleep(_SETTLE_SECONDS)
        memory = sum(supervisor.memory_mb(stack.settings()).values())
    return [
        Row("up, first start", first, None, None, "s", 1),
        Row("up, warm start", statistics.median(warm), None, None, "s", _ROUNDS),
        Row("memory at rest, no model yet", memory, None, None, "MB", 1),
    ]


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin
