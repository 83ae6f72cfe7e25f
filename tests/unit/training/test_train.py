"""Training: reproducible, and what it leaves is what evaluation and the services load."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file

from pipelines.dataset.files import CURVES, MANIFEST, MODEL, START, TRAINING
from pipelines.errors import DatasetError
from pipelines.params import Params
from pipelines.segmentation.clothing import CARD, WEIGHTS, build_network, load_card, load_model, new_network
from pipelines.settings import PROJECT_ROOT
from pipelines.training.frozen import freeze
from pipelines.training.learner import Learner, class_weights, lr_scale, segmentation_loss
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


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(workspace: Sides, small_training: Params) -> None:
    options = {"epochs": 12, "repeat_threshold": 0.5, "ema_decay": 0.5, "class_weights": 0.5}
    params = small_training.model_copy(update={"train": small_training.train.model_copy(update=options)})
    Path("params.yaml").write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
    stage = [sys.executable, "-m", "pipelines.training.train"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(stage, env=environment, check=True)
    undisturbed, curve = (MODEL / WEIGHTS).read_bytes(), pd.read_csv(CURVES)

    with subprocess.Popen(stage, env=environment, stderr=subprocess.PIPE, text=True) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("epoch 3 of 12"):
                training.kill()
    assert training.returncode == -signal.SIGKILL
    assert list(TRAINING.glob("*/last.ckpt"))
    again = subprocess.run(stage, env=environment, check=True, stderr=subprocess.PIPE, text=True)

    assert "going on after epoch" in again.stderr
    pd.testing.assert_frame_equal(pd.read_csv(CURVES), curve)
    assert (MODEL / WEIGHTS).read_bytes() == undisturbed
    assert not TRAINING.exists()


def test_what_another_training_left_is_not_taken_up(workspace: Sides, small_training: Params) -> None:
    train(small_training)
    weights = (MODEL / WEIGHTS).read_bytes()
    left = TRAINING / "0123456789abcdef" / "last.ckpt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of other parameters")

    train(small_training)

    assert (MODEL / WEIGHTS).read_bytes() == weights
    assert not TRAINING.exists()


def test_a_training_ends_when_validation_gets_no_better(workspace: Sides, small_training: Params) -> None:
    options = {"epochs": 40, "patience": 3, "lr": 1e-12, "ema_decay": 0.0}
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=options)}))

    assert len(pd.read_csv(CURVES)) < 40


def test_the_budget_of_minutes_shortens_the_schedule(workspace: Sides, small_training: Params) -> None:
    options = {"epochs": 2000, "max_minutes": 0.05}
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=options)}))

    assert 1 <= len(pd.read_csv(CURVES)) < 2000


def test_statistics_are_those_of_the_photos_and_not_of_how_training_began(small_training: Params) -> None:
    options = small_training.train.model_copy(update={"architecture": "UPerNet", "decoder": {}})
    network, _ = new_network(options, small_training.label_ids)
    learner = Learner(network, options, np.ones(3))
    photos = 3 + 2 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    first = network.get_submodule("encoder.conv_stem")(photos)

    learner.renew_statistics([(photos, torch.zeros(8, 64, 64, dtype=torch.int64))])

    seen = network.get_submodule("encoder.bn1").running_mean
    torch.testing.assert_close(seen, first.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not any(module.training for module in network.modules())


def test_many_photos_shorten_the_schedule_to_so_many_steps(workspace: Sides, small_training: Params) -> None:
    options = {"epochs": 50, "max_steps": 8, "batch_size": 2}  # of five photos: two steps an epoch
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=options)}))

    assert len(pd.read_csv(CURVES)) == 4


def test_few_photos_lengthen_the_schedule_to_so_many_steps(workspace: Sides, small_training: Params) -> None:
    options = {"epochs": 1, "min_steps": 5, "batch_size": 2}  # of five photos: two steps an epoch
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=options)}))

    assert len(pd.read_csv(CURVES)) == 3


def test_the_rate_rises_and_comes_down_to_nothing() -> None:
    rates = [lr_scale(step / 100) for step in range(101)]
    assert rates.index(max(rates)) == 15
    assert max(rates) == 1
    assert rates[-1] == pytest.approx(0)


def test_rare_classes_weigh_more_and_the_mean_pixel_weighs_one() -> None:
    pixels = np.array([900, 90, 10, 0])
    plain, weighted = class_weights(pixels, 0), class_weights(pixels, 0.5)

    assert plain.tolist() == [1, 1, 1, 0]
    assert weighted[2] == pytest.approx(3 * weighted[1])
    assert (weighted * pixels).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
    assert class_weights(np.array([10**9, 1]), 1).max() <= 20


@pytest.mark.parametrize("dice", [True, False])
def test_the_loss_is_that_of_the_libraries(dice: bool) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, 9, 7, generator=random, requires_grad=True)
    masks = torch.randint(0, 4, (2, 9, 7), generator=random)  # class 4 does not occur
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0])

    expected = torch.nn.functional.cross_entropy(logits, masks, weights)
    if dice:  # theirs averages over all classes and gives those that do not occur nothing
        expected = expected + smp.losses.DiceLoss("multiclass")(logits, masks) * 5 / 4
    ours = segmentation_loss(logits, masks, weights, dice=dice)

    assert float(ours.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    [gradient] = torch.autograd.grad(ours, logits)
    [theirs] = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, theirs)


def test_a_training_from_the_champion_goes_on_where_it_was(workspace: Sides, small_training: Params) -> None:
    long = {"epochs": 30, "lr": 0.01}
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=long)}))
    loss = pd.read_csv(CURVES)["train_loss"]
    shutil.copytree(MODEL, START)

    from_champion = small_training.train.model_copy(update={"start": "champion", "epochs": 1, "lr": 1e-9})
    train(small_training.model_copy(update={"train": from_champion}))

    assert pd.read_csv(CURVES)["train_loss"].iloc[0] < loss.iloc[0] * 0.7


@pytest.mark.parametrize("there", [True, False])
def test_without_a_fitting_champion_a_training_starts_from_scratch(
    workspace: Sides, small_training: Params, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipelines")
    train(small_training)
    weights = (MODEL / WEIGHTS).read_bytes()
    if there:
        shutil.copytree(MODEL, START)
        card = json.loads((START / CARD).read_text())
        (START / CARD).write_text(json.dumps({**card, "labels": {"dress": 7, "coat": 3}}))

    train(small_training.model_copy(update={"train": small_training.train.model_copy(update={"start": "champion"})}))

    assert ("the champion has other labels" if there else "there is no champion to go on from") in caplog.text
    assert (MODEL / WEIGHTS).read_bytes() == weights


def test_early_layers_of_a_pretrained_encoder_stay_as_they_are(workspace: Sides, small_training: Params) -> None:
    options = {"encoder_weights": "imagenet-pypi", "frozen_stride": 4, "epochs": 2}
    params = small_training.model_copy(update={"train": small_training.train.model_copy(update=options)})
    pretrained, _ = new_network(params.train, params.label_ids)

    train(params)

    photos, trained = torch.rand(1, 3, 64, 64), build_network(load_card(MODEL))
    trained.load_state_dict(load_file(MODEL / WEIGHTS))
    before, after = (list(one.get_submodule("encoder").eval()(photos)) for one in (pretrained, trained))
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True, True, True, False, False, False], "the photo itself, and strides 2 and 4"


def test_random_weights_are_never_frozen(small_training: Params) -> None:
    options = small_training.train.model_copy(update={"encoder_weights": "none", "frozen_stride": 32})
    network, _ = new_network(options, small_training.label_ids)

    Learner(network, options, np.ones(3))

    still = {name.split(".")[1] for name, one in network.named_parameters() if not one.requires_grad}
    assert still == {"conv_head", "bn2"}, "which no feature needs"


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "timm-tf_efficientnet_lite0"])
def test_what_is_frozen_is_what_early_features_need_and_what_none_needs(encoder: str) -> None:
    network = smp.encoders.get_encoder(encoder, weights=None)

    kept = freeze(network, 4, 64, 64)

    learns = {name.partition(".")[0] for name, one in network.named_parameters() if one.requires_grad}
    assert (
        learns
        == {
            "resnet18": {"layer2", "layer3", "layer4"},
            "mit_b0": {f"{part}{stage}" for part in ("patch_embed", "block", "norm") for stage in (2, 3, 4)},
            "timm-tf_efficientnet_lite0": {"blocks"},  # and not conv_head and bn2, which no feature needs
        }[encoder]
    )
    network.train()
    for module in kept:
        module.eval()
    features = network(torch.zeros(2, 3, 64, 64))
    assert all(one.requires_grad for one in features if one.shape[2] < 16)


def test_an_encoder_without_features_so_early_learns_as_a_whole() -> None:
    network = smp.encoders.get_encoder("mit_b0", weights=None)

    assert freeze(network, 2, 64, 64) == []
    assert all(one.requires_grad for one in network.parameters())


def test_a_decoder_in_bfloat16_gives_what_one_in_32_bits_gives(small_training: Params) -> None:
    torch.manual_seed(7)
    network, _ = new_network(small_training.train, small_training.label_ids)
    learner, photos = Learner(network, small_training.train, np.ones(3)), torch.rand(2, 3, 64, 64)
    learner.eval()

    answers = []
    for there in (False, True):
        learner._bfloat16 = there
        answers.append(learner.logits(photos).detach())

    assert not torch.equal(*answers)
    torch.testing.assert_close(*answers, atol=0.05, rtol=0.05)


def test_the_model_sees_photos_larger_than_training_does(workspace: Sides, small_training: Params) -> None:
    options = {"image_height": 64, "image_width": 32, "predict_scale": 2.0}
    train(small_training.model_copy(update={"train": small_training.train.model_copy(update=options)}))

    assert (load_model(MODEL).card.height, load_model(MODEL).card.width) == (128, 64)
