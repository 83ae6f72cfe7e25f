"""GrabCut on drawn photos, where the right answer is known to the pixel."""

import numpy as np
import pytest

from pipelines.segmentation.grabcut import Prior, shrink
from pipelines.segmentation.prompts import Prompts

HEIGHT, WIDTH = 120, 90
RED = slice(30, 80), slice(20, 60)


@pytest.fixture(scope="module")
def red_on_grey() -> np.ndarray:
    """A red rectangle on grey, with a little noise as photos have."""
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    photo[RED] = 200, 30, 30
    noise = np.random.default_rng(0).integers(-8, 9, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def red_with_blue_below() -> np.ndarray:
    """A red and a blue half that touch, on grey."""
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    photo[30:60, 20:70], photo[60:90, 20:70] = (200, 30, 30), (30, 30, 200)
    noise = np.random.default_rng(1).integers(-8, 9, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


def grabcut_mask(photo: np.ndarray, asked: Prompts, prior: Prior | None = None) -> tuple[np.ndarray, float]:
    return shrink(photo, prior or {}).predict(asked)


def prompts(*points: tuple[float, float, bool], box: tuple[float, ...] | None = None) -> Prompts:
    places = np.array([point[:2] for point in points], np.float32).reshape(-1, 2)
    return Prompts(
        places, np.array([point[2] for point in points], bool), None if box is None else np.float32(box), "coat"
    )


def iou(mask: np.ndarray, rows: slice, columns: slice) -> float:
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[rows, columns] = True
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize(
    "asked", [prompts(box=(14, 22, 66, 88)), prompts((40, 55, True))], ids=["by a box", "by a point"]
)
def test_a_coloured_rectangle_is_found(red_on_grey: np.ndarray, asked: Prompts) -> None:
    mask, score = grabcut_mask(red_on_grey, asked)

    assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), bool)
    assert iou(mask, *RED) > 0.95
    assert score > 0.5


def test_a_negative_point_takes_a_part_away(red_with_blue_below: np.ndarray) -> None:
    box = (14, 24, 76, 96)

    both, _ = grabcut_mask(red_with_blue_below, prompts(box=box))
    red_only, _ = grabcut_mask(red_with_blue_below, prompts((45, 40, True), (45, 80, False), box=box))

    assert both[75, 45]
    assert iou(red_only, slice(30, 60), slice(20, 70)) > 0.9
    assert not red_only[80, 45]


def test_large_photos_get_masks_of_their_own_size(red_on_grey: np.ndarray) -> None:
    large = red_on_grey.repeat(10, axis=0).repeat(10, axis=1)

    mask, _ = grabcut_mask(large, prompts(box=(140, 220, 660, 880)))

    assert mask.shape == (HEIGHT * 10, WIDTH * 10)
    assert iou(mask[5::10, 5::10], *RED) > 0.9


def test_the_same_click_gives_the_same_mask(red_with_blue_below: np.ndarray) -> None:
    first, second = (grabcut_mask(red_with_blue_below, prompts((45, 45, True))) for _ in range(2))

    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_a_box_around_everything_is_everything(red_on_grey: np.ndarray) -> None:
    mask, score = grabcut_mask(red_on_grey, prompts(box=(0, 0, WIDTH - 1, HEIGHT - 1)))

    assert mask.all()
    assert score == 0.0


def test_a_negative_point_that_covers_a_small_box_leaves_nothing(red_on_grey: np.ndarray) -> None:
    mask, score = grabcut_mask(red_on_grey, prompts((40, 50, False), box=(39, 49, 41, 51)))

    assert not mask.any()
    assert score == 0.0


@pytest.mark.parametrize("corner", [(0, 0), (WIDTH - 1, 0), (0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1)])
def test_clicks_in_corners_are_answered(red_on_grey: np.ndarray, corner: tuple[int, int]) -> None:
    mask, score = grabcut_mask(red_on_grey, prompts((*corner, True)))

    assert mask[corner[1], corner[0]]
    assert 0 <= score <= 1


def test_a_photo_of_a_few_pixels_is_answered() -> None:
    mask, _ = grabcut_mask(np.full((3, 2, 3), 90, np.uint8), prompts((1, 1, True), (0, 2, False)))

    assert mask.shape == (3, 2)


@pytest.mark.parametrize(("height", "width"), [(667, 1000), (5, 3000), (3000, 5), (801, 534)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_points_at_the_border_are_answered_at_every_size(
    height: int, width: int, place: tuple[float, float], champion_that_knows: Prior
) -> None:
    photo = np.random.default_rng(3).integers(0, 255, (height, width, 3), np.uint8)
    at_border = place[0] * (width - 1), place[1] * (height - 1)

    mask, _ = grabcut_mask(photo, prompts((*at_border, True)), champion_that_knows)

    assert mask.shape == (height, width)


@pytest.fixture(scope="module")
def red_with_a_blue_sleeve() -> np.ndarray:
    """A coat whose left part is blue, on grey: colours alone cannot tell that both are one garment."""
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    photo[30:80, 30:60], photo[30:80, 20:30] = (200, 30, 30), (30, 30, 200)
    noise = np.random.default_rng(2).integers(-8, 9, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def champion_that_knows() -> Prior:
    """What a champion sees that knows the coat, at a network's small size."""
    plane = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    plane[15:40, 10:30] = 250
    return {"coat": plane}


def test_what_the_champion_sees_completes_what_colours_miss(
    red_with_a_blue_sleeve: np.ndarray, champion_that_knows: Prior
) -> None:
    click = prompts((47, 55, True))

    alone, _ = grabcut_mask(red_with_a_blue_sleeve, click)
    together, _ = grabcut_mask(red_with_a_blue_sleeve, click, champion_that_knows)

    assert iou(alone, *RED) < 0.85
    assert iou(together, *RED) > 0.95


def test_a_champion_that_sees_nothing_there_changes_nothing(
    red_on_grey: np.ndarray, champion_that_knows: Prior
) -> None:
    click = prompts((40, 55, True))
    elsewhere = {"coat": np.zeros_like(champion_that_knows["coat"]), "dress": champion_that_knows["coat"]}

    np.testing.assert_array_equal(grabcut_mask(red_on_grey, click, elsewhere)[0], grabcut_mask(red_on_grey, click)[0])
