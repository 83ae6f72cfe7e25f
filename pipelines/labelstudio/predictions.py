"""Predictions into Label Studio, with a check of the count: it drops invalid ones without a word."""

from collections.abc import Mapping, Sequence

from pipelines.errors import ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.schema import PredictionJson


def empty_prediction(model_version: str, score: float) -> PredictionJson:
    """Return a prediction that proposes nothing: it puts a task into the label stream without showing masks.

    Label Studio serves tasks with a prediction of the project's model version first, those of the lowest `score` (0..1)
    before others.
    """
    return {"result": [], "score": score, "model_version": model_version}


def push_predictions(client: LabelStudioClient, project_id: int, predictions: Mapping[int, PredictionJson]) -> int:
    """Import predictions (JSON by task id) and check the count that was created.

    Raises ServiceError when Label Studio dropped some.
    """
    if not predictions:
        return 0
    body: list[PredictionJson] = [{**prediction, "task": task_id} for task_id, prediction in predictions.items()]
    created = int(client.post(f"/api/projects/{project_id}/import/predictions", body)["created"])
    if created != len(body):
        raise ServiceError(
            f"Label Studio created {created} of {len(body)} predictions for tasks {sorted(predictions)}; it drops "
            "those that do not fit the labeling interface: compare labels with `maskloop doctor`"
        )
    return created


def replace_predictions(client: LabelStudioClient, task_id: int, prediction: PredictionJson) -> int:
    """Make this the task's only prediction, in place of the newest one; returns 1 when there was one, else 0.

    The id stays, because annotations in progress refer to it as the prediction that they started from.
    """
    existing: list[PredictionJson] = client.get("/api/predictions/", task=task_id)
    ids = sorted(int(stored["id"]) for stored in existing)
    if not ids:
        return 0
    for duplicate in ids[:-1]:
        client.delete(f"/api/predictions/{duplicate}/")
    client.patch(f"/api/predictions/{ids[-1]}/", prediction)
    return 1


def delete_predictions(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> int:
    """Delete all predictions of these tasks; returns how many there were."""
    if not task_ids:
        return 0
    selected = {"selectedItems": {"all": False, "included": list(task_ids)}}
    answer = client.post("/api/dm/actions", selected, id="delete_tasks_predictions", project=project_id)
    return int(answer["processed_items"])
