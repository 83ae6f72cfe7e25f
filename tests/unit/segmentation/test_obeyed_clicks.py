"""A click that the network does not follow changes what is like it, near it, and nothing else."""

import numpy as np
import pytest

from pipelines.segmentation.clicks import obeying


@pytest.fixture
def likelihood() -> np.ndarray:
    """A network that is sure of the left half, and takes a square on the right for somewhat less unlikely."""
    logits = np.full((96, 96), -5.0, np.float32)
    logits[:, :48] = 5
    logits[40:50, 60:70] = -2
    return logits


@pytest.fixture
def mask() -> np.ndarray:
    left = np.zeros((96, 96), bool)
    left[:, :48] = True
    return left


def test_what_is_like_the_clicked_pixel_is_added(likelihood: np.ndarray, mask: np.ndarray) -> None:
    changed = (obeying(likelihood, mask, (65, 45), positive=True) > 0) & ~mask
    assert changed[45, 65]
    assert changed[40:50, 60:70].mean() > 0.9, "the square, as far as it is near"
    assert not np.delete(changed[:, 48:], np.s_[40:50], axis=0).any(), "and nothing of the ground"


def test_what_is_like_it_is_taken_away(likelihood: np.ndarray, mask: np.ndarray) -> None:
    likelihood[10:14, 10:14] = 2
    changed = mask & ~(obeying(likelihood, mask, (11, 11), positive=False) > 0)
    assert changed[10:14, 10:14].all()
    assert np.count_nonzero(changed) == 16


def test_however_unsure_the_network_is_no_more_than_the_surroundings_change(mask: np.ndarray) -> None:
    flat = np.full((96, 96), -1.0, np.float32)
    changed = obeying(flat, mask, (90, 50), positive=True) > 0
    assert 1 < np.count_nonzero(changed) < 0.02 * changed.size


@pytest.mark.parametrize(("point", "positive"), [((10, 10), True), ((80, 80), False)])
def test_a_click_that_is_right_already_changes_nothing(
    likelihood: np.ndarray, mask: np.ndarray, point: tuple[int, int], positive: bool
) -> None:
    assert obeying(likelihood, mask, point, positive=positive) is likelihood


def test_a_click_that_the_network_follows_is_left_to_it(likelihood: np.ndarray, mask: np.ndarray) -> None:
    likelihood[20:30, 60:70] = 3
    assert obeying(likelihood, mask, (65, 25), positive=True) is likelihood
