"""What pre-labels were worth, from annotations whose pixels are known."""

from typing import Any

import numpy as np
import pytest

from pipelines.effort import measure_effort
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.records import ImageRef, RegionMask

PHOTO = ImageRef("gs://archive/a.jpg", 1, "ab" * 32, 4, 4)


def coat(rows: int, origin: str = "prediction") -> dict[str, Any]:
    """A coat over the first rows of the 4×4 photo."""
    mask = np.zeros((4, 4), bool)
    mask[:rows] = True
    return {**region_json(RegionMask("coat", mask, 1.0), "r"), "origin": origin}


def annotation(*regions: dict[str, Any], started_from: list[dict[str, Any]] | None, **changes: Any) -> dict[str, Any]:
    prediction = {"model_version": "clothing:v1", "result": started_from} if started_from is not None else None
    fields = {"was_cancelled": False, "lead_time": 10, "parent_prediction": 1 if prediction else None}
    return {**fields, "result": list(regions), "prediction": prediction, **changes}


@pytest.fixture
def studio_with(label_studio):
    """Make a Label Studio with one annotated task per annotation."""

    def make(*annotations: dict[str, Any]):
        tasks = [{"id": number, "data": task_data(PHOTO, {})} for number in range(len(annotations))]
        listed = [{**task, "total_annotations": 1} for task in tasks]
        exported = [{**task, "annotations": [one]} for task, one in zip(tasks, annotations, strict=True)]
        answers = {
            "GET /api/tasks": [{"total": len(tasks), "tasks": listed}],
            "GET /api/projects/7/export": [exported],
        }
        return label_studio(answers)[0]

    return make


def test_an_accepted_prelabel_cost_nothing(studio_with, two_labels: Params) -> None:
    effort = measure_effort(studio_with(annotation(coat(2), started_from=[coat(2)])), 7, two_labels)

    assert (effort.annotations, effort.regions, effort.untouched, effort.untouched_share) == (1, 1, 1, 1.0)
    assert effort.prelabel_miou == 1.0


def test_a_corrected_prelabel_shows_in_the_iou(studio_with, two_labels: Params) -> None:
    corrected = annotation(coat(2, "prediction-changed"), started_from=[coat(3)])

    effort = measure_effort(studio_with(corrected), 7, two_labels)

    assert effort.untouched_share == 0
    assert effort.prelabel_miou == pytest.approx((8 / 12 + 4 / 8) / 2)


def test_drawn_by_hand_has_no_prelabel_to_compare(studio_with, two_labels: Params) -> None:
    effort = measure_effort(studio_with(annotation(coat(2, "manual"), started_from=None)), 7, two_labels)

    assert (effort.regions, effort.untouched) == (1, 0)
    assert np.isnan(effort.prelabel_miou)


def test_skipped_tasks_do_not_count_and_time_is_the_median(studio_with, two_labels: Params) -> None:
    effort = measure_effort(
        studio_with(
            *(annotation(coat(2), started_from=[coat(2)], lead_time=seconds) for seconds in (4, 8, 90)),
            annotation(started_from=None, was_cancelled=True, lead_time=1000),
        ),
        7,
        two_labels,
    )

    assert (effort.annotations, effort.median_seconds) == (3, 8)


def test_without_annotations_there_are_no_figures(label_studio, two_labels: Params) -> None:
    client, _ = label_studio({"GET /api/tasks": [{"total": 0, "tasks": []}]})

    effort = measure_effort(client, 7, two_labels)

    assert (effort.annotations, effort.median_seconds, effort.untouched_share) == (0, 0.0, 0.0)
