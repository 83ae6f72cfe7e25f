"""A click model answers only when it needs fewer clicks than what answers now, by more than chance."""

import json

import numpy as np
import pandas as pd
import pytest

from pipelines.params import Params
from pipelines.training.clicks_gate import as_markdown, best_answers, decide_clicks
from pipelines.training.evaluate_clicks import CURVE, TARGETS

LEVEL = 0.025


def rows(
    noc: float, *, families: int = 20, garments: int = 3, box: float = 0.7, harm: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """What a segmenter reaches that needs so many clicks on the average."""
    chance = np.random.default_rng(seed)
    count = families * garments
    needed = np.clip(noc + np.repeat(chance.normal(0, 1, families), garments) + chance.normal(0, 0.5, count), 1, 20)
    table = pd.DataFrame(
        {
            "photo": np.repeat([f"p{n}" for n in range(families)], garments),
            "family": np.repeat([f"f{n}" for n in range(families)], garments),
            "label": ["coat", "skirt", "hat"][:garments] * families, "share": 0.1, "box": box, "seconds": 0.05,
            "start": 0.6, "mask_noc85": needed / 2,
        }
    )  # fmt: skip
    for number in range(1, CURVE + 1):
        table[f"iou_{number}"] = 0.7
    for target in TARGETS:
        table[f"noc{100 * target:.0f}"] = needed
        table[f"reached{100 * target:.0f}"] = needed < 20
    worse = np.arange(count) < round(harm * count)
    for number in range(1, 5):
        table[f"mask_{number}"] = np.where(worse, 0.5, 0.8)
    return table


def test_fewer_clicks_are_promoted_with_the_interval(params: Params) -> None:
    decision = decide_clicks(rows(5), rows(9, seed=1), "grabcut", params.promote, LEVEL, 0)

    assert decision.promote
    assert "fewer clicks per garment than grabcut" in decision.reason
    mean, low, high = decision.saved
    assert 0 < low < mean < high
    assert json.loads(decision.as_json())["test_families"] == sorted(f"f{n}" for n in range(20))


def test_the_same_model_is_not_better_than_itself(params: Params) -> None:
    assert not decide_clicks(rows(5), rows(5), "clicks:v1", params.promote, LEVEL, 0).promote


def test_equal_models_are_promoted_no_more_often_than_the_level(params: Params) -> None:
    promoted = [
        decide_clicks(rows(5, seed=2 * n), rows(5, seed=2 * n + 1), "clicks:v1", params.promote, LEVEL, 0).promote
        for n in range(200)
    ]
    assert sum(promoted) <= 12  # of 200 with 2.5 %: more have a chance below one in a thousand


def test_a_model_that_makes_masks_worse_is_not_promoted(params: Params) -> None:
    decision = decide_clicks(rows(3, harm=0.3), rows(9), "grabcut", params.promote, LEVEL, 0)

    assert not decision.promote
    assert "30% of its first clicks on a mask make it worse" in decision.reason


def test_a_few_photos_decide_nothing(params: Params) -> None:
    decision = decide_clicks(rows(3, families=3), rows(9, families=3), "grabcut", params.promote, LEVEL, 0)

    assert not decision.promote
    assert "only 3 independent test photos" in decision.reason


def test_each_kind_of_prompts_has_its_own_winner() -> None:
    measured = {"clicks": rows(4, box=0.7), "grabcut": rows(8, box=0.6), "sam": rows(6, box=0.9)}

    assert best_answers(measured) == {"point": "clicks", "box": "sam", "edit": "clicks"}


def test_a_tuned_decoder_answers_where_it_is_better_than_the_plain_one() -> None:
    measured = {"clicks": rows(6), "sam": rows(6, box=0.9), "tuned_sam": rows(4, box=0.9)}

    assert best_answers(measured) == {"point": "tuned_sam", "box": "sam", "edit": "tuned_sam"}


def test_of_equals_the_learned_model_answers_and_grabcut_last() -> None:
    assert best_answers({"grabcut": rows(4), "sam": rows(4), "clicks": rows(4)})["point"] == "clicks"
    assert best_answers({"grabcut": rows(4), "sam": rows(4)})["point"] == "sam"


@pytest.mark.parametrize("with_masks", [True, False])
def test_the_page_shows_all_that_were_measured(params: Params, with_masks: bool) -> None:
    clicks, grabcut = rows(4), rows(8)
    if not with_masks:
        columns = [column for column in clicks if column == "start" or column.startswith("mask_")]
        clicks, grabcut = clicks.drop(columns=columns), grabcut.drop(columns=columns)
    measured = {"clicks": clicks, "grabcut": grabcut}
    decision = decide_clicks(clicks, grabcut, "grabcut", params.promote, LEVEL, 0)

    page = as_markdown(decision, measured, best_answers(measured))

    assert "| clicks | 0.70 / 0.70 / 0.70" in page
    assert "| grabcut |" in page
    assert "point: clicks" in page
