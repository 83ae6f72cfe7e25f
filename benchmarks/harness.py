"""Measure Maskloop and its peers in one process, taking turns, so that a busy machine slows both alike."""

import gc
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS_DIR = Path(__file__).resolve().parents[1] / "var" / "bench"

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}


@dataclass(frozen=True)
class Row:
    """One measured quantity; `ours` and `peer` in `unit`, `ratio` = how many times better ours is.

    `peer` and `ratio` are None for numbers that nothing can be compared with, such as the start of the stack.
    """

    metric: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    rounds: int


def compare(metric: str, ours: Callable[[], object], peer: Callable[[], object], rounds: int, unit: str = "ms") -> Row:
    """Time both ways and return the medians; see `compare_several`."""
    [row] = compare_several({metric: ours}, peer, rounds, unit)
    return row


def compare_several(
    ways: Mapping[str, Callable[[], object]], peer: Callable[[], object], rounds: int, unit: str = "ms"
) -> list[Row]:
    """Time several ways, by metric, and what their peer does; gives a row of medians for each.

    Each way runs once untimed, then `rounds` times; who goes first changes from round to round. `unit`: s, ms or us.
    """
    turns = [*ways.items(), ("", peer)]
    taken: dict[str, list[float]] = {name: [] for name, _ in turns}
    for _, way in turns:
        way()
    for _ in range(rounds):
        for name, way in turns:
            taken[name].append(seconds(way))
        turns = [*turns[1:], turns[0]]
    median = {name: statistics.median(values) * _PER_SECOND[unit] for name, values in taken.items()}
    return [Row(name, median[name], median[""], median[""] / median[name], unit, rounds) for name in ways]


def compare_memory(metric: str, ours: Callable[[], object], peer: Callable[[], object]) -> Row:
    """Compare the peak memory of both ways; `metric` is completed with the word «memory»."""
    ours_mb, peer_mb = peak_memory_mb(ours), peak_memory_mb(peer)
    return Row(f"{metric} memory", ours_mb, peer_mb, peer_mb / ours_mb, "MB", 1)


def peak_memory_mb(way: Callable[[], object]) -> float:
    """Return the peak of memory a call allocates, its result included, in MB (10**6 bytes).

    NumPy and Python allocations are counted, those of other C libraries are not; the call is slower than usual.
    """
    gc.collect()
    tracemalloc.start()
    try:
        way()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def write_rows(name: str, rows: list[Row], folder: Path = RESULTS_DIR) -> Path:
    """Write a benchmark's rows and the machine they were measured on to `folder`/NAME.json; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    result: dict[str, Any] = {
        "name": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu_count": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def format_value(value: float | None) -> str:
    """Write a measured value with three significant digits and no exponent; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(way: Callable[[], object]) -> float:
    """Time one call, in seconds of wall time."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start
