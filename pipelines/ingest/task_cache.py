"""The project's tasks as ingest remembers them, so that finding what is new costs what moved since the last run.

The memory is a file that may be deleted at any time. It is believed for a day, for its own project, and as long as the
number of tasks fits; else all tasks are listed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.fs import write_atomically
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import LOOK_AT_EVERYTHING, Look, look_at
from pipelines.labelstudio.tasks import is_ours, parse_task
from pipelines.records import ImageRef, PhotoTask


@dataclass(frozen=True)
class _Memory:
    project: str
    tasks: Mapping[int, PhotoTask] = field(default_factory=dict)
    look: Look | None = None
    full_look_at: datetime | None = None


def known_tasks(client: LabelStudioClient, project_id: int, memory: Path) -> list[PhotoTask]:
    """Give every task that Maskloop made, in the order of ids, and remember them in the file `memory`."""
    before = _read(memory, f"{client.url} {project_id}")
    seen = look_at(client, project_id, before.look)
    moved = {task_id: parse_task(raw) for task_id, raw in seen.moved.items() if is_ours(raw)}
    stayed = {one: task for one, task in before.tasks.items() if one in seen.look.tasks and one not in seen.moved}
    tasks = dict(sorted((stayed | moved).items()))
    _write(memory, _Memory(before.project, tasks, seen.look, before.full_look_at or datetime.now(UTC)))
    return list(tasks.values())


def _read(path: Path, project: str) -> _Memory:
    """Read what is remembered of a project; nothing when that cannot be believed."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        tasks = {one: PhotoTask(one, ImageRef(*image), metadata) for one, image, metadata in fields["tasks_shown"]}
        full_look_at = datetime.fromisoformat(fields["full_look_at"])
        found = _Memory(fields["project"], tasks, Look.from_fields(fields), full_look_at)
        is_fresh = datetime.now(UTC) - full_look_at < LOOK_AT_EVERYTHING
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Memory(project)
    return found if found.project == project and is_fresh else _Memory(project)


def _write(path: Path, memory: _Memory) -> None:
    assert memory.look is not None and memory.full_look_at is not None
    fields = {
        "project": memory.project,
        "full_look_at": memory.full_look_at.isoformat(),
        **memory.look.as_fields(),
        "tasks_shown": [[one.id, list(asdict(one.image).values()), one.metadata] for one in memory.tasks.values()],
    }
    write_atomically(path, json.dumps(fields).encode())
