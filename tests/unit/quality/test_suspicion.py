"""What looks wrong to a model, on photos where the model is known to be right."""

import re

import numpy as np
import pytest

from pipelines.quality.suspicion import find_suspicious
from pipelines.segmentation.clothing import ClothingModel, ModelCard

COAT, DRESS = 3, 7


@pytest.fixture
def model() -> ClothingModel:
    """Sees a coat where a photo is red and a dress where it is blue."""
    card = ModelCard("FPN", "-", 64, 64, (0.0,) * 3, (1.0,) * 3, {"coat": COAT, "dress": DRESS})

    def forward(photos: np.ndarray) -> np.ndarray:
        red, blue = photos[:, 0] > 0.5, photos[:, 2] > 0.5
        return np.stack(
            [np.where(red | blue, 0.02, 0.96), np.where(red, 0.96, 0.02), np.where(blue, 0.96, 0.02)], axis=1
        )

    return ClothingModel(forward, card)


def photo(red: int, blue: int) -> np.ndarray:
    """A 64×64 photo whose first rows are red, and the next blue."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:red, :, 0] = 255
    pixels[red : red + blue, :, 2] = 255
    return pixels


def mask(coat: int, dress: int) -> np.ndarray:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[:coat] = COAT
    drawn[coat : coat + dress] = DRESS
    return drawn


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (mask(0, 40), r"drawn as dress, the model sees coat \(31\.\d%"),
        (mask(20, 0), r"the model sees dress where nothing is drawn \(31"),
        (mask(20, 40), r"the model sees nothing where dress is drawn \(31"),
    ],
)
def test_a_wrong_mask_is_found_with_its_reason(model: ClothingModel, drawn: np.ndarray, reason: str) -> None:
    [found] = find_suspicious([("a" * 64, photo(20, 20), drawn)], model, 10)

    assert 0 <= found.score < 0.1
    assert re.match(reason, found.reason)


def test_right_masks_and_small_differences_at_edges_are_not_shown(model: ClothingModel) -> None:
    assert find_suspicious([("a", photo(20, 20), mask(20, 20))], model, 10) == []
    off_by_a_few_pixels = mask(20, 20)
    off_by_a_few_pixels[39, :15] = 0
    assert find_suspicious([("a", photo(20, 20), off_by_a_few_pixels)], model, 10) == []


def test_the_worst_stand_first_and_no_more_than_asked(model: ClothingModel) -> None:
    photos = [(name, photo(20, 20), mask(20, rows)) for name, rows in (("a", 18), ("b", 44), ("c", 30))]

    found = find_suspicious(photos, model, 2)

    assert len(found) == 2
    assert [one.score for one in found] == sorted(one.score for one in found)


def test_of_labels_that_the_model_does_not_know_nothing_is_said(model: ClothingModel) -> None:
    drawn = mask(20, 20)
    drawn[drawn == DRESS] = 12
    assert find_suspicious([("a", photo(20, 20), drawn)], model, 10) == []
