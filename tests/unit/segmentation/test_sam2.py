"""SAM 2.1 answers as transformers' own processor and model, from cached feature maps."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2ImageProcessor, Sam2Processor

from pipelines.errors import ModelError
from pipelines.records import PhotoAddress
from pipelines.segmentation.editing import parts_of
from pipelines.segmentation.embeddings import EmbeddingCache
from pipelines.segmentation.postprocess import clean_region
from pipelines.segmentation.prompts import Prompts, pixels_at
from pipelines.segmentation.sam import load_sam
from pipelines.segmentation.sam2 import Sam2SegmentAnythingModel
from pipelines.segmentation.sam_model import SamImagePredictor, as_logits
from tests.unit.segmentation.small_sam2 import SIZE, small_sam2

HEIGHT, WIDTH = 110, 90
NO_POINTS, NO_LABELS = np.zeros((0, 2), np.float32), np.zeros(0, bool)
ONE = np.array([[30, 40]], np.float32), np.array([True])
TWO = np.array([[30, 40], [70, 90]], np.float32), np.array([True, False])
BOX = np.array([10, 12, 70, 95], np.float32)
PROMPTS = {
    "a point": Prompts(*ONE, None, "coat"),
    "two points": Prompts(*TWO, None, "coat"),
    "a box": Prompts(NO_POINTS, NO_LABELS, BOX, "coat"),
    "both": Prompts(*TWO, BOX, "coat"),
}
ADDRESS = PhotoAddress("gs://photos/a.jpg", 1)


def photo(seed: int = 0) -> np.ndarray:
    """A photo of smooth patches, so that both ways to shrink it agree."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(np.kron(small, np.ones((HEIGHT // 6 + 1, WIDTH // 5, 1), np.uint8))[:HEIGHT, :WIDTH])


def predictor(model: Sam2SegmentAnythingModel, seed: int = 0) -> SamImagePredictor:
    return model.set_image(PhotoAddress(f"gs://photos/{seed}.jpg", 1), lambda: nullcontext(photo(seed)))


@pytest.fixture
def model(tmp_path: Path) -> Sam2SegmentAnythingModel:
    return Sam2SegmentAnythingModel(small_sam2(), "small", EmbeddingCache("small", tmp_path / "embeddings"))


def answer_of_transformers(prompts: Prompts, mask: torch.Tensor | None = None) -> tuple[np.ndarray, float]:
    """The mask and score that transformers gives, of several masks those with the best score."""
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": SIZE, "width": SIZE}))
    points, labels = prompts.point_coords.tolist(), prompts.point_labels.astype(int).tolist()
    inputs = processor(
        images=photo(),
        input_points=[[points]] if points else None,
        input_labels=[[labels]] if points else None,
        input_boxes=None if prompts.box is None else [[prompts.box.tolist()]],
        return_tensors="pt",
    )
    sizes = inputs.pop("original_sizes")
    inputs.pop("reshaped_input_sizes", None)
    several = len(points) == 1 and prompts.box is None and mask is None
    with torch.inference_mode():
        outputs = small_sam2()(**inputs, input_masks=mask, multimask_output=several)
    [masks] = processor.post_process_masks(outputs.pred_masks, sizes)
    best = int(outputs.iou_scores[0, 0].argmax())
    return masks[0, best].numpy(), float(outputs.iou_scores[0, 0, best])


@pytest.mark.parametrize("name", PROMPTS)
def test_masks_and_scores_are_those_of_transformers(model: Sam2SegmentAnythingModel, name: str) -> None:
    prompts = PROMPTS[name]
    expected, expected_score = answer_of_transformers(prompts)
    assert 0 < expected.mean() < 1
    mask, score = predictor(model).predict(prompts)
    hits = [(int(x), int(y)) for x, y in prompts.positive]
    misses = [(int(x), int(y)) for x, y in prompts.negative]
    assert np.mean(mask == clean_region(expected, hits, misses)) > 0.99
    assert score == pytest.approx(expected_score, abs=5e-3)


