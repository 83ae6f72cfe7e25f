"""The cold-start model: a small checkpoint with the classes of the well-known clothes SegFormer becomes labels."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from pipelines.errors import ContractError, ModelError
from pipelines.params import Params
from pipelines.segmentation.cold_start import load_cold_start

CLASSES = (
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
    "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
)  # fmt: skip
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)


def network() -> SegformerForSemanticSegmentation:
    """The smallest SegFormer with these classes."""
    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8
    )
    config.id2label = dict(enumerate(CLASSES))
    config.label2id = {name: number for number, name in enumerate(CLASSES)}
    return SegformerForSemanticSegmentation(config).eval()


def save(folder: Path, segformer: SegformerForSemanticSegmentation) -> Path:
    segformer.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("segformer") / "b2_clothes", network())


@pytest.fixture
def seeing(tmp_path: Path) -> Callable[..., Path]:
    """Make a checkpoint that sees classes with these probabilities everywhere."""

    def make(**shares: float) -> Path:
        segformer = network()
        torch.nn.init.zeros_(segformer.decode_head.classifier.weight)
        rest = (1 - sum(shares.values())) / (len(CLASSES) - len(shares))
        wanted = [shares.get(name.replace("-", "_"), rest) for name in CLASSES]
        segformer.decode_head.classifier.bias.data = torch.log(torch.tensor(wanted))
        return save(tmp_path / "seeing", segformer)

    return make


def load(folder: Path, params: Params, **classes: str):
    return load_cold_start(str(folder), classes or params.prelabel.cold_start, params.label_ids)


def test_the_classes_of_params_yaml_are_those_of_the_checkpoint(checkpoint: Path, params: Params) -> None:
    model = load(checkpoint, params)

    assert set(model.card.labels) == set(params.prelabel.cold_start.values())
    assert (model.card.height, model.card.width) == (64, 64)
    assert model.version.startswith("cold-start:b2_clothes@")
    assert load(checkpoint, params).version == model.version


def test_its_probabilities_are_those_of_torch(checkpoint: Path, params: Params) -> None:
    segformer, processor = network(), SegformerImageProcessor.from_pretrained(checkpoint)
    model = load(checkpoint, params)
    probs = model.probabilities(PHOTO)

    with torch.inference_mode():
        # The processor resizes with another filter, so both get a photo that need not be resized.
        square = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        logits = segformer(**processor(images=square, return_tensors="pt")).logits
    shares = logits.softmax(dim=1)[0].numpy()
    channel = list(model.card.labels).index("footwear") + 1

    assert probs.shape == (len(model.card.labels) + 1, 16, 16)
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)
    wanted = shares[CLASSES.index("Left-shoe")] + shares[CLASSES.index("Right-shoe")]
    np.testing.assert_allclose(model.probabilities(square)[channel], wanted, atol=2e-3)


def test_left_and_right_shoe_together_outweigh_a_third_class(seeing: Callable[..., Path], params: Params) -> None:
    prediction = load(seeing(Left_shoe=0.3, Right_shoe=0.3, Hat=0.35), params).predict(PHOTO)

    [footwear] = prediction.regions
    assert (footwear.label, footwear.score) == ("footwear", pytest.approx(0.6, abs=1e-3))
    assert (prediction.mask == params.label_ids["footwear"]).all()
    assert prediction.mask.shape == PHOTO.shape[:2]


def test_skin_and_hair_are_background(seeing: Callable[..., Path], params: Params) -> None:
    prediction = load(seeing(Hair=0.3, Face=0.3, Hat=0.35), params).predict(PHOTO)

    assert prediction.regions == ()
    assert prediction.score == pytest.approx(0.6 + 5 / 15 * 0.05, abs=0.05)


def test_a_class_that_the_checkpoint_lacks_is_named(checkpoint: Path, params: Params) -> None:
    with pytest.raises(ModelError, match=r"has no class Cape; its classes are Background, Hat.*prelabel.cold_start"):
        load(checkpoint, params, Hat="hat", Cape="coat")


def test_a_label_that_params_yaml_lacks_is_named(checkpoint: Path, params: Params) -> None:
    with pytest.raises(ContractError, match="labels that it does not have: cape"):
        load(checkpoint, params, Hat="cape")


def test_another_network_is_refused(checkpoint: Path, params: Params, tmp_path: Path) -> None:
    other = Path(copytree(checkpoint, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))

    with pytest.raises(ModelError, match="is a vit and no SegFormer"):
        load(other, params)


@pytest.mark.parametrize("damage", ["gone", "pickle", "garbage"])
def test_weights_come_as_safetensors_or_not_at_all(
    checkpoint: Path, params: Params, tmp_path: Path, damage: str
) -> None:
    copy = Path(copytree(checkpoint, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    if damage == "pickle":
        torch.save(network().state_dict(), copy / "pytorch_model.bin")
    if damage == "garbage":
        (copy / "model.safetensors").write_bytes(b"half a download")

    with pytest.raises(ModelError, match=r"cannot be loaded.*MASKLOOP_COLD_START"):
        load(copy, params)


def test_without_a_line_to_the_hub_the_remedy_is_named(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelError, match="download it by hand and set MASKLOOP_COLD_START to its folder"):
        load(Path("nobody/no_such_model@main"), params)
