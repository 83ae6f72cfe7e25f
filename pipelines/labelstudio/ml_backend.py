"""Label Studio's ML backend protocol: its requests to records, and records to its answers.

Regions that a click's request already holds are never decoded; only smart prompts are read.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError, PromptError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.controls import IMAGE, ORIGINAL
from pipelines.labelstudio.interface import brush_labels, require_same_labels
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import PredictionJson, RegionJson, TaskData, TaskJson
from pipelines.params import Params
from pipelines.records import PhotoAddress, RegionMask
from pipelines.segmentation.prompts import Prompts, to_pixels


@dataclass(frozen=True)
class PredictRequest:
    """A `/predict` body: the tasks' photos by position, and the smart regions of a click (empty for batches).

    `edited` are the brush regions of a click's context as the page shows them: the first is what the click changes.
    Without a smart region, they are to become one region.
    `shows_masks`: the person who clicks was shown masks of the (only) task, because a prediction of it proposes some.
    `by_label_studio`: Label Studio itself asks, on behalf of a person, and not the prelabel pipeline.
    """

    photos: tuple[PhotoAddress, ...]
    context: tuple[RegionJson, ...]
    edited: tuple[RegionJson, ...] = ()
    shows_masks: bool = False
    by_label_studio: bool = False


def parse_request(body: Any) -> PredictRequest:
    """Read a `/predict` body; raises DataError naming what is missing."""
    tasks = body.get("tasks") if isinstance(body, Mapping) else None
    if not isinstance(tasks, list) or not all(
        isinstance(t, Mapping) and isinstance(t.get("data"), Mapping) for t in tasks
    ):
        raise DataError("the request has no `tasks` with `data`; send what Label Studio sends to /predict")
    params = body.get("params")
    context = (params.get("context") if isinstance(params, Mapping) else None) or {}
    regions = context.get("result") if isinstance(context, Mapping) else None
    regions = regions if isinstance(regions, list) else []
    shapes = [cast(RegionJson, region) for region in regions if isinstance(region, Mapping)]
    return PredictRequest(
        tuple(_photo_address(task["data"]) for task in tasks),
        tuple(region for region in shapes if region.get("type") in ("keypointlabels", "rectanglelabels")),
        tuple(region for region in shapes if region.get("type") == "brushlabels"),
        shows_masks=len(tasks) == 1 and _proposes_regions(tasks[0]),
        by_label_studio=bool(body.get("label_config")),
    )


def parse_mask(region: RegionJson, height: int, width: int) -> NDArray[np.bool_]:
    """Read a brush region of the page as a (height, width) bool mask.

    Raises PromptError when it cannot be read or has another size than the photo.
    """
    try:
        if (int(region["original_height"]), int(region["original_width"])) != (height, width):
            raise PromptError(f"the region {region.get('id')} has another size than the photo; open the photo again")
        return rle_to_mask(region["value"]["rle"], height, width)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(f"the region {region.get('id')} cannot be read ({error}); open the photo again") from error


def parse_prompts(
    regions: Sequence[RegionJson], height: int, width: int, mask: NDArray[np.bool_] | None = None
) -> Prompts:
    """Read smart keypoints and the newest smart box into pixels of the (height, width) upright photo.

    A keypoint with `is_positive` false (Alt-click) is a negative point. `mask` is what the prompts change, if anything;
    a box that comes last redraws it. Raises PromptError for prompts that select nothing or are not numbers.
    """
    coords, is_positive, box, label = [], [], None, ""
    for region in regions:
        try:
            value = region["value"]
            if region["type"] == "keypointlabels":
                coords.append(to_pixels(float(value["x"]), float(value["y"]), height, width))
                is_positive.append(bool(region.get("is_positive", True)))
            else:
                corner = to_pixels(float(value["x"]), float(value["y"]), height, width)
                opposite = float(value["x"]) + float(value["width"]), float(value["y"]) + float(value["height"])
                corners = np.array([corner, to_pixels(*opposite, height, width)], np.float32)
                box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])  # it may be dragged any way
            label = str(cast(Mapping[str, Any], value)[region["type"]][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PromptError(
                f"a smart {region.get('type')} region cannot be read ({error!r}); draw it again"
            ) from error
    if box is not None and (box[2] - box[0] < 1 or box[3] - box[1] < 1):
        box = None
    redraws = box is not None and regions[-1]["type"] == "rectanglelabels"
    return Prompts(np.array(coords, np.float32).reshape(-1, 2), np.array(is_positive, bool), box, label, mask, redraws)


def require_same_labels_in(body: Any, params: Params, model_labels: Collection[str]) -> None:
    """Raise ContractError when the project of a `/setup` body or the model has other labels than params.yaml.

    See `require_same_labels`. A body without the project's `schema`, such as Maskloop itself sends, is not checked.
    """
    schema = body.get("schema") if isinstance(body, Mapping) else None
    if schema:
        require_same_labels(params, offered=brush_labels(str(schema)), model_labels=model_labels)


def batch_answer(predictions: Sequence[PredictionJson | None], model_version: str) -> dict[str, Any]:
    """Answer a batch with predictions as JSON; a task without one gets an empty item, which Label Studio skips."""
    return {"results": [prediction or {} for prediction in predictions] or [{}], "model_version": model_version}


def click_answer(
    mask: NDArray[np.bool_], label: str, score: float, model_version: str, edited: RegionJson | None = None
) -> dict[str, Any]:
    """Answer a click with one brush region; `mask` is (height, width) bool, `score` 0..1.

    The answer to a click that edits a region has its id, with which it replaces the region in the editor. An empty mask
    gives a result without regions, never an empty list of results.
    """
    regions: list[RegionJson] = []
    if mask.any():
        regions = [region_json(RegionMask(label, mask, score), uuid.uuid4().hex[:10])]
        regions[0]["origin"] = "manual"  # a person asked for it
        if edited is not None:
            regions[0]["id"] = str(edited["id"])
            if str(edited.get("origin", "")).startswith("prediction"):
                regions[0]["origin"] = "prediction-changed"
    return {
        "results": [{"result": regions, "score": score, "model_version": model_version}],
        "model_version": model_version,
    }


def empty_answer(model_version: str) -> dict[str, Any]:
    """Answer a request that selects nothing."""
    return {"results": [{"result": [], "score": 0.0, "model_version": model_version}], "model_version": model_version}


def _proposes_regions(task: TaskJson) -> bool:
    predictions = task.get("predictions")
    return isinstance(predictions, list) and any(
        isinstance(prediction, Mapping) and bool(prediction.get("result")) for prediction in predictions
    )


def _photo_address(data: TaskData) -> PhotoAddress:
    generation = str(data.get("generation", ""))
    uri = str(data.get(ORIGINAL) or data.get(IMAGE) or "")
    return PhotoAddress(uri, int(generation) if generation.isdecimal() else 0)
