"""Label Studio's JSON as types: what its endpoints send and accept, as far as Maskloop reads or writes it.

The types describe; they check nothing. JSON comes in where `LabelStudioClient.get` is called, and the variable that
takes the answer names its shape. Code that reads what people or other programs may have written still expects missing
keys and strange values.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

# Beside the photo's identity stand the catalogue's columns; tasks that Maskloop did not create hold anything.
TaskData = Mapping[str, Any]


class RegionValue(TypedDict, total=False):
    """What a region covers and its label; which keys there are follows from the region's `type`.

    Coordinates and sizes are percent of the photo, `rotation` is degrees clockwise.
    """

    brushlabels: list[str]
    polygonlabels: list[str]
    rectanglelabels: list[str]
    ellipselabels: list[str]
    bitmasklabels: list[str]
    keypointlabels: list[str]
    format: str  # "rle", of brush regions
    rle: list[int]  # see `brush_rle`
    points: list[list[float]]  # corners of a polygon as [x, y]
    x: float
    y: float
    width: float
    height: float
    radiusX: float
    radiusY: float
    rotation: float
    imageDataURL: str  # of a bitmask: a PNG as data URL


class RegionJson(TypedDict):
    """One region: an item of `result` in predictions and annotations, and of a click's context in POST /predict."""

    id: str
    type: str
    value: RegionValue
    from_name: str
    to_name: str
    original_width: int
    original_height: int
    image_rotation: NotRequired[int]
    origin: NotRequired[str]  # "prediction" (untouched), "prediction-changed" or "manual"
    score: NotRequired[float]
    is_positive: NotRequired[bool]  # of smart keypoints; false for an Alt-click
    from_clicks: NotRequired[bool]  # of an edited region in a click's context: the same clicks made it from nothing
    meta: NotRequired[dict[str, str]]  # kept with a region: `why` of `predictions`, `unchanged` of clicks


class PredictionJson(TypedDict):
    """One prediction: of GET and PATCH /api/predictions/, POST /api/projects/ID/import/predictions, and /predict.

    An exported annotation carries a copy of the prediction that it started from. A PATCH names only what changes.
    """

    model_version: str
    result: NotRequired[list[RegionJson]]
    score: NotRequired[float]
    id: NotRequired[int]
    task: NotRequired[int]


class UserJson(TypedDict):
    """A user: of GET /api/users, and in `completed_by` of some exports."""

    id: int
    email: str


class AnnotationJson(TypedDict):
    """One submitted annotation: of GET /api/projects/ID/export, the only endpoint that gives `unique_id`."""

    id: int
    unique_id: str
    completed_by: int | UserJson
    result: list[RegionJson]
    was_cancelled: bool  # the task was skipped
    ground_truth: NotRequired[bool]
    updated_at: str  # ISO 8601 in UTC
    lead_time: float | None  # seconds
    parent_prediction: NotRequired[int | None]
    prediction: NotRequired[PredictionJson | None]


class TaskJson(TypedDict):
    """One task: of the Data Manager's GET /api/tasks; of GET /api/projects/ID/export, with all its `annotations`;
    and of POST /predict.
    """

    id: int
    data: TaskData
    updated_at: NotRequired[str]  # ISO 8601 in UTC
    is_labeled: NotRequired[bool]
    total_annotations: NotRequired[int]  # without skipped ones
    cancelled_annotations: NotRequired[int]
    total_predictions: NotRequired[int]
    predictions_model_versions: NotRequired[str | None]  # separated by commas
    draft_exists: NotRequired[bool]
    drafts: NotRequired[list[Any]]
    annotations: NotRequired[list[AnnotationJson]]
    predictions: NotRequired[list[PredictionJson]]


class TaskPage(TypedDict):
    """One page of the Data Manager's GET /api/tasks."""

    tasks: list[TaskJson]
    total: int  # tasks on all pages


class ControlJson(TypedDict, total=False):
    """One control of the labeling interface, in `parsed_label_config`."""

    labels: list[str]


class ProjectJson(TypedDict):
    """One project: of GET /api/projects/ and GET /api/projects/ID/."""

    id: int
    title: str
    label_config: NotRequired[str]  # XML
    parsed_label_config: NotRequired[dict[str, ControlJson]]  # by the control's name
    model_version: NotRequired[str | None]  # whose predictions the label stream shows


class BackendJson(TypedDict):
    """One connected ML backend: of GET /api/ml."""

    id: int
    title: str
    url: str
    is_interactive: bool
    auth_method: str
    state: str  # "CO" when it is connected
    error_message: NotRequired[str | None]
