"""A click changes what is near it, in the right direction, and nothing else."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.segmentation.editing import edit_mask, parts_of
from pipelines.segmentation.grabcut import shrink
from pipelines.segmentation.prompts import Prompts

HEIGHT, WIDTH = 240, 160


def disc(x: int, y: int, radius: int) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas > 0


@pytest.fixture(scope="module")
def garment() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[60:200, 40:120] = True
    return mask


@pytest.fixture(scope="module")
def photo(garment: np.ndarray) -> np.ndarray:
    """A red garment on grey, with noise."""
    noise = np.random.default_rng(0).integers(-12, 12, (HEIGHT, WIDTH, 3))
    return np.clip(np.where(garment[..., None], (190, 40, 40), (120, 120, 125)) + noise, 0, 255).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def predict(photo: np.ndarray, mask: np.ndarray, x: int, y: int, *, positive: bool) -> np.ndarray:
    points, labels = np.array([[x, y]], np.float32), np.array([positive])
    return shrink(photo, {}).predict(Prompts(points, labels, None, "coat", mask))[0]


def test_a_click_adds_the_missing_part(photo: np.ndarray, garment: np.ndarray) -> None:
    mask = garment & ~disc(50, 180, 25)
    edited = predict(photo, mask, 50, 182, positive=True)
    assert iou(edited, garment) > 0.98 > iou(mask, garment)


def test_an_alt_click_takes_away_what_is_too_much(photo: np.ndarray, garment: np.ndarray) -> None:
    mask = garment | disc(130, 100, 20)
    edited = predict(photo, mask, 134, 100, positive=False)
    assert iou(edited, garment) > 0.98 > iou(mask, garment)


def test_a_hole_is_cut_in_the_middle(photo: np.ndarray, garment: np.ndarray) -> None:
    holed = garment & ~disc(80, 130, 20)
    shown = photo.copy()
    shown[disc(80, 130, 20)] = (120, 120, 125)
    edited = predict(shown, garment, 80, 130, positive=False)
    assert iou(edited, holed) > 0.95


def test_the_second_shoe_stays_when_the_first_is_corrected(photo: np.ndarray) -> None:
    shoes = disc(40, 210, 14) | disc(120, 210, 14)
    shown = np.where(shoes[..., None], (20, 20, 200), (120, 120, 125)).astype(np.uint8)
    mask = shoes & ~disc(34, 210, 7)
    edited = predict(shown, mask, 33, 210, positive=True)
    assert edited[disc(120, 210, 14)].all()
    assert iou(edited, shoes) > 0.95


def test_an_alt_click_beside_the_mask_changes_nothing(photo: np.ndarray, garment: np.ndarray) -> None:
    assert np.array_equal(predict(photo, garment, 10, 10, positive=False), garment)


def test_an_alt_click_that_misses_a_thin_part_by_a_pixel_takes_it_away(photo: np.ndarray, garment: np.ndarray) -> None:
    mask = garment.copy()
    mask[58:60, 40:120] = True  # two rows too many
    edited = predict(photo, mask, 80, 57, positive=False)
    assert not edited[58, 80]
    assert iou(edited, garment) >= iou(mask, garment)


def test_large_photos_keep_their_pixels_far_from_the_click() -> None:
    mask = np.zeros((1800, 1200), bool)
    mask[300:1500, 300:900] = True
    mask[300:1500:3, 300] = False  # a jagged edge, finer than the copy that is cut
    photo = np.where(mask[..., None], (190, 40, 40), (120, 120, 125)).astype(np.uint8)
    edited = predict(
        photo, mask & ~np.pad(np.ones((100, 100), bool), ((1350, 350), (750, 350))), 800, 1400, positive=True
    )
    assert np.array_equal(edited[:900], mask[:900])
    assert edited[1400, 800]


@given(
    st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.booleans(), st.integers(5, 70), st.integers(0, WIDTH - 1)
)
def test_any_click_says_what_its_own_pixel_is(x: int, y: int, positive: bool, radius: int, at: int) -> None:
    image = np.random.default_rng(radius).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    mask = disc(at, HEIGHT // 2, radius)
    edited = edit_mask(image, mask, (x, y), positive=positive)
    assert edited.shape == mask.shape
    assert edited[y, x] == positive
    if not positive:
        assert not (edited & ~mask).any()


def test_parts_that_nobody_asked_for_do_not_appear() -> None:
    before, edited = disc(40, 40, 10), disc(40, 40, 12) | disc(120, 200, 5) | disc(120, 40, 5)
    assert np.array_equal(parts_of(edited, before, [(120, 40)]), disc(40, 40, 12) | disc(120, 40, 5))
