"""Label Studio's ML backend protocol: its requests to records, and records to its answers.

Regions that a click's request already holds are never decoded; only smart prompts are read.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import AnnotationError, DataError, PromptError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.controls import BRUSH, IMAGE, ORIGINAL, SHOWN_SIZE
from pipelines.labelstudio.interface import brush_controls, brush_labels, require_same_labels
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import PredictionJson, RegionJson, RegionValue, TaskData, TaskJson
from pipelines.labelstudio.shapes import ellipse_mask, polygon_mask
from pipelines.params import Params
from pipelines.photos.copies import is_copy_size, resample_mask
from pipelines.records import PhotoAddress, RegionMask
from pipelines.segmentation.prompts import Prompts, to_pixels

_KEYPOINT, _RECTANGLE, _POLYGON, _ELLIPSE = "keypointlabels", "rectanglelabels", "polygonlabels", "ellipselabels"
_PROMPTS = (_KEYPOINT, _RECTANGLE, _POLYGON, _ELLIPSE)


@dataclass(frozen=True)
class PredictRequest:
    """A `/predict` body: the tasks' photos by position, and the smart regions of a click (empty for batches).

    `edited` are the brush regions of a click's context as the page shows them: the first is what the click changes.
    Without a smart region, they are to become one region.
    `controls` are the names of the brush control and of its image by label, as the project's labeling interface has
    them; empty when the request does not say.
    `shows_masks`: the person who clicks was shown masks of the (only) task, because a prediction of it proposes some.
    `by_label_studio`: Label Studio itself asks, on behalf of a person, and not the prelabel pipeline.
    `copies` are the tasks' sizes as (height, width) where they show a smaller copy of the photo, None elsewhere.
    """

    photos: tuple[PhotoAddress, ...]
    context: tuple[RegionJson, ...]
    edited: tuple[RegionJson, ...] = ()
    shows_masks: bool = False
    by_label_studio: bool = False
    controls: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    copies: tuple[tuple[int, int] | None, ...] = ()

    def mask_size(self, position: int, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which a task shows its (height, width) photo, in pixels."""
        copy = self.copies[position]
        return copy if copy and is_copy_size(copy, (height, width)) else (height, width)

    def click_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the page of a click shows its (height, width) photo, in pixels."""
        sizes = [_size_of(region) for region in (*self.edited, *self.context)]
        return next((size for size in sizes if size and is_copy_size(size, (height, width))), (height, width))

    def control_of(self, label: str, known: Collection[str]) -> tuple[str, str] | None:
        """Return the names of the brush control and of its image for a label; None when nothing offers the label.

        Without a labeling interface they are Maskloop's own, for the labels that are `known`.
        """
        if self.controls:
            return self.controls.get(label)
        return (BRUSH, IMAGE) if label in known else None


def parse_request(body: Any) -> PredictRequest:
    """Read a `/predict` body, whose `tasks` may be one task; raises DataError naming what is missing."""
    tasks = body.get("tasks") if isinstance(body, Mapping) else None
    if isinstance(tasks, Mapping):
        tasks = [tasks]
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
        tuple(region for region in shapes if region.get("type") in _PROMPTS),
        tuple(region for region in shapes if region.get("type") == "brushlabels"),
        shows_masks=len(tasks) == 1 and _proposes_regions(tasks[0]),
        by_label_studio=bool(body.get("label_config")),
        controls=brush_controls(str(body.get("label_config") or "")),
        copies=tuple(_copy_size(task["data"]) for task in tasks),
    )


def parse_mask(region: RegionJson, height: int, width: int) -> NDArray[np.bool_]:
    """Read a brush region of the page, which may show a smaller copy of the photo, as a (height, width) bool mask.

    Raises PromptError when it cannot be read or has another size than the photo and its copies.
    """
    size = _size_of(region)
    if size is None or not is_copy_size(size, (height, width)):
        raise PromptError(f"the region {region.get('id')} has another size than the photo; open the photo again")
    try:
        return resample_mask(rle_to_mask(region["value"]["rle"], *size), height, width)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PromptError(f"the region {region.get('id')} cannot be read ({error}); open the photo again") from error


def by_label(regions: Sequence[RegionJson]) -> dict[str, list[RegionJson]]:
    """Return smart regions by their label, in the order of their first regions.

    Raises PromptError for one without a label.
    """
    labelled: dict[str, list[RegionJson]] = {}
    for region in regions:
        try:
            label = str(cast(Mapping[str, Any], region["value"])[region["type"]][0])
        except (LookupError, TypeError, ValueError) as error:
            raise _unreadable(region, error) from error
        labelled.setdefault(label, []).append(region)
    return labelled


def parse_prompts(
    regions: Sequence[RegionJson], height: int, width: int, mask: NDArray[np.bool_] | None = None,
    *, from_clicks: bool = False,
) -> Prompts:  # fmt: skip
    """Read smart keypoints and the newest smart shape into pixels of the (height, width) upright photo.

    A keypoint whose `is_positive` is false (Alt-click) is a negative point; one outside of the photo selects nothing. A
    polygon or an ellipse is the box around it, with its centre as positive point if that is inside. The label is that
    of the last region. `mask` is what the prompts change, if anything; a shape that comes last redraws it. With
    `from_clicks` the same clicks made it from nothing. Raises PromptError for prompts that select nothing or are not
    numbers.
    """
    coords, is_positive, box = [], [], None
    inside: list[tuple[float, float]] = []
    for region in regions:
        try:
            value = region["value"]
            if region["type"] == _KEYPOINT:
                x, y = float(value["x"]), float(value["y"])
                point = to_pixels(x, y, height, width)
                if 0 <= x <= 100 and 0 <= y <= 100:
                    coords.append(point)
                    is_positive.append(bool(region.get("is_positive", True)))
            else:
                corners, inside = _SHAPES[region["type"]](value, height, width)
                box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])  # it may be dragged any way
        except (AnnotationError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _unreadable(region, error) from error
    label = list(by_label(regions[-1:]))[-1] if regions else ""
    if box is not None and (box[2] - box[0] < 1 or box[3] - box[1] < 1):
        box = None
    points = np.array([*inside, *coords], np.float32).reshape(-1, 2)  # the newest point stands last
    flags = np.array([*(True for _ in inside), *is_positive], bool)
    redraws = box is not None and regions[-1]["type"] != _KEYPOINT
    return Prompts(points, flags, box, label, mask, redraws, from_clicks and mask is not None)


_Corners = tuple[NDArray[np.float32], list[tuple[float, float]]]


def _rectangle_prompt(value: RegionValue, height: int, width: int) -> _Corners:
    """Return two corners of a smart rectangle, (2, 2) in (x, y) pixels; it has no point inside."""
    x, y = float(value["x"]), float(value["y"])
    opposite = x + float(value["width"]), y + float(value["height"])
    return np.array([to_pixels(x, y, height, width), to_pixels(*opposite, height, width)], np.float32), []


def _polygon_prompt(value: RegionValue, height: int, width: int) -> _Corners:
    """Return the corners of a smart polygon, (N, 2) in (x, y) pixels, and its centroid if that is inside."""
    filled = polygon_mask(value, height, width)
    corners = [to_pixels(float(x), float(y), height, width) for x, y in value["points"]]
    rows, columns = filled.nonzero()
    centre = (float(columns.mean()), float(rows.mean())) if rows.size else (0.0, 0.0)
    inside = rows.size > 0 and bool(filled[round(centre[1]), round(centre[0])])
    return np.array(corners, np.float32), [centre] if inside else []


def _ellipse_prompt(value: RegionValue, height: int, width: int) -> _Corners:
    """Return two corners of the box around a smart ellipse, (2, 2) in (x, y) pixels, and its centre if on the photo."""
    rows, columns = ellipse_mask(value, height, width).nonzero()
    x, y = float(value["x"]), float(value["y"])
    centre = to_pixels(x, y, height, width)
    if not rows.size:
        return np.array([centre, centre], np.float32), []
    corners = np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)], np.float32)
    return corners.clip(0, (width - 1, height - 1)), [centre] if 0 <= x <= 100 and 0 <= y <= 100 else []


_SHAPES: Mapping[str, Callable[[RegionValue, int, int], _Corners]] = {
    _RECTANGLE: _rectangle_prompt,
    _POLYGON: _polygon_prompt,
    _ELLIPSE: _ellipse_prompt,
}


def _unreadable(region: RegionJson, error: Exception) -> PromptError:
    return PromptError(f"a smart {region.get('type')} region cannot be read ({error!r}); draw it again")


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


def click_region(
    mask: NDArray[np.bool_],
    label: str,
    score: float,
    control: tuple[str, str] = (BRUSH, IMAGE),
    edited: RegionJson | None = None,
    size: tuple[int, int] | None = None,
    unchanged: bool = False,
) -> Iterator[RegionJson]:
    """Yield the brush region that answers a click; none for an empty mask.

    `mask` is (height, width) bool, `score` 0..1, `control` the names of the brush control and its image. The answer to
    a click that edits a region has its id, with which it replaces the region in the editor. `size` is the
    (height, width) of what the page shows, if that is a smaller copy. The page says so where a click leaves the mask
    `unchanged`.
    """
    if size is not None:
        mask = resample_mask(mask, *size)
    if not mask.any():
        return
    region = region_json(RegionMask(label, mask, score), uuid.uuid4().hex[:10])
    region["from_name"], region["to_name"] = control
    region["origin"] = "manual"  # a person asked for it
    if edited is not None:
        region["id"] = str(edited.get("id") or region["id"])
        if str(edited.get("origin", "")).startswith("prediction"):
            region["origin"] = "prediction-changed"
    if unchanged:
        region["meta"] = {"unchanged": "true"}
    yield region


def click_answer(regions: Sequence[RegionJson], model_version: str) -> dict[str, Any]:
    """Answer a click with regions; none give a result without regions, never an empty list of results."""
    score = min((region.get("score", 0.0) for region in regions), default=0.0)
    return {
        "results": [{"result": list(regions), "score": score, "model_version": model_version}],
        "model_version": model_version,
    }


def empty_answer(model_version: str) -> dict[str, Any]:
    """Answer a request that selects nothing."""
    return click_answer([], model_version)


def _proposes_regions(task: TaskJson) -> bool:
    predictions = task.get("predictions")
    return isinstance(predictions, list) and any(
        isinstance(prediction, Mapping) and bool(prediction.get("result")) for prediction in predictions
    )


def _size_of(region: RegionJson) -> tuple[int, int] | None:
    """Return the (height, width) on which a region was drawn; None when it does not say."""
    try:
        return int(region["original_height"]), int(region["original_width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _copy_size(data: TaskData) -> tuple[int, int] | None:
    height, width = (str(data.get(key, "")) for key in SHOWN_SIZE)
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() else None


def _photo_address(data: TaskData) -> PhotoAddress:
    generation = str(data.get("generation", ""))
    uri = str(data.get(ORIGINAL) or data.get(IMAGE) or "")
    return PhotoAddress(uri, int(generation) if generation.isdecimal() else 0)
