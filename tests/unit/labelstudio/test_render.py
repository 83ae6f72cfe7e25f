"""Rendered regions are what the editor draws, and say where they come from."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.render import prediction_json, region_id, version_of_region
from pipelines.records import Prediction, RegionScore


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
