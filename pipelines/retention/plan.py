"""What is removed of one kind of thing, and why the rest stays: the same before and after it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

CACHE, REMOTE, MLFLOW, BUCKET, LOCAL = "cache", "remote", "MLflow", "bucket", "local"  # where bytes are freed
PLACES = (CACHE, REMOTE, MLFLOW, BUCKET, LOCAL)


@dataclass(frozen=True)
class Plan:
    """What goes and what stays of a kind.

    `go` has, by the name of each item that goes, what is lost with it. `freed` are bytes by place. `spared` has, by
    name, why an item stays that the rule alone would let go. `problem` says why nothing or not all of the kind can be
    removed, and what to do; it is empty when everything is well. `interrupted` names items whose removal was
    interrupted, and is completed.
    """

    kind: str
    rule: str
    stay: int = 0
    go: Mapping[str, str] = field(default_factory=dict)
    freed: Mapping[str, int] = field(default_factory=dict)
    spared: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    problem: str = ""
    interrupted: tuple[str, ...] = ()


class Kind(Protocol):
    """One kind of thing that takes space."""

    name: str

    def plan(self) -> Plan:
        """Return what goes and what stays now; raise MaskloopError when that is not known."""

    def remove(self, shown: Plan) -> Plan:
        """Remove what goes and was shown as well; return what was done.

        What came into use meanwhile stays. Safe to kill and to run again.
        """


def first_of(problems: Mapping[str, str], what: str) -> str:
    """Return in one sentence how many could not be removed, and the first reason; empty without problems."""
    if not problems:
        return ""
    name, reason = next(iter(problems.items()))
    return f"{len(problems)} {what} could not be removed, such as {name}: {reason}; run `maskloop gc` again"
