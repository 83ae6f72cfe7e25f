"""Predictions: their JSON is what the editor draws, and each one that Label Studio drops is noticed."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ServiceError
from pipelines.labelstudio.brush import rle_to_mask
from pipelines.labelstudio.predictions import (
    delete_predictions,
    prediction_json,
    push_predictions,
    region_id,
    replace_predictions,
    version_of_region,
)
from pipelines.records import Prediction, RegionScore

IMPORT = "POST /api/projects/7/import/predictions"


@pytest.fixture
def prediction_of_two_garments() -> Prediction:
    mask = np.zeros((4, 6), np.uint8)
    mask[1:, :3], mask[0, 4:] = 3, 7
    regions = RegionScore("long coat", 3, 0.87654321), RegionScore("hat", 7, 0.5)
    return Prediction(mask, regions, 0.75, "clothing:v3")


def test_regions_are_brush_strokes_of_the_upright_size(prediction_of_two_garments: Prediction) -> None:
    answer = json.loads(json.dumps(prediction_json(prediction_of_two_garments)))

    assert (answer["score"], answer["model_version"]) == (0.75, "clothing:v3")
    for region, ours in zip(answer["result"], prediction_of_two_garments.regions, strict=True):
        assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "image")
        assert (region["original_height"], region["original_width"], region["image_rotation"]) == (4, 6, 0)
        assert region["value"]["brushlabels"] == [ours.label]
        wanted = prediction_of_two_garments.mask == ours.label_id
        np.testing.assert_array_equal(rle_to_mask(region["value"]["rle"], 4, 6), wanted)


def test_regions_say_where_they_come_from_and_how_sure_the_model_is(prediction_of_two_garments: Prediction) -> None:
    regions = prediction_json(prediction_of_two_garments)["result"]

    assert [(region["id"], region["origin"], region["score"]) for region in regions] == [
        ("clothing_3av3--long-coat", "prediction", 0.8765),
        ("clothing_3av3--hat", "prediction", 0.5),
    ]


@given(st.sampled_from(["clothing:v12", "cold-start:b2_clothes@0a1b2c3d", "sam:vit_b", "a--b"]), st.text())
def test_a_region_tells_which_model_drew_it(version: str, label: str) -> None:
    name = region_id(version, label or "coat")

    assert re.fullmatch(r"[\w-]+", name, re.ASCII)
    assert version_of_region(name) == (version if "--" not in version else "a")


@pytest.mark.parametrize("region", ["x8Kq2-_h1", "hand-3", "", "--coat"])
def test_what_people_drew_names_no_model(region: str) -> None:
    assert version_of_region(region) == ""


def test_the_newest_prediction_is_brought_up_to_date_and_doubles_go(label_studio) -> None:
    update, double = "PATCH /api/predictions/9/", "DELETE /api/predictions/4/"
    client, server = label_studio({"GET /api/predictions/": [[{"id": 9}, {"id": 4}]], update: [{}], double: [None]})

    assert replace_predictions(client, 1, {"result": [], "score": 0.5, "model_version": "v2"}) == 1
    assert [where for where, _, _ in server.asked] == ["GET /api/predictions/", double, update]


def test_a_task_without_predictions_has_none_to_bring_up_to_date(label_studio) -> None:
    client, _ = label_studio({"GET /api/predictions/": [[]]})

    assert replace_predictions(client, 1, {"result": []}) == 0


def test_every_prediction_names_its_task(label_studio, prediction_of_two_garments: Prediction) -> None:
    client, server = label_studio({IMPORT: [{"created": 2}]})
    body = prediction_json(prediction_of_two_garments)

    assert push_predictions(client, 7, {4: body, 9: body}) == 2
    assert [item["task"] for item in server.asked[0][2]] == [4, 9]


def test_a_dropped_prediction_is_noticed(label_studio, prediction_of_two_garments: Prediction) -> None:
    client, _ = label_studio({IMPORT: [{"created": 1}]})
    body = prediction_json(prediction_of_two_garments)

    with pytest.raises(ServiceError, match=r"created 1 of 2 .* tasks \[4, 9\]"):
        push_predictions(client, 7, {9: body, 4: body})


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
