"""Predictions: their JSON is what the editor draws, and each one that Label Studio drops is noticed."""

import json

import numpy as np
import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio.brush import rle_to_mask
from pipelines.labelstudio.predictions import delete_predictions, prediction_json, push_predictions
from pipelines.records import Prediction, RegionMask

IMPORT = "POST /api/projects/7/import/predictions"


@pytest.fixture
def prediction_of_two_garments() -> Prediction:
    coat, hat = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    coat[1:, :3], hat[0, 4:] = True, True
    regions = RegionMask("long coat", coat, 0.87654321), RegionMask("hat", hat, 0.5)
    return Prediction(regions, 0.75, "clothing:v3", height=4, width=6)


def test_regions_are_brush_strokes_of_the_upright_size(prediction_of_two_garments: Prediction) -> None:
    answer = json.loads(json.dumps(prediction_json(prediction_of_two_garments)))

    assert (answer["score"], answer["model_version"]) == (0.75, "clothing:v3")
    for region, ours in zip(answer["result"], prediction_of_two_garments.regions, strict=True):
        assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "image")
        assert (region["original_height"], region["original_width"], region["image_rotation"]) == (4, 6, 0)
        assert region["value"]["brushlabels"] == [ours.label]
        np.testing.assert_array_equal(rle_to_mask(region["value"]["rle"], 4, 6), ours.mask)


def test_regions_say_where_they_come_from_and_how_sure_the_model_is(prediction_of_two_garments: Prediction) -> None:
    regions = prediction_json(prediction_of_two_garments)["result"]

    assert [(region["id"], region["origin"], region["score"]) for region in regions] == [
        ("00-long-coat", "prediction", 0.8765),
        ("01-hat", "prediction", 0.5),
    ]


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
