"""What a run of ingest did, as text and as a CSV."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.errors import MaskloopError
from pipelines.ingest.intake import Problem

REPORT = "reports/ingest.csv"  # in the target bucket


@dataclass(frozen=True)
class IngestReport:
    """What one run did; every listed object is counted exactly once.

    `described` of the `unchanged` photos got other catalogue data, and `copied` a smaller copy. `notes` are problems
    that set nothing aside. `ignored` counts objects that are no photos by their suffix, in lower case. `unread` objects
    are left for the next run, because of the error `stopped`.
    """

    listed: int
    created: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    described: int = 0
    copied: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = field(default=())
    notes: tuple[Problem, ...] = field(default=())
    unread: int = 0
    stopped: MaskloopError | None = None

    @property
    def total(self) -> str:
        """Return the sum of all objects by outcome, as one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(p.reason for p in self.problems).items())
        suffixes = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(self.ignored.items()))
        parts = [f"{self.created} new", f"{self.updated} changed"]
        if self.moved:
            parts.append(f"{self.moved} moved")
        changes = ((self.described, "with new catalogue data"), (self.copied, "shown smaller now"))
        changed = ", ".join(f"{count} {what}" for count, what in changes if count)
        parts.append(f"{self.unchanged} unchanged{f' ({changed})' if changed else ''}")
        parts.append(f"{len(self.problems)} set aside{f' ({reasons})' if reasons else ''}")
        parts.append(f"{sum(self.ignored.values())} not photos{f' ({suffixes})' if suffixes else ''}")
        if self.unread:
            parts.append(f"{self.unread} not read")
        gone = sum(note.reason == "gone" for note in self.notes)
        return f"{self.listed} listed = {' + '.join(parts)}" + (
            f"; {gone} tasks show photos that are gone" if gone else ""
        )

    def __str__(self) -> str:
        """Return the sum, then a line per problem."""
        return "\n".join([self.total, *(f"  {p.reason}: {p.uri}: {p.message}" for p in (*self.problems, *self.notes))])

    def as_csv(self) -> bytes:
        """Return a line per problem, in a fixed order; texts that a spreadsheet would take for formulas are quoted."""
        file = io.StringIO()
        lines = csv.writer(file)
        lines.writerow(["uri", "generation", "reason", "set aside", "message"])
        for p in sorted((*self.problems, *self.notes), key=lambda p: (p.uri, p.reason, p.message)):
            cells = (p.uri, p.generation or "", p.reason, "yes" if p.set_aside else "no", p.message)
            lines.writerow(f"'{cell}" if str(cell).startswith(("=", "+", "-", "@", "\t")) else cell for cell in cells)
        return file.getvalue().encode("utf-8-sig")
