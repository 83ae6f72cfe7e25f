"""A training begins when enough is new, or when something new has waited long enough."""

from datetime import UTC, datetime, timedelta

import pandas as pd

from pipelines.params import RetrainParams
from pipelines.training.policy import new_annotations, why_wait

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
