"""What corrections took and gave becomes rows: actions of corrected garments alone, and faults as numbers."""

from typing import Any

import pytest

from benchmarks.corrections import Correction, changed_regions, rows_of
from benchmarks.harness import Row
from scripts.editor import ClickTimes


def rows(corrections: list[Correction], stock: list[Correction]) -> dict[str, Row]:
    return {row.metric.partition(" (")[0]: row for row in rows_of(corrections, stock, "drawn photos, grabcut")}


def test_actions_are_those_of_corrected_garments() -> None:
    two_clicks = Correction([0.5, 0.7, 0.9], [ClickTimes(0.2, 0.3), ClickTimes(0.2, 0.5)])
    never = Correction([0.5, 0.6], [ClickTimes(0.2, None)], other_regions_changed=2, undo_is_one_click=False)
    row_of = rows([two_clicks, never], [Correction([0, 0.5, 0.6, 0.9]), Correction([0, 0.95])])

    corrected = row_of["garments corrected to IoU 0.85 in 10 clicks"]
    assert (corrected.ours, corrected.peer) == (0.5, 1.0)
    actions = row_of["actions per corrected garment, median"]
    assert (actions.ours, actions.peer, actions.rounds) == (3, 7, 1)
    assert actions.ratio == pytest.approx(7 / 3)
    assert row_of["a click, until its mask is drawn, p50"].ours == pytest.approx(0.4)
    assert row_of["clicks after which no new mask was drawn"].ours == 1
    assert row_of["other regions that changed"].ours == 2
    assert row_of["undos that did not go back one click"].ours == 1
    assert row_of["submitted masks that differ from what the page showed"].ours == 0
    assert row_of["IoU of the corrected masks, mean"].ours == pytest.approx(0.75)


def test_nothing_corrected_has_no_actions() -> None:
    row_of = rows([Correction([0.5, 0.6])], [Correction([0, 0.1])])

    assert row_of["garments corrected to IoU 0.85 in 10 clicks"].ours == 0
    assert "actions per corrected garment, median" not in row_of


@pytest.mark.parametrize(
    ("shown", "stored", "changed"),
    [
        ({"a": "new", "b": "old"}, {"a": "new", "b": "old"}, 0),
        ({"a": "new", "b": "new"}, {"a": "new", "b": "new"}, 1),
        ({"a": "new", "b": "old"}, {"a": "new", "b": "new"}, 1),
        ({"a": "new"}, {"a": "new"}, 1),
        ({"a": "new", "b": "old"}, {"a": "new"}, 1),
    ],
)
def test_only_the_corrected_region_may_differ(shown: dict[str, str], stored: dict[str, str], changed: int) -> None:
    rle = {"old": [1, 2], "new": [3]}
    held = {name: {"label": "coat", "rle": rle[what]} for name, what in shown.items()}
    before = {name: {"label": "coat", "rle": rle["old"]} for name in "ab"}
    result: list[Any] = [{"id": name, "type": "brushlabels", "value": {"rle": rle[w]}} for name, w in stored.items()]

    assert changed_regions(before, held, result, corrected="a") == changed


def test_a_byte_of_padding_is_no_change() -> None:
    before = {"a": {"rle": [1, 2, 0]}}
    result: list[Any] = [{"id": "a", "type": "brushlabels", "value": {"rle": [1, 2]}}]

    assert changed_regions(before, before, result, corrected="b") == 0


def test_regions_that_nobody_drew_count_as_changed() -> None:
    before = {"a": {"rle": [1]}}
    result: list[Any] = [{"id": name, "type": "brushlabels", "value": {"rle": [1]}} for name in "ax"]

    assert changed_regions(before, before, result, corrected="a") == 1
