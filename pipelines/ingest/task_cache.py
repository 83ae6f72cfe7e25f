"""A cache of the project's tasks for ingest, so that finding what is new costs what changed since the last run.

The cache is a file that may be deleted at any time. It is valid for its own project and for a day; after that, or when
it cannot be read, all tasks are listed again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.fs import write_atomically
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import FULL_SCAN_INTERVAL, TaskCursor, poll
from pipelines.labelstudio.tasks import is_maskloop_task, parse_task
from pipelines.records import ImageRef, PhotoTask


@dataclass(frozen=True)
class _CachedTasks:
    project: str
    tasks: Mapping[int, PhotoTask] = field(default_factory=dict)
    cursor: TaskCursor | None = None
    full_scan_at: datetime | None = None


def load_tasks(client: LabelStudioClient, project_id: int, cache: Path) -> list[PhotoTask]:
    """Return every task that Maskloop created, in the order of ids, and store them in the file `cache`."""
    cached = _read(cache, f"{client.url} {project_id}")
    changes = poll(client, project_id, cached.cursor)
    changed = {task_id: parse_task(raw) for task_id, raw in changes.changed.items() if is_maskloop_task(raw)}
    unchanged = {
        task_id: task
        for task_id, task in cached.tasks.items()
        if task_id in changes.cursor.tasks and task_id not in changes.changed
    }
    tasks = dict(sorted((unchanged | changed).items()))
    full_scan_at = cached.full_scan_at or datetime.now(UTC)
    _write(cache, _CachedTasks(cached.project, tasks, changes.cursor, full_scan_at))
    return list(tasks.values())


def _read(path: Path, project: str) -> _CachedTasks:
    """Return what is cached of a project; nothing when the cache is not valid."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        tasks = {
            task_id: PhotoTask(task_id, ImageRef(*image), metadata)
            for task_id, image, metadata in fields["tasks_shown"]
        }
        full_scan_at = datetime.fromisoformat(fields["full_look_at"])
        cached = _CachedTasks(fields["project"], tasks, TaskCursor.from_fields(fields), full_scan_at)
        is_recent = datetime.now(UTC) - full_scan_at < FULL_SCAN_INTERVAL
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _CachedTasks(project)
    return cached if cached.project == project and is_recent else _CachedTasks(project)


def _write(path: Path, cached: _CachedTasks) -> None:
    assert cached.cursor is not None and cached.full_scan_at is not None
    tasks = [[task.id, list(asdict(task.image).values()), task.metadata] for task in cached.tasks.values()]
    fields = {
        "project": cached.project,
        "full_look_at": cached.full_scan_at.isoformat(),
        **cached.cursor.as_fields(),
        "tasks_shown": tasks,
    }
    write_atomically(path, json.dumps(fields).encode())
