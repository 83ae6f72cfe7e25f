"""Datasets of a few drawn photos."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.params import FewPhotosParams, Params

COAT, DRESS = 3, 7
SPLITS = {"train": 5, "val": 2, "test": 3}
# A step takes a quarter of the time of EfficientNet's, and what tests are about is the same.
SMALLEST = {
    "architecture": "FPN", "decoder": {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 64},
    "encoder": "timm-mobilenetv3_small_minimal_100",
}  # fmt: skip


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A (48, 40, 3) photo in RGB and its mask: a red coat on the left, in every second one a blue dress below it."""
    mask = np.zeros((48, 40), np.uint8)
    mask[4 + seed : 24, 2:18] = COAT
    if seed % 2:
        mask[26:44, 2:18] = DRESS
    colors = np.zeros((256, 3), np.uint8)
    colors[[0, COAT, DRESS]] = (230, 230, 230), (200, 20, 20), (20, 20, 200)
    return colors[mask], mask


def draw_dataset(folder: Path) -> Dataset:
    """Draw a dataset into a folder, with as many photos in each split as `SPLITS` says."""
    dataset, rows = Dataset(folder), []
    masks: dict[str, dict[str, bytes]] = {}
    for seed, split in enumerate(split for split, count in SPLITS.items() for _ in range(count)):
        photo, mask = draw(seed)
        data = cv2.imencode(".png", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))[1].tobytes()
        sha256 = hashlib.sha256(data).hexdigest()
        dataset.write_photo(sha256, data)
        masks.setdefault(shard_of(sha256), {})[sha256] = encode_mask(mask)
        rows.append({"sha256": sha256, "group": str(seed), "split": split})
    for shard, of_shard in masks.items():
        dataset.masks.write_shard(shard, of_shard)
    dataset.write_table(MANIFEST, pd.DataFrame(rows))
    return dataset


def splits_of(dataset: Dataset) -> dict[str, list[str]]:
    """Return a dataset's photos by split, sorted."""
    table = dataset.manifest()
    return {split: sorted(table.loc[table["split"] == split, "sha256"]) for split in SPLITS}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A drawn dataset of the test's own."""
    return draw_dataset(tmp_path)


@pytest.fixture
def splits(dataset: Dataset) -> dict[str, list[str]]:
    """The dataset's photos by split."""
    return splits_of(dataset)


@pytest.fixture
def small_training(two_labels: Params) -> Params:
    """Two epochs of the smallest network, from random weights."""
    fields = {
        **SMALLEST, "encoder_weights": "none", "image_height": 32, "image_width": 32, "epochs": 2, "min_steps": 0,
        "batch_size": 2, "few": FewPhotosParams(photos=0),
    }  # fmt: skip
    return two_labels.model_copy(update={"train": two_labels.train.model_copy(update=fields)})
