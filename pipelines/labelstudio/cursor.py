"""Which tasks changed since the last poll of a project; a poll costs what changed, not what exists.

Label Studio moves a task's `updated_at` whenever its data change, or an annotation is written, changed or deleted.
Deleted tasks leave no trace: they show in the number of tasks, and then all ids are compared. The time of a poll comes
from Label Studio's own clock. Polls overlap, because a change may become visible later than it is dated. Tasks in the
overlap that look the same as before are not reported again, unless they changed so shortly before the last poll that
part of the change may still have been invisible then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipelines.labelstudio.annotations import export_tasks, parse_annotation
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.schema import TaskJson, UserJson
from pipelines.labelstudio.tasks import count_tasks, is_maskloop_task, list_task_json
from pipelines.records import Annotation

OVERLAP = timedelta(minutes=10)
FULL_SCAN_INTERVAL = timedelta(hours=24)  # after it, a cached cursor is discarded and everything is read again
_UNSETTLED = timedelta(minutes=1)
_PAGE = 1000


@dataclass(frozen=True)
class TaskCursor:
    """Where the next poll of a project starts: all task ids, and when the newest change was, by Label Studio's clock.

    `settled` holds, for tasks that the next poll will see again, the state in which they need not be reported again.
    """

    tasks: frozenset[int]
    newest: datetime | None
    settled: Mapping[int, str] = field(default_factory=dict)

    def as_fields(self) -> dict[str, Any]:
        """Return the cursor as JSON fields."""
        return {
            "tasks": sorted(self.tasks),
            "newest": self.newest.isoformat() if self.newest else None,
            "settled": {str(task): state for task, state in self.settled.items()},
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "TaskCursor":
        """Read what `as_fields` wrote; raises KeyError, TypeError, ValueError or AttributeError for anything else."""
        newest = datetime.fromisoformat(fields["newest"]) if fields["newest"] else None
        settled = {int(task): str(state) for task, state in fields["settled"].items()}
        return cls(frozenset(int(task) for task in fields["tasks"]), newest, settled)


@dataclass(frozen=True)
class TaskChanges:
    """What a poll saw: Data Manager JSON of each task that changed, by id; ids of deleted tasks; and the new cursor."""

    changed: Mapping[int, TaskJson]
    deleted: frozenset[int]
    cursor: TaskCursor


def poll(client: LabelStudioClient, project_id: int, last: TaskCursor | None) -> TaskChanges:
    """Return the tasks that changed since the `last` poll, or all tasks when there was none."""
    since = last.newest - OVERLAP if last and last.newest else None
    recent = _tasks_by_id(client, project_id, _changed_since(since))
    known = frozenset(recent) | (last.tasks if last and since else frozenset())
    settled_before = last.settled if last else {}
    changed = {task_id: task for task_id, task in recent.items() if settled_before.get(task_id) != _state(task)}
    current = known
    if since and count_tasks(client, project_id) != len(known):
        everything = _tasks_by_id(client, project_id, {})
        current = frozenset(everything)
        # Tasks that are new but dated earlier: somebody set the clock back, or restored the database.
        changed |= {task_id: task for task_id, task in everything.items() if task_id not in known}
    deleted = (last.tasks if last else frozenset()) - current
    return TaskChanges(changed, deleted, _next_cursor(last, current, recent))


def _next_cursor(last: TaskCursor | None, tasks: frozenset[int], recent: Mapping[int, TaskJson]) -> TaskCursor:
    dates = {task_id: datetime.fromisoformat(task["updated_at"]) for task_id, task in recent.items()}
    newest = max([*dates.values(), *([last.newest] if last and last.newest else [])], default=None)
    settled = {
        task_id: _state(recent[task_id])
        for task_id, date in dates.items()
        if newest and newest - OVERLAP <= date < newest - _UNSETTLED
    }
    return TaskCursor(tasks, newest, settled)


def _tasks_by_id(client: LabelStudioClient, project_id: int, query: Mapping[str, Any]) -> dict[int, TaskJson]:
    return {int(task["id"]): task for task in list_task_json(client, project_id, page_size=_PAGE, query=query)}


def _state(task: TaskJson) -> str:
    return f"{task['updated_at']} {task.get('total_annotations')} {task.get('cancelled_annotations')}"


def _changed_since(since: datetime | None) -> dict[str, Any]:
    if since is None:
        return {}
    value = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    item = {"filter": "filter:tasks:updated_at", "operator": "greater_or_equal", "type": "Datetime", "value": value}
    return {"filters": {"conjunction": "and", "items": [item]}}


@dataclass(frozen=True)
class Changes:
    """The annotations that the tasks in `read` hold now, the ids of tasks that are `gone`, and the new cursor.

    An annotation of a task in `read` or `gone` that is not among `annotations` does not exist any more.
    """

    annotations: tuple[Annotation, ...]
    read: frozenset[int]
    gone: frozenset[int]
    cursor: TaskCursor


def read_changes(client: LabelStudioClient, project_id: int, last: TaskCursor | None, ignore_label: str) -> Changes:
    """Read the annotations of tasks that changed since the `last` poll, or all of them when there was none.

    Skipped and empty annotations are among them; drafts are not annotations. `ignore_label` is that of params.yaml:
    comparisons with predictions leave its regions out.
    """
    changes = poll(client, project_id, last)
    annotated = sorted(
        task_id for task_id, task in changes.changed.items() if is_maskloop_task(task) and _is_annotated(task)
    )
    users: list[UserJson] = client.get("/api/users") if annotated else []
    people = {int(user["id"]): str(user["email"]) for user in users}
    annotations = tuple(
        parse_annotation(raw, task, people, ignore_label)
        for task in export_tasks(client, project_id, annotated)
        for raw in task["annotations"]
    )
    return Changes(annotations, frozenset(changes.changed), changes.deleted, changes.cursor)


def _is_annotated(task: TaskJson) -> bool:
    return int(task.get("total_annotations") or 0) + int(task.get("cancelled_annotations") or 0) > 0
