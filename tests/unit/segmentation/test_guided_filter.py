"""Probabilities follow the edges of the photo, and stay probabilities."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.segmentation.guided_filter import GuidedFilter, follow_edges, mask_that_follows_edges

HEIGHT, WIDTH = 256, 192


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A dress in front of a wall, both with some noise, (h, w, 3) uint8, and where it is, (h, w) bool."""
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(truth, (96, 128), (45, 90), 15, 0, 360, 1, -1)
    colours = np.array([(205, 200, 190), (90, 30, 60)], np.float32)
    noise = np.random.default_rng(0).normal(0, 8, (HEIGHT, WIDTH, 3))
    return np.clip(colours[truth] + noise, 0, 255).astype(np.uint8), truth.astype(bool)


def blurred(truth: np.ndarray) -> np.ndarray:
    """Return (2, h, w) probabilities as a network gives them: too wide, and smooth across the outline."""
    wide = cv2.dilate(truth.astype(np.float32), np.ones((7, 7)))
    garment = 0.1 + 0.8 * cv2.GaussianBlur(wide, (0, 0), 6)
    return np.stack([1 - garment, garment]).astype(np.float32)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def test_outlines_move_to_the_edges_of_the_photo(scene: tuple[np.ndarray, np.ndarray]) -> None:
    photo, truth = scene
    before = blurred(truth)
    after = follow_edges(before, photo)
    assert iou(before.argmax(0) == 1, truth) < 0.93
    assert iou(after.argmax(0) == 1, truth) > 0.97


def test_a_photo_of_one_colour_changes_nothing_but_smooths(scene: tuple[np.ndarray, np.ndarray]) -> None:
    before = blurred(scene[1])
    after = follow_edges(before, np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    assert np.abs(after - before).max() < 0.2
    assert iou(after.argmax(0) == 1, before.argmax(0) == 1) > 0.95


def test_what_is_the_same_everywhere_stays_so(scene: tuple[np.ndarray, np.ndarray]) -> None:
    constant = np.full((HEIGHT, WIDTH), 0.3, np.float32)
    np.testing.assert_allclose(GuidedFilter(scene[0])(constant), constant, atol=1e-4)


def test_the_filter_is_that_of_its_authors_where_nothing_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel by the formula: the mean, over windows that hold it, of each window's best linear function."""
    monkeypatch.setattr("pipelines.segmentation.guided_filter.WINDOWS", 16)
    random = np.random.default_rng(1)
    photo, plane = random.integers(0, 256, (32, 32, 3), np.uint8), random.random((32, 32), np.float32)
    row, column, radius = 15, 14, 2
    answers = []
    for y in range(row - radius, row + radius + 1):
        for x in range(column - radius, column + radius + 1):
            window = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
            colours, values = photo[window].reshape(-1, 3) / 255, plane[window].ravel().astype(float)
            spread = np.cov(colours.T, bias=True) + 1e-4 * np.eye(3)
            joint = ((colours - colours.mean(0)) * (values - values.mean())[:, None]).mean(0)
            slope = np.linalg.solve(spread, joint)
            answers.append(slope @ (photo[row, column] / 255) + values.mean() - slope @ colours.mean(0))
    assert GuidedFilter(photo, shrink=1)(plane)[row, column] == pytest.approx(np.mean(answers), abs=1e-3)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_probabilities_stay_probabilities_at_every_size(height: int, width: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.random((classes, height, width), np.float32) ** 8 + 1e-6
    shares /= shares.sum(0)
    photo = random.integers(0, 256, (height, width, 3), np.uint8)
    before = shares.copy()
    after = follow_edges(shares, photo)
    assert (after.shape, after.dtype) == (shares.shape, np.float32)
    assert np.isfinite(after).all() and after.min() >= 0
    np.testing.assert_allclose(after.sum(0), 1, atol=1e-3)
    np.testing.assert_array_equal(shares, before)


def test_a_mask_whose_answer_is_coarse_follows_the_photo(scene: tuple[np.ndarray, np.ndarray]) -> None:
    photo, truth = scene
    shares = cv2.resize(blurred(truth)[1], (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    shares = shares.clip(0.01, 0.99)
    coarse = np.log(shares / (1 - shares))
    enlarged = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    fine = mask_that_follows_edges(coarse, photo)
    assert (fine.shape, fine.dtype) == ((HEIGHT, WIDTH), np.float32)
    assert iou(enlarged > 0, truth) < 0.93
    assert iou(fine > 0, truth) > 0.97


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_logits_stay_finite_however_sure_the_network_is(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 60, (-(-height // 2), -(-width // 2))).astype(np.float32)
    photo = random.integers(0, 256, (height, width, 3), np.uint8)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(mask_that_follows_edges(logits, photo)).all()
