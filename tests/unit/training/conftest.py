"""Datasets of a few drawn photos."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipelines.dataset.files import IMAGES, MANIFEST, encode_mask, fresh, image_path, mask_path
from pipelines.params import Params

COAT, DRESS = 3, 7
SIDES = {"train": 5, "val": 2, "test": 3}


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A (48, 40, 3) photo in RGB and its mask: a red coat on the left, in every second one a blue dress below it."""
    mask = np.zeros((48, 40), np.uint8)
    mask[4 + seed : 24, 2:18] = COAT
    if seed % 2:
        mask[26:44, 2:18] = DRESS
    colors = np.zeros((256, 3), np.uint8)
    colors[[0, COAT, DRESS]] = (230, 230, 230), (200, 20, 20), (20, 20, 200)
    return colors[mask], mask


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A dataset in the current folder; gives the sha256 of its photos per side."""
    monkeypatch.chdir(tmp_path)
    IMAGES.mkdir(parents=True)
    sides = [side for side, count in SIDES.items() for _ in range(count)]
    rows = []
    for seed, side in enumerate(sides):
        photo, mask = draw(seed)
        data = cv2.imencode(".png", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))[1].tobytes()
        sha256 = hashlib.sha256(data).hexdigest()
        image_path(sha256).write_bytes(data)
        fresh(mask_path(sha256)).write_bytes(encode_mask(mask))
        rows.append({"sha256": sha256, "group": str(seed), "split": side})
    pd.DataFrame(rows).to_parquet(MANIFEST)
    return {side: sorted(row["sha256"] for row in rows if row["split"] == side) for side in SIDES}


@pytest.fixture
def small_training(two_labels: Params) -> Params:
    """Two epochs of the smallest network, from random weights."""
    fields = {
        "encoder_weights": "none", "image_height": 32, "image_width": 32, "epochs": 2, "min_steps": 0, "batch_size": 2,
    }  # fmt: skip
    return two_labels.model_copy(update={"train": two_labels.train.model_copy(update=fields)})