def test_an_edited_mask_is_the_mask_prompt(model: Sam2SegmentAnythingModel) -> None:
    before = np.zeros((HEIGHT, WIDTH), bool)
    before[20:80, 15:60] = True
    prompts = Prompts(*TWO, None, "coat", mask=before)
    given = torch.from_numpy(as_logits(model.shares(before)))
    assert given.shape == (1, 1, SIZE // 4, SIZE // 4)
    expected, expected_score = answer_of_transformers(prompts, given)
    without, _ = answer_of_transformers(Prompts(*TWO, None, "coat"))
    assert (expected != without).mean() > 0.005
    mask, score = predictor(model).predict(prompts)
    inside = pixels_at(prompts.positive, (HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert np.mean(mask == parts_of(expected, before, inside)) > 0.996
    assert score == pytest.approx(expected_score, abs=5e-3)


def test_the_encoder_gives_the_feature_maps_of_transformers(model: Sam2SegmentAnythingModel) -> None:
    pixels = Sam2ImageProcessor(size={"height": SIZE, "width": SIZE})(photo(), return_tensors="pt")["pixel_values"]
    large, middle, small = (level[0].numpy() for level in small_sam2().get_image_embeddings(pixels))
    embedding = predictor(model).embedding
    assert [level.shape for level in embedding.fine] == [large.shape, middle.shape]
    for own, expected in zip((*embedding.fine, embedding.features), (large, middle, small), strict=True):
        np.testing.assert_allclose(own, expected, atol=0.02 * np.abs(expected).max())


def test_all_feature_maps_are_cached(model: Sam2SegmentAnythingModel, tmp_path: Path) -> None:
    first, _ = predictor(model).predict(PROMPTS["both"])
    assert not hasattr(model._network, "vision_encoder")  # its weights would be in memory twice
    cache = EmbeddingCache("small", tmp_path / "embeddings")
    restarted = Sam2SegmentAnythingModel(small_sam2(), "small", cache)
    assert restarted.is_ready(PhotoAddress("gs://photos/0.jpg", 1))
    again, _ = predictor(restarted).predict(PROMPTS["both"])
    np.testing.assert_array_equal(first, again)
    other, _ = predictor(restarted, 1).predict(PROMPTS["both"])
    assert (other != first).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as Hugging Face has it, whose configuration is that of the model for videos."""
    folder = tmp_path / "small-sam2"
    small_sam2().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    return folder


def test_a_folder_is_loaded(folder: Path, model: Sam2SegmentAnythingModel, tmp_path: Path) -> None:
    loaded = load_sam(str(folder), tmp_path / "cache")
    assert isinstance(loaded, Sam2SegmentAnythingModel)
    assert loaded.version == f"sam:small-sam2-{loaded.sha256[:8]}"
    loaded.warm_up()
    mask, _ = predictor(loaded).predict(PROMPTS["both"])
    np.testing.assert_array_equal(mask, predictor(model).predict(PROMPTS["both"])[0])


def test_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "segformer"}))
    with pytest.raises(ModelError, match="is a segformer and no SAM 2"):
        load_sam(str(folder), tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="holds no SAM 2 that can be loaded"):
        load_sam(str(folder), tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_sam(str(folder), tmp_path)


def test_weights_that_are_missing_are_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "iou_token" not in name},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(ModelError, match=r"lacks weights of mask_decoder\.iou_token"):
        load_sam(str(folder), tmp_path)


def test_a_damaged_download_is_refused(folder: Path, tmp_path: Path) -> None:
    official = tmp_path / "checkpoints" / "sam2.1_tiny-48c14467"
    official.parent.mkdir()
    folder.rename(official)
    with pytest.raises(ModelError, match="it is damaged; download it again"):
        load_sam("sam2.1_tiny", tmp_path)
