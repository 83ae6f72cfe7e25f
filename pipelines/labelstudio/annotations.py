"""Annotations out of Label Studio as records; their JSON is kept whole, because it is the labels' only source.

They are read through the export, the only answer that names an annotation's `unique_id`; integer ids are used again
after a deletion.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.planted import fate_of_planted
from pipelines.labelstudio.prelabel_diff import proposal_of
from pipelines.labelstudio.render import version_of_region
from pipelines.labelstudio.tasks import parse_image, parse_metadata
from pipelines.records import Annotation

UNKNOWN_MODEL = "unknown"  # some program drew regions and left no name
_BATCH = 50  # an answer holds every brush stroke of its tasks: some megabytes


def export_tasks(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Give the export JSON of these tasks, with all their annotations; drafts are not annotations."""
    for start in range(0, len(task_ids), _BATCH):
        query = {"exportType": "JSON", "ids[]": list(task_ids[start : start + _BATCH])}
        yield from client.get(f"/api/projects/{project_id}/export", **query)


def parse_annotation(raw: Mapping[str, Any], task: Mapping[str, Any], people: Mapping[int, str]) -> Annotation:
    """Read one annotation of a task's export JSON; `people` maps user ids to addresses.

    The prediction it started from is named by version and compared with it; its strokes are left out.
    """
    who, image = raw["completed_by"], parse_image(task["data"])
    user = int(who["id"] if isinstance(who, Mapping) else who)
    return Annotation(
        uuid=str(raw["unique_id"]),
        task_id=int(task["id"]),
        image=image,
        metadata=parse_metadata(task["data"]),
        annotator=people.get(user, f"user {user}"),
        updated_at=datetime.fromisoformat(str(raw["updated_at"]).replace("Z", "+00:00")),
        lead_time_s=float(raw["lead_time"] or 0),
        cancelled=bool(raw["was_cancelled"]),
        prediction_version=_prediction_version(raw),
        raw={key: value for key, value in raw.items() if key != "prediction"},
        proposal=proposal_of(raw, image) if started_from_its_prediction(raw) else None,
        planted=fate_of_planted(raw, image),
    )


def started_from_its_prediction(raw: Mapping[str, Any]) -> bool:
    """Tell whether the prediction that Label Studio kept beside an annotation is the one that was corrected."""
    prediction = raw.get("prediction") or {}
    return bool(prediction) and _prediction_version(raw) == prediction.get("model_version")


def _prediction_version(raw: Mapping[str, Any]) -> str:
    """Tell which model version's masks an annotation started from; empty when no model drew any of it.

    A prediction can be brought up to date, or deleted, while somebody has the photo open. So what regions say of
    themselves comes first (also after they were copied from somebody else's annotation), and then the copy of the
    prediction that Label Studio keeps: whoever deleted all that it proposed has seen it. One that proposed nothing
    showed nothing.
    """
    drawn_by = {version_of_region(str(region.get("id", ""))) for region in raw["result"]} - {""}
    if drawn_by:
        return max(drawn_by)
    prediction = raw.get("prediction") or {}
    if prediction.get("result"):
        return str(prediction.get("model_version") or UNKNOWN_MODEL)
    origins = {region.get("origin") for region in raw["result"]}
    return UNKNOWN_MODEL if origins & {"prediction", "prediction-changed"} else ""
