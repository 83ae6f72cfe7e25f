"""Predictions into Label Studio, with a check of the count: it drops invalid ones without a word."""

from collections.abc import Mapping, Sequence

from pipelines.errors import ServiceError
from pipelines.labelstudio.brush_rle import mask_to_rle, rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.schema import PredictionJson, RegionJson, RegionValue
from pipelines.photos.copies import resample_mask

UNCERTAIN, AT_RANDOM = "uncertain", "random"  # what the queue chose a photo for


def empty_prediction(model_version: str, score: float) -> PredictionJson:
    """Return a prediction that proposes nothing: it puts a task into the label stream without showing masks.

    Label Studio serves tasks with a prediction of the project's model version first, those of the lowest `score` (0..1)
    before others.
    """
    return {"result": [], "score": score, "model_version": model_version}


def with_reason(prediction: PredictionJson, why: str) -> PredictionJson:
    """Return the prediction with what the queue chose its photo for, `UNCERTAIN` or `AT_RANDOM`, in each region.

    The page shows it beside the photo. It travels in the regions, because the editor passes on nothing else of a
    prediction. The page says of each photo without regions that it was chosen at random; so it cannot tell apart the
    photos that nobody is to recognize: blind photos, controls and gold photos.
    """
    regions: list[RegionJson] = [{**region, "meta": {"why": why}} for region in prediction.get("result", ())]
    return {**prediction, "result": regions}


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


def resize_predictions(client: LabelStudioClient, task_id: int, height: int, width: int) -> None:
    """Bring the masks of a task's predictions to the size of what the task shows, (height, width) in pixels.

    Ids and model versions stay. A region of which nothing is left at that size is left out.
    """
    stored: list[PredictionJson] = client.get("/api/predictions/", task=task_id)
    for prediction in stored:
        regions = [_resized(region, height, width) for region in prediction.get("result", [])]
        result = [region for region in regions if region is not None]
        client.patch(f"/api/predictions/{prediction['id']}/", {"result": result})


def _resized(region: RegionJson, height: int, width: int) -> RegionJson | None:
    size = int(region["original_height"]), int(region["original_width"])
    mask = resample_mask(rle_to_mask(region["value"]["rle"], *size), height, width)
    if not mask.any():
        return None
    value: RegionValue = {**region["value"], "rle": mask_to_rle(mask)}
    return {**region, "original_height": height, "original_width": width, "value": value}


def delete_predictions(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> int:
    """Delete all predictions of these tasks; returns how many there were."""
    if not task_ids:
        return 0
    selected = {"selectedItems": {"all": False, "included": list(task_ids)}}
    answer = client.post("/api/dm/actions", selected, id="delete_tasks_predictions", project=project_id)
    return int(answer["processed_items"])
