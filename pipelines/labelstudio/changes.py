"""What happened to annotations since the last look: tasks that moved are read again as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.labelstudio.annotations import export_tasks, parse_annotation
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.looks import Look, look_at
from pipelines.labelstudio.tasks import is_ours
from pipelines.records import Annotation


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
