"""Predictions into Label Studio, and counted: it drops what it finds invalid without saying so."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import ServiceError
from pipelines.labelstudio.client import LabelStudioClient


def empty_prediction(model_version: str, score: float) -> dict[str, Any]:
    """Return a prediction that proposes nothing: it puts a task into the labeling stream without showing masks.

    Label Studio hands out tasks with a prediction of the project's model version first, those of the lowest `score`
    (0..1) before others.
    """
    return {"result": [], "score": score, "model_version": model_version}


def push_predictions(client: LabelStudioClient, project_id: int, predictions: Mapping[int, dict[str, Any]]) -> int:
    """Import predictions (JSON by task id) and check the count that was created.

    Raises ServiceError when Label Studio dropped some.
    """
    if not predictions:
        return 0
    body = [{"task": task_id, **prediction} for task_id, prediction in predictions.items()]
    created = int(client.post(f"/api/projects/{project_id}/import/predictions", body)["created"])
    if created != len(body):
        raise ServiceError(
            f"Label Studio created {created} of {len(body)} predictions for tasks {sorted(predictions)}; it drops "
            "those that do not fit the labeling interface: compare labels with `maskloop doctor`"
        )
    return created


def replace_predictions(client: LabelStudioClient, task_id: int, prediction: Mapping[str, Any]) -> int:
    """Make this the task's only prediction, in the place of the newest there is; gives 1 when there was one.

    Its id stays, because annotations under way name it as what they started from.
    """
    there = sorted(int(found["id"]) for found in client.get("/api/predictions/", task=task_id))
    for double in there[:-1]:
        client.delete(f"/api/predictions/{double}/")
    if there:
        client.patch(f"/api/predictions/{there[-1]}/", prediction)
    return len(there[-1:])


def delete_predictions(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> int:
    """Delete all predictions of these tasks; gives how many there were."""
    if not task_ids:
        return 0
    selected = {"selectedItems": {"all": False, "included": list(task_ids)}}
    answer = client.post("/api/dm/actions", selected, id="delete_tasks_predictions", project=project_id)
    return int(answer["processed_items"])
