"""A training begins when enough is new, or when something new has waited long enough."""

from datetime import UTC, datetime, timedelta

import pandas as pd

from pipelines.params import Params, RetrainParams
from pipelines.training.policy import new_annotations, why_no_clicks, why_wait

NOW = datetime(2026, 5, 1, tzinfo=UTC)
POLICY = RetrainParams(min_new_annotations=20, max_days=7)


def manifest(**masks: str) -> pd.DataFrame:
    """A row per photo: its name, and its mask's hash."""
    return pd.DataFrame({"sha256": list(masks), "mask_sha256": list(masks.values()),
                         "annotations": [[f"{name}-1"] for name in masks]})  # fmt: skip


def test_everything_is_new_to_the_first_training() -> None:
    assert new_annotations(manifest(a="1", b="2"), None) == 2


def test_new_photos_and_other_masks_count_and_what_is_gone_does_not() -> None:
    assert new_annotations(manifest(a="1", b="x", d="4"), manifest(a="1", b="2", c="3")) == 2


def test_several_annotators_count_each() -> None:
    table = manifest(a="1").assign(annotations=[["u", "v"]])
    assert new_annotations(table, None) == 2


def test_enough_annotations_begin_a_training_at_once() -> None:
    assert why_wait(POLICY, 20, NOW, NOW) is None


def test_few_annotations_wait_and_are_told_for_what() -> None:
    reason = why_wait(POLICY, 19, NOW - timedelta(days=3), NOW)

    assert reason is not None
    assert all(part in reason for part in ("19 annotations", "3 days", "20 (retrain.min_new_annotations)", "7 days"))


def test_after_some_days_a_single_one_is_enough() -> None:
    assert why_wait(POLICY, 1, NOW - timedelta(days=7), NOW) is None


DAY = timedelta(days=1)


def test_the_next_click_model_waits_until_photos_have_grown(params: Params) -> None:
    assert params.clicks.min_growth == 1.5
    assert why_no_clicks(params, 60, 40, DAY) is None
    reason = why_no_clicks(params, 59, 40, DAY)
    assert reason is not None
    assert all(part in reason for part in ("40 photos", "trained on 60 (clicks.min_growth)", "7 days"))


def test_after_some_days_one_photo_more_is_enough_for_it_and_none_is_not(params: Params) -> None:
    assert why_no_clicks(params, 41, 40, 7 * DAY) is None
    assert why_no_clicks(params, 40, 40, 70 * DAY) is not None
    assert why_no_clicks(params, 30, 40, 70 * DAY) is not None, "photos were removed"


def test_it_can_be_trained_with_every_dataset(params: Params) -> None:
    always = params.model_copy(update={"clicks": params.clicks.model_copy(update={"min_growth": 1.0})})
    assert why_no_clicks(always, 40, 40, timedelta()) is None
