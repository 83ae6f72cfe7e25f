"""Photos as tensors: read like the services read them, and never torn from their masks."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.dataset.files import MANIFEST
from pipelines.errors import DatasetError
from pipelines.segmentation.clothing import ModelCard
from pipelines.segmentation.transforms import normalize, resize_image, resize_mask
from pipelines.training.data import Photos, RepeatFactorSampler, photos_of, read_photo

Sides = dict[str, list[str]]


def test_sides_are_read_in_a_fixed_order(workspace: Sides) -> None:
    assert {side: photos_of(side) for side in workspace} == workspace


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_side_that_is_needed_and_empty_says_what_to_do(workspace: Sides, side: str) -> None:
    table = pd.read_parquet(MANIFEST)
    table[table["split"] != side].to_parquet(MANIFEST)

    with pytest.raises(DatasetError, match=f"no photo is on the {side} side yet; label more photos"):
        photos_of(side)


def test_validation_may_be_empty(workspace: Sides) -> None:
    table = pd.read_parquet(MANIFEST)
    table[table["split"] != "val"].to_parquet(MANIFEST)

    assert photos_of("val") == []


def test_items_are_what_the_services_would_see(workspace: Sides, tiny_card: ModelCard) -> None:
    photos = Photos(workspace["train"], tiny_card, augment=False)

    values, channels = photos[2]

    photo, mask = read_photo(workspace["train"][2])
    small = resize_image(photo, 32, 32)
    np.testing.assert_array_equal(values.numpy(), normalize(small, tiny_card.mean, tiny_card.std))
    np.testing.assert_array_equal(channels.numpy(), np.searchsorted([0, 3, 7], resize_mask(mask, 32, 32)))
    assert (values.dtype, channels.dtype) == (torch.float32, torch.int64)
    assert len(photos) == 5


def test_labels_that_the_model_does_not_know_are_background(workspace: Sides, tiny_card: ModelCard) -> None:
    coats_only = ModelCard(**{**vars(tiny_card), "labels": {"coat": 3}})

    photos = Photos(workspace["train"], coats_only, augment=False)

    assert all(set(np.unique(channels)) <= {0, 1} for _, channels in (photos[i] for i in range(len(photos))))


def test_augmentation_moves_photo_and_mask_together(workspace: Sides, tiny_card: ModelCard) -> None:
    """The drawn coat is the only red thing, so redness must stay under its mask however both are moved."""
    photos = Photos(workspace["train"], tiny_card, augment=True)
    kept, moved = [], 0
    plain = Photos(workspace["train"], tiny_card, augment=False)
    for seed in range(6):
        for position in range(len(photos)):
            values, channels = photos[position, 100 * seed + position]
            if torch.equal(values[0], values[2]):
                continue  # one photo in ten turns grey, and shows no red
            red, coat = (values[0] - values[2] > 0.3).numpy(), (channels == 1).numpy()
            kept.append((red & coat).sum() / (red | coat).sum())
            moved += bool((channels != plain[position][1]).any())

    assert len(kept) >= 20
    assert moved >= 0.9 * len(kept)  # a draw may be so small that no pixel of 32 crosses over
    assert np.mean(kept) > 0.85
    assert min(kept) > 0.7


def test_augmentation_invents_no_class(workspace: Sides, tiny_card: ModelCard) -> None:
    photos = Photos(workspace["train"], tiny_card, augment=True)

    for position in range(len(photos)):
        values, channels = photos[position]
        assert values.shape == (3, 32, 32)
        assert set(np.unique(channels)) <= {0, 1, 2}


def test_photos_with_rare_labels_come_more_often_and_the_order_follows_from_the_epoch() -> None:
    pixels = np.zeros((100, 3), np.int64)
    pixels[:, 0] = 1
    pixels[:99, 1] = 5
    pixels[99, 2] = 5  # one photo in a hundred shows it
    order = RepeatFactorSampler(pixels, 0.25, seed=1)

    epochs = []
    for epoch in range(200):
        order.set_epoch(epoch)
        epochs.append(list(order))

    assert all(len(epoch) == len(order) == 100 for epoch in epochs)
    rare = np.mean([[place for place, _ in epoch].count(99) for epoch in epochs])
    assert rare == pytest.approx(5 / 104 * 100, rel=0.05)  # √(0.25 / 0.01) = 5 times as often
    assert epochs[0] != epochs[1]
    order.set_epoch(0)
    assert list(order) == epochs[0]


def test_without_repeats_every_photo_comes_once() -> None:
    order = RepeatFactorSampler(np.array([[3, 1], [3, 0], [2, 9]]), 0, seed=1)
    assert sorted(place for place, _ in order) == [0, 1, 2]


def test_processes_that_train_together_share_the_draws_out(monkeypatch: pytest.MonkeyPatch) -> None:
    order = RepeatFactorSampler(np.ones((7, 3), np.int64), 0.5, seed=1)
    alone = list(order)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(list(order))

    assert [len(share) for share in shares] == [3, 3] == [len(order)] * 2
    assert sorted(shares[0] + shares[1]) == sorted(alone[:6])
