"""Predictions into Label Studio, and counted: it drops what it finds invalid without saying so."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import ServiceError
from pipelines.labelstudio.brush import mask_to_rle
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.interface import BRUSH, IMAGE
from pipelines.records import Prediction, RegionMask


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """Render a prediction as Label Studio's JSON: brush regions with scores, and the model version."""
    regions = [
        region_json(region, f"{number:02d}-{region.label}".replace(" ", "-"))
        for number, region in enumerate(prediction.regions)
    ]
    return {"result": regions, "score": prediction.score, "model_version": prediction.model_version}


def region_json(region: RegionMask, region_id: str, *, control: str = BRUSH) -> dict[str, Any]:
    """Render one region as a brush region; `control` names the brush tag of the interface."""
    height, width = region.mask.shape
    return {
        "id": region_id,
        "from_name": control,
        "to_name": IMAGE,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": mask_to_rle(region.mask), "brushlabels": [region.label]},
        "score": round(region.score, 4),
    }


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


def delete_predictions(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> int:
    """Delete all predictions of these tasks; gives how many there were."""
    if not task_ids:
        return 0
    selected = {"selectedItems": {"all": False, "included": list(task_ids)}}
    answer = client.post("/api/dm/actions", selected, id="delete_tasks_predictions", project=project_id)
    return int(answer["processed_items"])
