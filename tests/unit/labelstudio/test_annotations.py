"""Annotations: whose, of which photo at which generation, started from which model."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.labelstudio.annotations import UNKNOWN_MODEL, export_tasks, parse_annotation
from pipelines.labelstudio.render import region_id
from pipelines.labelstudio.tasks import task_data
from pipelines.records import ImageRef

PHOTO = ImageRef("gs://archive/photos/a.jpg", 1700000000000000, "ab" * 32, 4, 6)
EXPORT = "GET /api/projects/7/export"


def submitted(**changes: Any) -> dict[str, Any]:
    return {
        "id": 12,
        "unique_id": "7d0f3a2e-0000-4000-8000-000000000001",
        "completed_by": 5,
        "result": [{"id": "r1"}],
        "was_cancelled": False,
        "updated_at": "2026-01-02T03:04:05.678Z",
        "lead_time": 12.5,
        "parent_prediction": 99,
        "prediction": {"model_version": "clothing:v2", "result": [{"id": "r0"}]},
        **changes,
    }


def task(task_id: int = 4, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": task_id, "data": task_data(PHOTO, {"year": "1999"}), "annotations": list(annotations)}


def test_an_annotation_carries_photo_person_time_and_model() -> None:
    annotation = parse_annotation(submitted(), task(), {5: "ada@archive.test"}, "unclear")

    assert annotation.uuid == "7d0f3a2e-0000-4000-8000-000000000001"
    assert (annotation.image, annotation.metadata) == (PHOTO, {"year": "1999"})
    assert (annotation.annotator, annotation.lead_time_s) == ("ada@archive.test", 12.5)
    assert annotation.updated_at == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert annotation.prediction_version == "clothing:v2"


def test_the_strokes_are_kept_whole_and_those_of_the_prediction_are_not() -> None:
    raw = submitted()

    annotation = parse_annotation(raw, task(), {}, "unclear")

    assert annotation.raw == {key: value for key, value in raw.items() if key != "prediction"}


EMPTY = {"model_version": "clothing:v2", "result": []}  # what puts a photo into the stream without masks
OF_V3 = region_id("clothing:v3", "coat")


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": EMPTY},
        {"prediction": EMPTY, "result": []},
        {"prediction": None, "parent_prediction": None},
        {"prediction": None},
        {"prediction": {}},
    ],
)
def test_drawn_from_nothing_names_no_model(changes: dict[str, Any]) -> None:
    annotation = parse_annotation(submitted(**changes), task(), {}, "unclear")
    assert (annotation.prediction_version, annotation.proposal) == ("", None)


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({"parent_prediction": None}, "clothing:v2"),  # the prediction was deleted; its copy stayed
        ({"result": []}, "clothing:v2"),  # all that it proposed was deleted by somebody who had seen it
        ({"result": [{"id": "r1"}, {"id": OF_V3}]}, "clothing:v3"),  # it was brought up to date meanwhile
        ({"result": [{"id": OF_V3}], "prediction": None, "parent_prediction": None}, "clothing:v3"),
        ({"result": [{"id": OF_V3}], "prediction": EMPTY, "parent_annotation": 7}, "clothing:v3"),  # copied
        ({"prediction": {"result": [{"id": "r0"}]}}, UNKNOWN_MODEL),
        ({"result": [{"id": "r1", "origin": "prediction-changed"}], "prediction": None}, UNKNOWN_MODEL),
    ],
)
def test_what_a_model_had_a_part_in_names_the_model(changes: dict[str, Any], version: str) -> None:
    assert parse_annotation(submitted(**changes), task(), {}, "unclear").prediction_version == version


@pytest.mark.parametrize(("who", "name"), [({"id": 5}, "ada@archive.test"), (5, "ada@archive.test"), (6, "user 6")])
def test_annotators_are_known_by_address_or_number(who: Any, name: str) -> None:
    assert parse_annotation(submitted(completed_by=who), task(), {5: "ada@archive.test"}, "unclear").annotator == name


def test_a_skipped_task_is_a_cancelled_annotation() -> None:
    annotation = parse_annotation(submitted(was_cancelled=True, lead_time=None), task(), {}, "unclear")

    assert annotation.cancelled
    assert annotation.lead_time_s == 0


def test_tasks_are_exported_in_batches(label_studio) -> None:
    client, server = label_studio({EXPORT: [[task(1)], [task(51)]]})

    exported = list(export_tasks(client, 7, range(1, 52)))

    assert [task["id"] for task in exported] == [1, 51]
    assert [query["ids[]"] for _, query, _ in server.asked][1] == "51"


def test_without_tasks_nothing_is_exported(label_studio) -> None:
    client, server = label_studio({EXPORT: [[]]})

    assert list(export_tasks(client, 7, [])) == []
    assert EXPORT not in [where for where, _, _ in server.asked]
