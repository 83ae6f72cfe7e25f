"""Label Studio's annotations as records, with their JSON kept whole: it is the only source of the labels.

They are read through the export, the only endpoint that names an annotation's `unique_id`; Label Studio uses integer
ids again after a deletion.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.planted import outcome_of_planted
from pipelines.labelstudio.prelabel_diff import proposal_of
from pipelines.labelstudio.render import version_of_region
from pipelines.labelstudio.schema import AnnotationJson, TaskJson
from pipelines.labelstudio.tasks import parse_image, parse_metadata
from pipelines.records import Annotation

UNKNOWN_MODEL = "unknown"  # some program drew regions and left no name
_TASKS_PER_EXPORT = 50  # an export holds every brush stroke of its tasks: some megabytes


def export_tasks(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskJson]:
    """Yield the export JSON of these tasks, with all their annotations; drafts are not annotations."""
    for start in range(0, len(task_ids), _TASKS_PER_EXPORT):
        query = {"exportType": "JSON", "ids[]": list(task_ids[start : start + _TASKS_PER_EXPORT])}
        tasks: list[TaskJson] = client.get(f"/api/projects/{project_id}/export", **query)
        yield from tasks


def parse_annotation(raw: AnnotationJson, task: TaskJson, people: Mapping[int, str], ignore_label: str) -> Annotation:
    """Read one annotation of a task's export JSON; `people` maps user ids to addresses.

    The record names the version of the prediction that the annotation started from, and compares both, without the
    pixels of regions with the label `ignore_label`. The prediction's own strokes are left out of `raw`.
    """
    author, image = raw["completed_by"], parse_image(task["data"])
    user = int(author["id"] if isinstance(author, dict) else author)
    kept = raw.copy()
    kept.pop("prediction", None)
    return Annotation(
        uuid=str(raw["unique_id"]),
        task_id=int(task["id"]),
        image=image,
        metadata=parse_metadata(task["data"]),
        annotator=people.get(user, f"user {user}"),
        updated_at=datetime.fromisoformat(raw["updated_at"]),
        lead_time_s=float(raw["lead_time"] or 0),
        cancelled=bool(raw["was_cancelled"]),
        prediction_version=prediction_version_of(raw),
        raw=kept,
        proposal=proposal_of(raw, image, ignore_label) if started_from_its_prediction(raw) else None,
        planted=outcome_of_planted(raw, image),
    )


def started_from_its_prediction(raw: AnnotationJson) -> bool:
    """Return whether the prediction that Label Studio kept beside an annotation is the one that was corrected."""
    prediction = raw.get("prediction")
    if not prediction:
        return False
    return prediction_version_of(raw) == prediction.get("model_version")


def prediction_version_of(raw: AnnotationJson) -> str:
    """Return the model version whose masks an annotation started from; empty when no model drew any of it.

    A prediction can be updated or deleted while somebody has the photo open. So the regions' own ids count first, also
    after regions were copied from another annotation. The copy of the prediction that Label Studio keeps counts second:
    whoever deleted all that it proposed has seen it. A prediction that proposed nothing showed nothing.
    """
    drawn_by = {version_of_region(str(region.get("id", ""))) for region in raw["result"]} - {""}
    if drawn_by:
        return max(drawn_by)
    prediction = raw.get("prediction")
    if prediction and prediction.get("result"):
        return str(prediction.get("model_version") or UNKNOWN_MODEL)
    origins = {region.get("origin") for region in raw["result"]}
    return UNKNOWN_MODEL if origins & {"prediction", "prediction-changed"} else ""
