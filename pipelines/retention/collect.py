"""Plan what goes of every kind, and remove it: models first, then versions, whose models may be gone by then.

A kind that cannot be planned or removed stops no other.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from google.cloud.storage import Client
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from pipelines.dataset.objects import Objects
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import MaskloopError, ModelError, ServiceError
from pipelines.gcs.client import connect
from pipelines.labelstudio.client import connect as connect_label_studio
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import Params, RetentionParams
from pipelines.records import Task
from pipelines.retention import local
from pipelines.retention.models import Models
from pipelines.retention.photos import Photos, copies, embeddings
from pipelines.retention.plan import CACHE, PLACES, REMOTE, Kind, Plan
from pipelines.retention.unneeded import OldGenerations, UnneededObjects
from pipelines.retention.versions import DatasetVersions
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)
_LISTED = 20  # items of a kind that a table names


@dataclass(frozen=True)
class Sources:
    """What is asked: the buckets, MLflow, and the tasks of Label Studio, which are read only when they matter."""

    settings: Settings
    rules: RetentionParams
    bucket: Client
    registry: "Registry"
    tasks: Callable[[], Sequence[Task]]

    @classmethod
    def of(cls, settings: Settings, params: Params) -> "Sources":
        """Return the sources of the settings; none of them is asked yet."""
        from pipelines.models.registry import Registry

        def tasks() -> list[Task]:
            labels = connect_label_studio(settings)
            return list(list_tasks(labels, find_project(labels, params)))

        return cls(settings, params.retention, connect(settings), Registry(settings), tasks)

    def kinds(self, now: datetime | None = None) -> list[Kind]:
        """Return all kinds in the order in which they are removed; each reads what it needs once."""
        now, settings, rules, target = now or datetime.now(UTC), self.settings, self.rules, self.settings.target_bucket
        workspace = Workspace(settings.workspace_path, settings)
        photos = Photos(self.tasks, Published(workspace), lambda: versions.staying())
        models = Models(self.registry, rules.models, photos.shown_predictions, now)
        versions = DatasetVersions(
            workspace, Objects(settings, self.bucket), rules.versions, models.planned_datasets, models.datasets, now
        )
        checkpoints, folder = _embeddings_of(settings), settings.var / "segment-anything" / "embeddings"
        return [
            models, versions,
            UnneededObjects(CACHE, versions, rules.cache, now),
            UnneededObjects(REMOTE, versions, rules.remote, now),
            OldGenerations(versions, rules.generations, now),
            embeddings(self.bucket, target, rules.embeddings, photos, checkpoints, folder, now),
            copies(self.bucket, target, rules.copies, photos, settings.var, now),
            local.CheckPages(self.bucket, target, rules.checks, now),
            local.checkouts(settings.var, rules.checkouts, now),
            local.checkpoints(settings.var, rules.checkpoints, now),
            local.logs(settings.var, rules.logs, now),
        ]  # fmt: skip


def plan(kinds: Sequence[Kind]) -> list[Plan]:
    """Return what goes and stays of each kind; `problem` says why nothing goes of a kind that could not be planned."""
    return [_explained(kind, kind.plan) for kind in track(kinds, "looking", transient=True)]


def remove(kinds: Sequence[Kind], shown: Sequence[Plan]) -> list[Plan]:
    """Remove what was shown and still goes; return what was done, by kind. Kinds with a problem are left out.

    `kinds` are to be new ones, which read again what is in use.
    """
    pairs = list(zip(kinds, shown, strict=True))
    return [
        before if before.problem else _explained(kind, partial(kind.remove, before))
        for kind, before in track(pairs, "removing", transient=True)
    ]


def collect(sources: Sources) -> list[Plan]:
    """Plan and remove in one go; return what was done, by kind."""
    plans = plan(sources.kinds())
    return plans if is_empty(plans) else remove(sources.kinds(), plans)


def require_all(plans: Sequence[Plan]) -> None:
    """Raise ServiceError, which names them, when kinds could not be planned or removed."""
    if problems := [f"{kind.kind}: {kind.problem}" for kind in plans if kind.problem]:
        raise ServiceError("; ".join(problems))


def is_empty(plans: Sequence[Plan]) -> bool:
    """Return whether there is nothing to remove."""
    return not any(kind.go or kind.interrupted or any(kind.freed.values()) for kind in plans)


def as_tables(plans: Sequence[Plan], *, done: bool = False) -> list[Table]:
    """Return what goes and stays as tables for a terminal: by kind, what is kept because it is in use, what goes."""
    tables = [_by_kind(plans, done=done)]
    spared = [(kind.kind, name, why) for kind in plans for name, why in kind.spared.items()]
    going = [(kind.kind, name, lost) for kind in plans for name, lost in kind.go.items() if lost]
    if spared:
        tables.append(_list("Still in use", "kept because", _shortened(spared)))
    if going:
        tables.append(_list("Removed" if done else "What would go", "what it means", _shortened(going)))
    return tables


def _by_kind(plans: Sequence[Plan], *, done: bool) -> Table:
    places = [place for place in PLACES if any(kind.freed.get(place) for kind in plans)]
    table = Table(title="Freed" if done else "What would be freed", title_justify="left")
    for heading in ("kind", "rule", "stay", "gone" if done else "go", *places):
        table.add_column(heading, justify="left" if heading in ("kind", "rule") else "right")
    table.add_column("", overflow="fold")
    for kind in plans:
        freed = [decimal(kind.freed[place]) if kind.freed.get(place) else "" for place in places]
        left = f"the interrupted removal of {', '.join(kind.interrupted)} is completed" if kind.interrupted else ""
        remark = "; ".join(part for part in (kind.problem, left, kind.note) if part)
        unknown = bool(kind.problem) and not kind.go and not kind.stay
        counts = ["?", "?"] if unknown else [str(kind.stay), str(len(kind.go))]
        table.add_row(kind.kind, kind.rule, *counts, *freed, escape(remark))
    total = [decimal(sum(kind.freed.get(place, 0) for kind in plans)) for place in places]
    table.add_section()
    table.add_row("in all", "", "", str(sum(len(kind.go) for kind in plans)), *total, "")
    return table


def _list(title: str, heading: str, rows: Sequence[tuple[str, str, str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("kind", "what", heading):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _shortened(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return the rows, with a count in place of those of a kind after the first ones."""
    kinds = dict.fromkeys(kind for kind, _, _ in rows)
    shown = []
    for kind in kinds:
        of_kind = [row for row in rows if row[0] == kind]
        shown += of_kind[:_LISTED]
        if (more := len(of_kind) - _LISTED) > 0:
            shown.append((kind, f"and {more} more", ""))
    return shown


def _explained(kind: Kind, what: Callable[[], Plan]) -> Plan:
    try:
        return what()
    except (MaskloopError, OSError) as error:
        logger.info("%s: %s", kind.name, error)
        return Plan(kind.name, "", problem=f"nothing is removed: {error}")


def _embeddings_of(settings: Settings) -> tuple[str, ...]:
    """Return what the embeddings in use are named after; nothing when that is not known."""
    from pipelines.segmentation.sam_checkpoints import embeddings_names

    try:
        return embeddings_names(settings.sam_checkpoint)
    except ModelError:
        return ()
