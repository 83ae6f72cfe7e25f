"""What pre-labels saved, from manifests whose pixels and seconds are known."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.effort import effort_by_model, effort_of


def photo(version: str, seconds: float, untouched: int = 0, changed: int = 0, manual: int = 0, deleted: int = 0,
          pixels: dict[str, tuple[int, int, int]] | None = None) -> dict[str, Any]:  # fmt: skip
    return {
        "prediction_version": version, "lead_time_s": seconds, "regions_untouched": untouched,
        "regions_changed": changed, "regions_manual": manual, "regions_deleted": deleted,
        "prelabel_pixels": json.dumps(pixels) if pixels else "",
    }  # fmt: skip


def test_regions_are_counted_by_what_became_of_them_and_models_stand_in_order() -> None:
    table = pd.DataFrame([
        photo("clothing:v10", 8, untouched=1),
        photo("clothing:v9", 10, untouched=2, changed=1, manual=1, deleted=1),
        photo("clothing:v9", 20, untouched=3),
        photo("", 90, manual=3),
    ])  # fmt: skip

    found = effort_by_model(table)

    assert list(found) == ["", "clothing:v9", "clothing:v10"]
    nine = found["clothing:v9"]
    assert (nine.photos, nine.untouched, nine.corrected, nine.drawn, nine.deleted) == (2, 5, 1, 1, 1)
    assert nine.shares == {"untouched": 5 / 8, "corrected": 1 / 8, "drawn": 1 / 8, "deleted": 1 / 8}
    assert nine.untouched_share == 5 / 7  # of what was submitted
    assert nine.seconds == 15


def test_iou_is_taken_over_the_pixels_of_all_photos_and_the_labels_that_were_submitted() -> None:
    table = pd.DataFrame([
        photo("clothing:v1", 1, pixels={"": (60, 50, 50), "coat": (40, 50, 40)}),
        photo("clothing:v1", 1, pixels={"": (90, 100, 90), "coat": (0, 0, 0), "hat": (10, 0, 0)}),
    ])  # fmt: skip

    effort = effort_by_model(table)["clothing:v1"]

    assert effort.iou == pytest.approx({"": 140 / 160, "coat": 40 / 50})  # nobody submitted a hat
    assert effort.miou == pytest.approx((140 / 160 + 0.8) / 2)


def test_hours_saved_follow_the_stated_formula() -> None:
    by_hand = [photo("", 30 * regions, manual=regions) for regions in (1, 2, 3, 4, 5)]  # 30 s per region
    corrected = [photo("clothing:v1", 20, untouched=2), photo("clothing:v1", 40, untouched=1, changed=2),
                 photo("clothing:v1", 5000, untouched=2)]  # fmt: skip  # left open over lunch

    found = effort_by_model(pd.DataFrame([*by_hand, *corrected]))

    assert found["clothing:v1"].hours_saved == pytest.approx(3 * (30 * 2 - 20) / 3600)
    assert found[""].hours_saved is None


def test_without_photos_drawn_from_nothing_hours_saved_are_not_told() -> None:
    found = effort_by_model(pd.DataFrame([photo("", 30, manual=1), photo("clothing:v1", 3, untouched=1)]))

    assert found["clothing:v1"].hours_saved is None
    assert "labelers/hours_saved" not in found["clothing:v1"].as_metrics()


def test_manifests_of_earlier_versions_can_be_read() -> None:
    table = pd.DataFrame([photo("clothing:v1", 3, untouched=1)]).drop(columns=["regions_deleted", "prelabel_pixels"])

    effort = effort_by_model(table)["clothing:v1"]

    assert (effort.deleted, effort.iou) == (0, {})
    assert np.isnan(effort.miou)


def test_photos_of_a_round_are_taken_together() -> None:
    effort = effort_of(pd.DataFrame([photo("clothing:v1", 3, untouched=1), photo("", 9, manual=1)]))

    assert (effort.photos, effort.untouched_share, effort.seconds) == (2, 0.5, 6)


def test_figures_have_names_for_mlflow() -> None:
    effort = effort_of(pd.DataFrame([photo("clothing:v1", 3, untouched=1, pixels={"": (5, 5, 5), "coat": (2, 2, 1)})]))

    assert effort.as_metrics() == pytest.approx({
        "labelers/photos": 1, "labelers/seconds_per_photo": 3, "labelers/untouched_share": 1,
        "labelers/corrected_share": 0, "labelers/drawn_share": 0, "labelers/deleted_share": 0,
        "labelers/prelabel_miou": (1 + 1 / 3) / 2, "labelers/iou/background": 1, "labelers/iou/coat": 1 / 3,
    })  # fmt: skip
