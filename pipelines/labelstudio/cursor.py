"""Which tasks moved since the last look at a project, at the cost of what moved and not of what exists.

Label Studio moves a task's `updated_at` with every change of its data and every annotation that is written, changed or
deleted. Deleted tasks leave no trace; they show in the number of tasks, and then the ids are compared. The time of the
last look comes from Label Studio's own clock, and looks overlap, because a change may become visible later than it is
dated; of the tasks in the overlap those that look as they did are not given again, unless they moved so shortly before
that something of it may have been on its way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipelines.labelstudio.annotations import export_tasks, parse_annotation
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.tasks import count_tasks, is_ours, pages
from pipelines.records import Annotation

OVERLAP = timedelta(minutes=10)
LOOK_AT_EVERYTHING = timedelta(hours=24)  # after which a memory of earlier looks is not believed any more
_UNSETTLED = timedelta(minutes=1)
_PAGE = 1000


@dataclass(frozen=True)
class Look:
    """What a look at a project saw: all tasks it holds, when the newest of them was changed, and what tells that.

    `settled` holds, of tasks that the next look will see again, the state in which they need not be given again.
    """

    tasks: frozenset[int]
    newest: datetime | None
    settled: Mapping[int, str] = field(default_factory=dict)

    def as_fields(self) -> dict[str, Any]:
        """Give the look as JSON keeps it."""
        return {
            "tasks": sorted(self.tasks),
            "newest": self.newest.isoformat() if self.newest else None,
            "settled": {str(task): state for task, state in self.settled.items()},
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Look":
        """Read what `as_fields` gave; raises KeyError, TypeError, ValueError or AttributeError for anything else."""
        newest = datetime.fromisoformat(fields["newest"]) if fields["newest"] else None
        settled = {int(task): str(state) for task, state in fields["settled"].items()}
        return cls(frozenset(int(task) for task in fields["tasks"]), newest, settled)


@dataclass(frozen=True)
class Seen:
    """What a look found: JSON of the Data Manager by id of each task that moved, ids that are gone, and the look."""

    moved: Mapping[int, Mapping[str, Any]]
    gone: frozenset[int]
    look: Look


def look_at(client: LabelStudioClient, project_id: int, last: Look | None) -> Seen:
    """Find what moved since the `last` look, or everything when there was none."""
    since = last.newest - OVERLAP if last and last.newest else None
    found = {int(raw["id"]): raw for raw in pages(client, project_id, page_size=_PAGE, query=_moved_since(since))}
    known = frozenset(found) | (last.tasks if last and since else frozenset())
    seen_before = last.settled if last else {}
    moved = {task_id: raw for task_id, raw in found.items() if seen_before.get(task_id) != _state(raw)}
    there = known
    if since and count_tasks(client, project_id) != len(known):
        everything = {int(raw["id"]): raw for raw in pages(client, project_id, page_size=_PAGE, query={})}
        there = frozenset(everything)
        moved |= {task_id: raw for task_id, raw in everything.items() if task_id not in known}  # its clock was put back
    dates = {task_id: _date(raw["updated_at"]) for task_id, raw in found.items()}
    newest = max([*dates.values(), *([last.newest] if last and last.newest else [])], default=None)
    settled = {
        task_id: _state(found[task_id])
        for task_id, date in dates.items()
        if newest and newest - OVERLAP <= date < newest - _UNSETTLED
    }
    return Seen(moved, (last.tasks if last else frozenset()) - there, Look(there, newest, settled))


def _state(raw: Mapping[str, Any]) -> str:
    return f"{raw['updated_at']} {raw.get('total_annotations')} {raw.get('cancelled_annotations')}"


def _moved_since(since: datetime | None) -> dict[str, Any]:
    if since is None:
        return {}
    value = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    item = {"filter": "filter:tasks:updated_at", "operator": "greater_or_equal", "type": "Datetime", "value": value}
    return {"filters": {"conjunction": "and", "items": [item]}}


def _date(text: str) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


@dataclass(frozen=True)
class Changes:
    """What a look found: the annotations that the tasks in `read` hold now, and the tasks that are gone.

    Whatever is known of a task in `read` or `gone` and is not among `annotations` does not exist any more.
    """

    annotations: tuple[Annotation, ...]
    read: frozenset[int]
    gone: frozenset[int]
    look: Look


def read_changes(client: LabelStudioClient, project_id: int, last: Look | None) -> Changes:
    """Read what changed since the `last` look, or everything when there was none.

    Skipped and empty annotations are among the annotations; drafts are not annotations.
    """
    seen = look_at(client, project_id, last)
    wanted = [task_id for task_id, raw in seen.moved.items() if is_ours(raw) and _is_annotated(raw)]
    people = {int(user["id"]): str(user["email"]) for user in client.get("/api/users")} if wanted else {}
    annotations = tuple(
        parse_annotation(raw, task, people)
        for task in export_tasks(client, project_id, sorted(wanted))
        for raw in task["annotations"]
    )
    return Changes(annotations, frozenset(seen.moved), seen.gone, seen.look)


def _is_annotated(raw: Mapping[str, Any]) -> bool:
    return int(raw.get("total_annotations") or 0) + int(raw.get("cancelled_annotations") or 0) > 0
