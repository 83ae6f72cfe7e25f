"""What one store holds of what is to be removed. The same search plans a run, removes, and shows what is left."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rich.markup import escape
from rich.table import Table

_NAMED = 200  # places of the table of what is left


@dataclass(frozen=True)
class Trace:
    """One place that holds a photo, or names a photo or a person; `size` in bytes.

    `remove` removes it, and may be called again; it is None where Maskloop must not or cannot, and `reason` says why.
    """

    store: str
    what: str
    place: str
    size: int = 0
    remove: Callable[[], None] | None = None
    reason: str = ""
    count: int = 1


class Store(Protocol):
    """A store that is searched."""

    name: str

    def traces(self) -> Iterator[Trace]:
        """Yield what the store holds now; nothing is changed."""


def as_plan(traces: Iterable[Trace]) -> Table:
    """Return a table for a terminal: per store and kind how many there are, their bytes, and what becomes of them."""
    rows: dict[tuple[str, str, str], list[int]] = {}
    for trace in traces:
        done = "removed" if trace.remove else f"stays: {trace.reason}"
        row = rows.setdefault((trace.store, trace.what, done), [0, 0])
        row[0] += trace.count
        row[1] += trace.size
    table = Table(title="What there is", title_justify="left")
    for heading in ("store", "what", "how many", "bytes", "what becomes of it"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("how many", "bytes") else "left")
    for (store, what, done), (count, size) in rows.items():
        table.add_row(escape(store), escape(what), f"{count:,}", f"{size:,}", escape(done))
    return table


def as_proof(stores: Iterable[str], left: Iterable[Trace]) -> Table:
    """Return a table for a terminal: for each store that was searched 0, or each place where something is left."""
    by_store: dict[str, list[Trace]] = {store: [] for store in stores}
    for trace in left:
        by_store.setdefault(trace.store, []).append(trace)
    table = Table(title="What is left", title_justify="left")
    for heading in ("store", "bytes", "where", "why"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    for store, traces in by_store.items():
        if not traces:
            table.add_row(escape(store), "0", "", "")
        for trace in traces[:_NAMED]:
            reason = trace.reason or "it came back meanwhile; run again"
            table.add_row(escape(store), f"{trace.size:,}", escape(f"{trace.what}: {trace.place}"), escape(reason))
        if len(traces) > _NAMED:
            table.add_row(escape(store), "…", f"{len(traces) - _NAMED} more places", "")
    return table
