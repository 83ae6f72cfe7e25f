"""Predictions: each task has one at most, and each one that Label Studio drops is noticed."""

import numpy as np
import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.predictions import (
    delete_predictions,
    empty_prediction,
    push_predictions,
    replace_predictions,
    resize_predictions,
)
from pipelines.labelstudio.render import region_json
from pipelines.records import RegionMask

IMPORT = "POST /api/projects/7/import/predictions"
BODY = {"result": [], "score": 0.5, "model_version": "clothing:v3"}


def test_the_newest_prediction_is_brought_up_to_date_and_doubles_go(label_studio) -> None:
    update, duplicate = "PATCH /api/predictions/9/", "DELETE /api/predictions/4/"
    client, server = label_studio({"GET /api/predictions/": [[{"id": 9}, {"id": 4}]], update: [{}], duplicate: [None]})

    assert replace_predictions(client, 1, {"result": [], "score": 0.5, "model_version": "v2"}) == 1
    assert [where for where, _, _ in server.asked] == ["GET /api/predictions/", duplicate, update]


def test_a_task_without_predictions_has_none_to_update(label_studio) -> None:
    client, _ = label_studio({"GET /api/predictions/": [[]]})

    assert replace_predictions(client, 1, {"result": []}) == 0


def test_every_prediction_names_its_task(label_studio) -> None:
    client, server = label_studio({IMPORT: [{"created": 2}]})

    assert push_predictions(client, 7, {4: BODY, 9: BODY}) == 2
    assert [item["task"] for item in server.asked[0][2]] == [4, 9]


def test_a_dropped_prediction_is_noticed(label_studio) -> None:
    client, _ = label_studio({IMPORT: [{"created": 1}]})

    with pytest.raises(ServiceError, match=r"created 1 of 2 .* tasks \[4, 9\]"):
        push_predictions(client, 7, {9: BODY, 4: BODY})


def test_nothing_to_do_asks_nothing(label_studio) -> None:
    client, server = label_studio({})

    assert (push_predictions(client, 7, {}), delete_predictions(client, 7, [])) == (0, 0)
    assert server.asked == []


def test_only_the_given_tasks_lose_their_predictions(label_studio) -> None:
    client, server = label_studio({"POST /api/dm/actions": [{"processed_items": 2}]})

    assert delete_predictions(client, 7, [4, 9]) == 2
    ((_, query, body),) = server.asked
    assert query == {"id": "delete_tasks_predictions", "project": "7"}
    assert body == {"selectedItems": {"all": False, "included": [4, 9]}}


def test_an_empty_prediction_proposes_nothing_and_has_a_place() -> None:
    assert empty_prediction("clothing:v3", 0.5) == BODY


def test_masks_of_predictions_are_brought_to_the_size_of_what_the_task_shows(label_studio) -> None:
    mask, speck = np.zeros((8, 6), bool), np.zeros((8, 6), bool)
    mask[2:6, :3], speck[0, 0] = True, True
    regions = [region_json(RegionMask("coat", mask, 0.9), "a"), region_json(RegionMask("hat", speck, 0.9), "b")]
    update = "PATCH /api/predictions/9/"
    client, server = label_studio({"GET /api/predictions/": [[{"id": 9, "result": regions}]], update: [{}]})

    resize_predictions(client, 1, 4, 3)

    _, (where, _, body) = server.asked
    [coat] = body["result"]
    assert (where, coat["id"], coat["score"]) == (update, "a", 0.9)
    assert (coat["original_height"], coat["original_width"]) == (4, 3)
    np.testing.assert_array_equal(rle_to_mask(coat["value"]["rle"], 4, 3), mask[1::2, 1::2])
