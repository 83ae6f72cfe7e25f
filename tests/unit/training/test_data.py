"""Photos as tensors: read like the services read them, and never torn from their masks."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.records import encode_mask
from pipelines.errors import DatasetError
from pipelines.params import IGNORE
from pipelines.segmentation.model import ModelCard
from pipelines.segmentation.transforms import normalize, resize_image, resize_mask
from pipelines.training.data import (
    Batches,
    Photos,
    RepeatFactorSampler,
    clean_photos,
    families_of,
    photos_in,
)

Splits = dict[str, list[str]]


def test_splits_are_read_in_a_fixed_order(dataset: Dataset, splits: Splits) -> None:
    assert {split: photos_in(dataset, split) for split in splits} == splits


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_is_needed_and_empty_says_what_to_do(dataset: Dataset, split: str) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table[table["split"] != split])

    with pytest.raises(DatasetError, match=f"no photo is in the {split} split yet; label more photos"):
        photos_in(dataset, split)


def test_validation_may_be_empty(dataset: Dataset) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table[table["split"] != "val"])

    assert photos_in(dataset, "val") == []


def note(dataset: Dataset, column: str, values: Sequence[object]) -> None:
    """Add a column to the manifest, a value per photo in the order of its rows."""
    dataset.write_table(MANIFEST, dataset.manifest().assign(**{column: list(values)}))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("blind", [True, False, None] * 3 + [True]),
        ("prediction_version", ["", "clothing:v1", "clothing:v2"] * 3 + [None]),
    ],
)
def test_clean_photos_are_those_whose_masks_no_model_drew(
    dataset: Dataset, column: str, values: Sequence[object]
) -> None:
    note(dataset, column, values)

    by_row = dataset.manifest()["sha256"]
    assert clean_photos(dataset, "train") == sorted([by_row[0], by_row[3]])
    assert clean_photos(dataset, "val") == [by_row[6]]
    assert clean_photos(dataset, "test") == [by_row[9]]


def test_without_a_word_on_who_drew_them_all_masks_are_clean(dataset: Dataset, splits: Splits) -> None:
    assert clean_photos(dataset, "test") == splits["test"]


def test_photos_that_look_alike_share_a_family(dataset: Dataset, splits: Splits) -> None:
    photos = splits["test"]
    of_photo = dataset.manifest().set_index("sha256")["group"]
    assert families_of(dataset, photos) == tuple(of_photo[photo] for photo in photos), (
        "before there were families: its group"
    )

    note(dataset, "family", ["a", "b"] * 5)
    family = dataset.manifest().set_index("sha256")["family"]
    assert families_of(dataset, photos[::-1]) == tuple(family[photo] for photo in photos[::-1])

    dataset.write_table(MANIFEST, dataset.manifest().drop(columns=["family", "group"]))
    assert families_of(dataset, photos) == tuple(photos)


def test_items_are_what_the_services_would_see(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    photos = Photos(dataset, splits["train"], tiny_card, augment=False)

    values, channels = photos[2]

    photo, mask = dataset.read_image(splits["train"][2]), dataset.read_mask(splits["train"][2])
    small = resize_image(photo, 32, 32)
    np.testing.assert_array_equal(values.numpy(), normalize(small, tiny_card.mean, tiny_card.std))
    np.testing.assert_array_equal(channels.numpy(), np.searchsorted([0, 3, 7], resize_mask(mask, 32, 32)))
    assert (values.dtype, channels.dtype) == (torch.float32, torch.int64)
    assert len(photos) == 5


def test_around_a_photo_is_the_mean_colour_and_nothing_to_learn(
    dataset: Dataset, splits: Splits, tiny_card: ModelCard
) -> None:
    card = replace(tiny_card, keeps_aspect=True)
    photos = Photos(dataset, splits["train"], card, augment=False)

    values, channels = photos[2]

    photo, mask = dataset.read_image(splits["train"][2]), dataset.read_mask(splits["train"][2])
    small = resize_image(photo, 32, 27)  # 48×40 pixels
    np.testing.assert_array_equal(values.numpy()[:, :, 2:29], normalize(small, card.mean, card.std))
    np.testing.assert_array_equal(channels.numpy()[:, 2:29], np.searchsorted([0, 3, 7], resize_mask(mask, 32, 27)))
    assert (np.delete(channels.numpy(), np.s_[2:29], axis=1) == IGNORE).all()
    assert np.abs(np.delete(values.numpy(), np.s_[2:29], axis=2)).max() < 0.01
    assert photos.pixels[2].sum() == 32 * 27, "nothing else weighs in the loss"


def test_what_nobody_can_name_is_not_learned(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    photo = splits["train"][0]
    mask = dataset.read_mask(photo)
    mask[:24] = IGNORE
    dataset.masks.write_shard(photo[:2], dataset.masks.read_shard(photo[:2]) | {photo: encode_mask(mask)})

    photos = Photos(dataset, [photo], tiny_card, augment=False)

    assert (photos[0][1][:16] == IGNORE).all()
    assert (photos[0][1][16:] != IGNORE).all()
    assert photos.pixels.sum() == 16 * 32


def test_labels_that_the_model_does_not_know_are_background(
    dataset: Dataset, splits: Splits, tiny_card: ModelCard
) -> None:
    coats_only = ModelCard(**{**vars(tiny_card), "labels": {"coat": 3}})

    photos = Photos(dataset, splits["train"], coats_only, augment=False)

    assert all(set(np.unique(channels)) <= {0, 1} for _, channels in (photos[i] for i in range(len(photos))))


def test_augmentation_moves_photo_and_mask_together(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    """The drawn coat is the only red thing, so redness must stay under its mask however both are moved."""
    photos = Photos(dataset, splits["train"], tiny_card, augment=True)
    kept, moved = [], 0
    plain = Photos(dataset, splits["train"], tiny_card, augment=False)
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


def test_augmentation_invents_no_class(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    photos = Photos(dataset, splits["train"], tiny_card, augment=True)

    classes = set()
    for position in range(len(photos)):
        for seed in range(5):
            values, channels = photos[position, seed]
            assert values.shape == (3, 32, 32)
            classes |= set(np.unique(channels))
    assert classes == {0, 1, 2, IGNORE}


def test_where_a_moved_photo_ends_nothing_is_learned_and_the_mean_colour_stands(
    dataset: Dataset, splits: Splits, tiny_card: ModelCard
) -> None:
    photos = Photos(dataset, splits["train"], replace(tiny_card, keeps_aspect=True), augment=True)
    ignored = []
    for seed in range(30):
        values, channels = photos[seed % 5, seed]
        unknown = (channels == IGNORE).numpy()
        deep = cv2.erode(unknown.astype(np.uint8), np.ones((5, 5))) > 0  # no pixel of the photo is mixed in there
        assert (values.abs().amax(0).numpy()[deep] < 0.01).all()
        ignored.append(unknown.mean())

    assert 0.1 < np.mean(ignored) < 0.6


def test_photos_are_enlarged_smoothly(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    """Between a coat and what is beside it an enlarged photo has colours of neither."""
    photos = Photos(dataset, splits["train"], replace(tiny_card, height=96, width=96), augment=True)

    shades = [len(np.unique(photos[0, seed][0][1].numpy().round(3))) for seed in range(8)]

    assert min(shades) > 20


def test_batches_of_a_resumed_training_are_those_of_one_that_was_not() -> None:
    order = RepeatFactorSampler(np.ones((7, 3), np.int64), 0.5, seed=1)
    whole = list(islice(Batches(order, 2), 10))

    assert Batches(order, 2).per_epoch == 3
    for first in range(8):
        assert list(islice(Batches(order, 2, first), 2)) == whole[first : first + 2]
    assert len({place for batch in whole[3:6] for place, _ in batch}) == 6, "an epoch takes each photo once"
    assert all(len(batch) == 2 for batch in whole)


def test_processes_that_load_photos_change_nothing(dataset: Dataset, splits: Splits, tiny_card: ModelCard) -> None:
    photos = Photos(dataset, splits["train"], tiny_card, augment=True)
    batches = Batches(RepeatFactorSampler(photos.pixels, 0.5, seed=1), 2)

    loaded, loaded_apart = (
        list(islice(DataLoader(photos, batch_sampler=batches, num_workers=workers), 3)) for workers in (0, 2)
    )

    for batch, other in zip(loaded, loaded_apart, strict=True):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])


def test_fewer_photos_than_a_batch_are_one_batch() -> None:
    order = RepeatFactorSampler(np.ones((3, 3), np.int64), 0.5, seed=1)
    assert [len(batch) for batch in islice(Batches(order, 8), 3)] == [3, 3, 3]


def test_photos_with_rare_labels_come_more_often_and_the_order_follows_from_the_epoch() -> None:
    pixels = np.zeros((100, 3), np.int64)
    pixels[:, 0] = 1
    pixels[:99, 1] = 5
    pixels[99, 2] = 5  # one photo in a hundred shows it
    order = RepeatFactorSampler(pixels, 0.25, seed=1)

    epochs = [order.draws(epoch) for epoch in range(200)]

    assert all(len(epoch) == len(order) == 100 for epoch in epochs)
    rare = np.mean([[place for place, _ in epoch].count(99) for epoch in epochs])
    assert rare == pytest.approx(5 / 104 * 100, rel=0.05)  # √(0.25 / 0.01) = 5 times as often
    assert epochs[0] != epochs[1]
    assert order.draws(0) == epochs[0]


def test_without_repeats_every_photo_comes_once() -> None:
    order = RepeatFactorSampler(np.array([[3, 1], [3, 0], [2, 9]]), 0, seed=1)
    assert sorted(place for place, _ in order.draws(0)) == [0, 1, 2]


def test_processes_that_train_together_share_the_draws_out(monkeypatch: pytest.MonkeyPatch) -> None:
    order = RepeatFactorSampler(np.ones((7, 3), np.int64), 0.5, seed=1)
    alone = order.draws(0)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(order.draws(0))

    assert [len(share) for share in shares] == [3, 3] == [len(order)] * 2
    assert sorted(shares[0] + shares[1]) == sorted(alone[:6])
