"""Wrong regions on purpose: their ids tell, and so does the copy of the prediction that Label Studio keeps."""

from typing import Any

import numpy as np
import pytest

from pipelines.labelstudio.annotations import parse_annotation
from pipelines.labelstudio.planted import is_planted, outcome_of_planted, planted_json
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import task_data
from pipelines.records import ImageRef, Prediction, RegionMask, RegionScore

PHOTO = ImageRef("gs://archive/photos/a.jpg", 1, "ab" * 32, 20, 10)


def rows(first: int, last: int) -> np.ndarray:
    mask = np.zeros((20, 10), bool)
    mask[first:last] = True
    return mask


def drawn(label: str, mask: np.ndarray, region_id: str = "x8Kq2", origin: str = "manual") -> dict[str, Any]:
    return {**region_json(RegionMask(label, mask, 1.0), region_id), "origin": origin}


@pytest.fixture
def planted() -> dict[str, Any]:
    """A prediction whose coat is right, and whose long skirt is wrong."""
    mask = np.where(rows(0, 10), 3, np.where(rows(10, 20), 17, 0)).astype(np.uint8)
    regions = RegionScore("coat", 3, 0.9), RegionScore("long skirt", 17, 0.8)
    return planted_json(Prediction(mask, regions, 0.85, "clothing:v4"), "long skirt")


def submitted(result: list[dict[str, Any]], prediction: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    return {
        "unique_id": "u", "completed_by": 5, "result": result, "was_cancelled": False, "lead_time": 9.0,
        "updated_at": "2026-01-02T03:04:05Z", "parent_prediction": 99 if prediction else None,
        "prediction": prediction or {}, **changes,
    }  # fmt: skip


def test_region_ids_tell_the_wrong_one_from_the_right_ones(planted: dict[str, Any]) -> None:
    assert [region["id"] for region in planted["result"]] == ["gold--coat", "planted--long-skirt"]
    assert planted["model_version"] == "clothing:v4", "or the label stream would not serve the photo"


def test_a_region_left_as_it_was_is_missed(planted: dict[str, Any]) -> None:
    assert outcome_of_planted(submitted(planted["result"], planted), PHOTO) == "missed"


@pytest.mark.parametrize(
    "also",
    [
        drawn("hat", rows(0, 2)),
        drawn("coat", rows(10, 11)),  # a stroke over its edge
    ],
)
def test_work_beside_it_does_not_find_it(planted: dict[str, Any], also: dict[str, Any]) -> None:
    assert outcome_of_planted(submitted([*planted["result"], also], planted), PHOTO) == "missed"


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], id="all thrown away"),
        pytest.param([drawn("coat", rows(0, 10), "gold--coat", "prediction")], id="deleted"),
        pytest.param([drawn("dress", rows(10, 20), "planted--long-skirt", "prediction-changed")], id="other label"),
        pytest.param([drawn("long skirt", rows(10, 15), "planted--long-skirt", "prediction-changed")], id="erased"),
        pytest.param([drawn("coat", rows(0, 20))], id="drawn anew, no region left"),
    ],
)
def test_a_region_that_somebody_did_something_about_is_found(planted: dict[str, Any], left: list[Any]) -> None:
    assert outcome_of_planted(submitted(left, planted), PHOTO) == "found"


@pytest.mark.parametrize("label", ["dress", "unclear"])
def test_a_region_that_another_one_covers_is_found(planted: dict[str, Any], label: str) -> None:
    covered = [*planted["result"], drawn(label, rows(10, 20))]
    assert outcome_of_planted(submitted(covered, planted), PHOTO) == "found"


@pytest.mark.parametrize(
    ("origin", "outcome"), [("prediction", "missed"), ("prediction-changed", "found"), (None, "found")]
)
def test_without_the_copy_the_region_itself_tells(planted: dict[str, Any], origin: str | None, outcome: str) -> None:
    """Label Studio keeps none when another model became champion while somebody had the photo open."""
    coat, skirt = planted["result"]
    left = [coat, {**skirt, "origin": origin}] if origin else [coat]
    assert outcome_of_planted(submitted(left, None, parent_prediction=99), PHOTO) == outcome


def test_of_a_damaged_copy_the_region_itself_tells_as_well(planted: dict[str, Any]) -> None:
    coat, skirt = planted["result"]
    damaged = {**planted, "result": [coat, {**skirt, "value": {}}]}
    assert outcome_of_planted(submitted(planted["result"], damaged), PHOTO) == "missed"


def test_usual_work_is_not_planted(planted: dict[str, Any]) -> None:
    usual = {"model_version": "clothing:v4", "result": [drawn("coat", rows(0, 10), "clothing_3av4--coat")]}
    assert outcome_of_planted(submitted(usual["result"], usual), PHOTO) == ""
    assert outcome_of_planted(submitted([drawn("coat", rows(0, 10))], None), PHOTO) == ""
    assert not is_planted(usual["result"])


def test_a_copy_beside_work_that_did_not_start_from_it_says_nothing(planted: dict[str, Any]) -> None:
    """Label Studio keeps the task's prediction beside whatever is submitted."""
    by_hand = submitted([drawn("coat", rows(0, 10))], planted, parent_prediction=None)
    assert outcome_of_planted(by_hand, PHOTO) == ""


@pytest.mark.parametrize("result", [None, "x", [None, 7], [{"id": 3}]])
def test_json_of_any_shape_is_read(planted: dict[str, Any], result: Any) -> None:
    assert outcome_of_planted(submitted(result, planted), PHOTO) == "found"
    assert outcome_of_planted({**submitted([], None), "result": result, "prediction": None}, PHOTO) == ""


def test_an_annotation_says_whether_it_was_planted(planted: dict[str, Any]) -> None:
    task = {"id": 4, "data": task_data(PHOTO, {})}

    annotation = parse_annotation(submitted(planted["result"], planted), task, {5: "ada@archive.test"}, "unclear")

    assert (annotation.planted, annotation.proposal) == ("missed", None), "it says nothing of any model"
    assert annotation.prediction_version != "", "it was not drawn blind"
