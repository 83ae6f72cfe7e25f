"""Simulated labelers click where the most is wrong, draw boxes around garments, and begin with bad masks."""

import numpy as np
import pytest

from pipelines.training.click_simulation import box_around, damaged, next_click


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((60, 40), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_first_click_is_the_middle_of_the_garment() -> None:
    assert next_click(rectangle(0, 0, 0, 0), rectangle(10, 10, 31, 31)) == (20, 20, True)


def test_the_next_one_is_in_the_largest_wrong_part() -> None:
    truth = rectangle(10, 10, 30, 30)
    too_much = truth | rectangle(40, 5, 55, 20)

    assert next_click(too_much, truth) == (12, 47, False)
    x, y, positive = next_click(rectangle(10, 10, 30, 17), truth) or (0, 0, False)
    assert (x, positive) == (23, True)
    assert 13 <= y <= 26
    assert next_click(truth, truth) is None


def test_the_border_of_the_photo_ends_a_part() -> None:
    x, y, positive = next_click(np.zeros((60, 40), bool), rectangle(0, 0, 60, 11)) or (0, 0, False)

    assert (x, positive) == (5, True)
    assert 5 <= y < 55


def test_pixels_that_nobody_can_name_are_never_clicked() -> None:
    truth, judged = rectangle(10, 10, 30, 30), ~rectangle(10, 10, 30, 30)

    assert next_click(np.zeros_like(truth), truth, judged=judged) is None


@pytest.mark.parametrize("aim", ["jittered", "human"])
def test_people_click_beside_the_middle_but_never_outside(aim: str) -> None:
    truth, chance = rectangle(10, 10, 31, 31), np.random.default_rng(0)

    places = [next_click(np.zeros_like(truth), truth, chance, aim) for _ in range(60)]  # type: ignore[arg-type]  # a text

    assert all(place is not None and truth[place[1], place[0]] and place[2] for place in places)
    assert len(set(places)) > 20
    middle = np.array([place[:2] for place in places if place]).mean(axis=0)
    assert np.abs(middle - 20).max() < 3


def test_a_box_holds_the_garment_and_wavers_by_chance() -> None:
    truth = rectangle(10, 5, 50, 35)

    assert box_around(truth) == (5, 10, 35, 50)
    boxes = {box_around(truth, np.random.default_rng(seed)) for seed in range(20)}
    assert len(boxes) > 10
    assert np.abs(np.array(list(boxes)) - (5, 10, 35, 50)).max() <= 3


def test_boxes_stay_on_the_photo_and_are_never_empty() -> None:
    for seed in range(20):
        x1, y1, x2, y2 = box_around(rectangle(59, 39, 60, 40), np.random.default_rng(seed))
        assert 0 <= x1 < x2 <= 40
        assert 0 <= y1 < y2 <= 60


def test_damage_takes_away_and_adds() -> None:
    truth, others = rectangle(10, 5, 40, 35), rectangle(42, 5, 58, 35)

    masks = [damaged(truth, others, np.random.default_rng(seed)) for seed in range(40)]

    shares = [(mask & truth).sum() / (mask | truth).sum() for mask in masks]
    assert min(shares) < 0.8
    assert np.mean(shares) > 0.4
    assert any((mask & others).any() for mask in masks)
    assert any((truth & ~mask).any() for mask in masks)
    np.testing.assert_array_equal(masks[3], damaged(truth, others, np.random.default_rng(3)))
