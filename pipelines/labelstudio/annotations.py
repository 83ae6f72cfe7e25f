"""Annotations out of Label Studio as records; their JSON is kept whole, because it is the labels' only source."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.tasks import is_ours, pages, parse_image, parse_metadata
from pipelines.records import Annotation

_PAGE = 50  # a page holds every brush stroke of its tasks: some megabytes


def list_annotations(client: LabelStudioClient, project_id: int) -> Iterator[Annotation]:
    """Give every submitted or skipped annotation of our tasks; drafts are not annotations."""
    people = {int(user["id"]): str(user["email"]) for user in client.get("/api/users")}
    for filter_name in ("total_annotations", "cancelled_annotations"):
        wanted = {"filter": f"filter:tasks:{filter_name}", "operator": "greater", "type": "Number", "value": 0}
        for task in pages(client, project_id, page_size=_PAGE, fields="all", filters=[wanted]):
            if is_ours(task):
                for raw in task["annotations"]:
                    if bool(raw["was_cancelled"]) == (filter_name == "cancelled_annotations"):
                        yield parse_annotation(raw, task, people)


def parse_annotation(raw: Mapping[str, Any], task: Mapping[str, Any], people: Mapping[int, str]) -> Annotation:
    """Read one annotation of a task's JSON; `people` maps user ids to addresses."""
    who = raw["completed_by"]
    user = int(who["id"] if isinstance(who, Mapping) else who)
    versions = {int(p["id"]): str(p["model_version"]) for p in task.get("predictions", ())}
    return Annotation(
        uuid=str(raw["unique_id"]),
        task_id=int(task["id"]),
        image=parse_image(task["data"]),
        metadata=parse_metadata(task["data"]),
        annotator=people.get(user, f"user {user}"),
        updated_at=datetime.fromisoformat(str(raw["updated_at"]).replace("Z", "+00:00")),
        lead_time_s=float(raw["lead_time"] or 0),
        cancelled=bool(raw["was_cancelled"]),
        prediction_version=versions.get(int(raw["parent_prediction"] or 0), ""),
        raw=dict(raw),
    )
