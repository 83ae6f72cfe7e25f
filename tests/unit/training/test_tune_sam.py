"""A tuned mask decoder answers clicks better, and is loaded only with the checkpoint that it was tuned for."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from pipelines.dataset.dataset import Dataset
from pipelines.errors import ModelError, TrainingError
from pipelines.params import Params
from pipelines.records import PhotoAddress
from pipelines.segmentation.embeddings import EmbeddingCache
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam import SegmentAnythingModel
from pipelines.segmentation.sam2 import Sam2SegmentAnythingModel
from pipelines.segmentation.sam_decoder import save_decoder, tuned
from pipelines.segmentation.sam_model import PromptableModel
from pipelines.training.tune_sam import tune_sam
from tests.unit.segmentation.small_sam2 import small_sam2

PATCH, GRID, WIDE = 8, 12, 32
Tune = Callable[..., Path]


def small_sam() -> Sam:
    """A Segment Anything of the real parts with random weights."""
    torch.manual_seed(0)
    side = PATCH * GRID
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side, patch_size=PATCH, embed_dim=48, depth=1, num_heads=2, out_chans=WIDE
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDE, image_embedding_size=(GRID, GRID), input_image_size=(side, side), mask_in_chans=4
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=WIDE,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDE, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )


def model_of(folder: Path, sha256: str = "base") -> SegmentAnythingModel:
    return SegmentAnythingModel(small_sam(), "small", EmbeddingCache("small", folder / "embeddings"), sha256=sha256)


@pytest.fixture
def tune(dataset: Dataset, two_labels: Params, tmp_path: Path) -> Tune:
    def run(model: PromptableModel, steps: int, lr: float = 3e-3) -> Path:
        fields = {"min_steps": steps, "max_steps": steps, "batch_size": 2, "garments": 2, "max_minutes": 0}
        params = two_labels.model_copy(update={"clicks": two_labels.clicks.model_copy(update=fields)})
        return tune_sam(dataset, params, model, tmp_path / "tuned", lr=lr)

    return run


def test_it_learns(tune: Tune, tmp_path: Path) -> None:
    card = json.loads(tune(model_of(tmp_path), steps=120).with_suffix(".json").read_text())

    before, after = card["val_iou_before"], card["val_iou_after"]
    assert (card["photos"], card["steps"], card["checkpoint_sha256"]) == (5, 120, "base")
    assert len(before) == len(after) == 2
    assert after[0] > before[0] + 0.2
    assert after[1] > 0.6


def test_the_tuned_decoder_is_loaded_with_its_checkpoint_only(tune: Tune, tmp_path: Path) -> None:
    learner = model_of(tmp_path)
    path = tune(learner, steps=1)

    loaded = tuned(model_of(tmp_path), path)

    assert loaded.version.startswith("sam:small+tuned-")
    for name, value in learner.decoder.state_dict().items():
        torch.testing.assert_close(loaded.decoder.state_dict()[name], value)
    with pytest.raises(ModelError, match=r"was tuned for sam:small with SHA-256 base…, and sam:small has other…"):
        tuned(model_of(tmp_path, "other"), path)


def test_only_the_decoder_changes(tune: Tune, tmp_path: Path) -> None:
    model, before = model_of(tmp_path), dict(small_sam().named_parameters())
    tune(model, steps=2)

    changed = {name for name, value in model._network.named_parameters() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"mask_decoder"}
    assert not any(value.requires_grad for value in model._network.parameters())


def test_sam_2_is_tuned_without_the_layers_that_embeddings_hold(tune: Tune, tmp_path: Path) -> None:
    cache = EmbeddingCache("small2", tmp_path / "embeddings")
    model = Sam2SegmentAnythingModel(small_sam2(), "small2", cache, sha256="base2")
    path = tune(model, steps=2)

    other = Sam2SegmentAnythingModel(small_sam2(), "small2", cache, sha256="base2")
    own, loaded = other.decoder.state_dict(), tuned(other, path).decoder.state_dict()

    changed = {name for name, value in loaded.items() if not torch.equal(value, own[name])}
    assert changed
    assert not any(name.startswith("conv_s") for name in changed)


@pytest.mark.parametrize("damage", ["no card", "no weights", "other bytes", "no JSON", "other layers"])
def test_a_decoder_that_is_damaged_is_refused(damage: str, tmp_path: Path) -> None:
    model = model_of(tmp_path)
    path = save_decoder(model, tmp_path / "decoder.safetensors", {})
    card = path.with_suffix(".json")
    if damage == "other layers":
        path = save_decoder(
            Sam2SegmentAnythingModel(small_sam2(), "small", EmbeddingCache("w", tmp_path), sha256="base"), path, {}
        )
    {
        "no card": card.unlink,
        "no weights": path.unlink,
        "other bytes": lambda: path.write_bytes(b"x"),
        "no JSON": lambda: card.write_bytes(b"x"),
        "other layers": lambda: None,
    }[damage]()

    with pytest.raises(ModelError, match="tune the decoder again, or leave it out"):
        tuned(model, path)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_photo_is_encoded_once_for_both_decoders(generation: int, tune: Tune, tmp_path: Path) -> None:
    def loaded() -> PromptableModel:
        cache = EmbeddingCache("small", tmp_path / "embeddings")
        if generation == 2:
            return Sam2SegmentAnythingModel(small_sam2(), "small", cache, sha256="base")
        return SegmentAnythingModel(small_sam(), "small", cache, sha256="base")

    plain = loaded()
    other = tuned(plain, tune(loaded(), steps=3))
    photo = np.random.default_rng(0).integers(0, 255, (96, 64, 3)).astype(np.uint8)
    address = PhotoAddress("gs://archive/a.jpg", 1)
    prompts = Prompts(np.array([[30, 40]], np.float32), np.array([True]), None, "coat")

    predictor = other.set_image(address, lambda: nullcontext(photo))

    assert plain.is_ready(address)
    assert plain.set_image(address, _no_photo).embedding is predictor.embedding
    scores = [model.set_image(address, _no_photo).predict(prompts)[1] for model in (plain, other)]
    assert scores[0] != scores[1]
    parts = [dict(model._network.named_parameters()) for model in (plain, other)]
    shared = {name for name, value in parts[1].items() if parts[0].get(name) is value}
    assert {name for name in parts[1] if not name.startswith("mask_decoder")} == shared
    assert not any(name.startswith(("image_encoder", "vision_encoder")) for name in shared)


def _no_photo() -> AbstractContextManager[np.ndarray]:
    raise AssertionError("the photo is encoded already")


def test_a_loss_that_is_not_finite_stops_it(tune: Tune, tmp_path: Path) -> None:
    model = model_of(tmp_path)
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(np.inf)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        tune(model, steps=1)
