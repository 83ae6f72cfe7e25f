"""Training shows the click network whole photos, and windows in which a garment is large."""

import numpy as np
import pytest
import torch

from pipelines.dataset.dataset import Dataset
from pipelines.params import IGNORE, load_params
from pipelines.segmentation.model import ModelCard
from pipelines.settings import PROJECT_ROOT
from pipelines.training.click_photos import WindowedPhotos
from pipelines.training.data import photos_in

LABELS = load_params(PROJECT_ROOT / "params.yaml").label_ids


@pytest.fixture
def photos(dataset: Dataset) -> WindowedPhotos:
    card = ModelCard("FPN", "timm-tf_efficientnet_lite0", 96, 64, (0.5,) * 3, (0.5,) * 3, LABELS, keeps_aspect=True)
    return WindowedPhotos(dataset, photos_in(dataset, "train"), card)


def test_a_draw_is_photo_and_mask_of_the_input_size(photos: WindowedPhotos) -> None:
    for seed in range(12):
        photo, mask = photos[0, seed]
        assert photo.shape == (3, 96, 64)
        assert mask.shape == (96, 64)
        assert set(mask.unique().tolist()) <= {*range(len(LABELS) + 1), IGNORE}


def test_the_seed_alone_decides_what_is_seen(photos: WindowedPhotos) -> None:
    assert all(torch.equal(a, b) for a, b in zip(photos[0, 5], photos[0, 5], strict=True))
    assert not torch.equal(photos[0, 5][0], photos[0, 6][0])


def test_in_windows_garments_are_larger_than_in_whole_photos(photos: WindowedPhotos) -> None:
    shares = []
    for seed in range(60):
        mask = photos[0, seed][1].numpy()
        counts = np.bincount(mask[(mask > 0) & (mask != IGNORE)])
        shares.append(counts.max(initial=0) / mask.size)

    assert np.quantile(shares, 0.9) > 2 * np.quantile(shares, 0.2)


def test_photos_that_are_stored_larger_cost_no_resolution_in_windows(photos: WindowedPhotos) -> None:
    assert (photos.card.height, photos.card.width) == (192, 128)
