"""Usage of pre-labels, from regions whose pixels are known."""

from typing import Any

import numpy as np
import pytest

from pipelines.labelstudio.prelabel_diff import compare, proposal_of
from pipelines.labelstudio.render import region_json
from pipelines.records import ImageRef, RegionMask

PHOTO = ImageRef("gs://archive/a.jpg", 1, "ab" * 32, 4, 4)


def region(label: str, rows: slice, name: str) -> dict[str, Any]:
    """A region over some rows of the 4×4 photo."""
    mask = np.zeros((4, 4), bool)
    mask[rows] = True
    return region_json(RegionMask(label, mask, 1.0), name)


def test_pixels_are_counted_by_label_and_background() -> None:
    proposal = compare([region("coat", slice(3), "a")], [region("coat", slice(2), "a")], PHOTO, "unclear")

    assert proposal.deleted == 0
    assert proposal.pixels == {"": (4, 8, 4), "coat": (12, 8, 8)}


def test_a_region_thrown_away_and_one_drawn_by_hand() -> None:
    proposal = compare([region("coat", slice(2), "a")], [region("dress", slice(2), "hand")], PHOTO, "unclear")

    assert proposal.deleted == 1
    assert proposal.pixels == {"": (8, 8, 8), "coat": (8, 0, 0), "dress": (0, 8, 0)}


def test_everything_deleted_is_still_an_answer() -> None:
    proposal = compare([region("coat", slice(2), "a")], [], PHOTO, "unclear")

    assert (proposal.deleted, proposal.pixels["coat"]) == (1, (8, 0, 0))


def test_pixels_that_nobody_can_name_count_neither_for_nor_against_the_model() -> None:
    kept, unclear = region("coat", slice(3), "a"), region("unclear", slice(1, 4), "hand")

    proposal = compare([region("coat", slice(3), "a")], [kept, unclear], PHOTO, "unclear")

    assert proposal.pixels == {"": (0, 0, 0), "coat": (4, 4, 4)}, "rows 1 to 3 are unclear, and row 0 is a coat"
    assert proposal.deleted == 0


def test_without_an_ignore_label_every_label_counts() -> None:
    proposal = compare([region("coat", slice(3), "a")], [region("unclear", slice(1, 4), "hand")], PHOTO, None)

    assert proposal.pixels == {"": (4, 4, 0), "coat": (12, 0, 0), "unclear": (0, 12, 0)}


def test_a_region_that_cannot_be_read_gives_nothing() -> None:
    broken = {**region("coat", slice(2), "a"), "original_width": 99}

    assert proposal_of({"prediction": {"result": [broken]}, "result": []}, PHOTO, "unclear") is None


@pytest.mark.parametrize("item", [{"type": "rating", "value": {"rating": 4}}, {"type": "choices", "value": None}])
def test_answers_of_other_controls_draw_nothing(item: Any) -> None:
    submitted = [region("coat", slice(2), "a")]

    assert proposal_of({"prediction": {"result": [item]}, "result": submitted}, PHOTO, "unclear") == compare(
        [item], submitted, PHOTO, "unclear"
    )
    assert compare([item], submitted, PHOTO, "unclear").pixels == {"": (16, 8, 8), "coat": (0, 8, 0)}


@pytest.mark.parametrize("item", [None, "text"])
def test_what_is_no_region_stops_nothing(item: Any) -> None:
    submitted = [region("coat", slice(2), "a")]

    assert proposal_of({"prediction": {"result": [item]}, "result": submitted}, PHOTO, "unclear") is None
    assert proposal_of({"prediction": {"result": None}, "result": []}, PHOTO, "unclear") is None


@pytest.mark.parametrize("ignore_label", ["unclear", None])
def test_pixels_of_a_mask_without_a_label_are_not_compared(ignore_label: str | None) -> None:
    unlabelled = region("coat", slice(2, 4), "u")
    unlabelled["value"].pop("brushlabels")

    submitted = [region("coat", slice(1), "a"), unlabelled]
    proposal = compare([region("coat", slice(2), "a")], submitted, PHOTO, ignore_label)

    assert proposal.pixels == {"": (0, 4, 0), "coat": (8, 4, 4)}


def test_what_nobody_touched_on_a_smaller_copy_is_equal_at_the_photos_size() -> None:
    photo = ImageRef("gs://archive/a.jpg", 1, "ab" * 32, 10, 10, shown_height=4, shown_width=4)
    proposed = [region("coat", slice(3), "a")]

    pixels = compare(proposed, proposed, photo, "unclear").pixels

    assert pixels["coat"] == (70, 70, 70), "rows whose centres lie in the first three quarters"
    assert pixels[""] == (30, 30, 30)
