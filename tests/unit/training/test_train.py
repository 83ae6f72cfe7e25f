"""Training: reproducible, and what it leaves is what evaluation and the services load."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.dataset.files import CURVES, MANIFEST, MODEL
from pipelines.errors import DatasetError
from pipelines.params import Params
from pipelines.segmentation.clothing import WEIGHTS, load_model
from pipelines.training.train import train

Sides = dict[str, list[str]]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every operation has a deterministic form on GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_training_leaves_a_model_and_its_curve_and_again_the_same(workspace: Sides, small_training: Params) -> None:
    train(small_training)
    model, curve, weights = load_model(MODEL), pd.read_csv(CURVES), (MODEL / WEIGHTS).read_bytes()

    train(small_training)

    assert model.card.labels == {"coat": 3, "dress": 7}
    assert list(curve["epoch"]) == [0, 1]
    assert np.isfinite(curve["train_loss"]).all()
    assert curve["val_miou"].between(0, 1).all()
    assert (MODEL / WEIGHTS).read_bytes() == weights


def test_two_photos_without_validation_are_enough(workspace: Sides, small_training: Params) -> None:
    table = pd.read_parquet(MANIFEST)
    table[table["sha256"].isin([*workspace["train"][:2], *workspace["test"]])].to_parquet(MANIFEST)
    one_epoch = {"epochs": 1, "image_height": 64, "image_width": 64}

    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=one_epoch)}))

    assert load_model(MODEL).card.height == 64
    assert pd.read_csv(CURVES)["val_miou"].isna().all()


def test_one_photo_is_too_few_and_said_so(workspace: Sides, small_training: Params) -> None:
    table = pd.read_parquet(MANIFEST)
    table[table["sha256"].isin([workspace["train"][0], *workspace["test"]])].to_parquet(MANIFEST)

    with pytest.raises(DatasetError, match="at least two photos"):
        train(small_training)
