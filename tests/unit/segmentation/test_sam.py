"""Segment Anything: only official files are loaded, and one photo is encoded once."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from pipelines.errors import ModelError
from pipelines.records import PhotoAddress
from pipelines.segmentation.embeddings import EmbeddingCache
from pipelines.segmentation.postprocess import clean_region
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam import SegmentAnythingModel, load_sam
from pipelines.segmentation.sam_checkpoints import OFFICIAL

HEIGHT, WIDTH = 40, 30
POINT = Prompts(np.array([[8, 9]], np.float32), np.array([True]), None, "coat")
POINTS = Prompts(np.array([[8, 9], [20, 30]], np.float32), np.array([True, False]), None, "coat")
BOX = Prompts(np.zeros((0, 2), np.float32), np.zeros(0, bool), np.array([4, 4, 20, 30], np.float32), "coat")
BOTH = Prompts(POINTS.point_coords, POINTS.point_labels, BOX.box, "coat")


def tiny_network() -> Sam:
    """A Segment Anything of the real parts, a few channels wide, with random weights."""
    torch.manual_seed(0)
    wide, grid = 16, 4
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=16 * grid, patch_size=16, embed_dim=8, depth=1, num_heads=2, out_chans=wide
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=wide, image_embedding_size=(grid, grid), input_image_size=(16 * grid, 16 * grid), mask_in_chans=4
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=wide, transformer=TwoWayTransformer(depth=1, embedding_dim=wide, num_heads=2, mlp_dim=8)
        ),
    )


@pytest.fixture
def tiny_sam(tmp_path: Path) -> SegmentAnythingModel:
    return SegmentAnythingModel(tiny_network(), "tiny", EmbeddingCache("tiny", tmp_path))


def predict(model: SegmentAnythingModel, name: str, photo: "Photo", prompts: Prompts) -> tuple[np.ndarray, float]:
    return model.set_image(PhotoAddress(name, 1), photo).predict(prompts)


class Photo:
    """A photo that counts how often it is read."""

    def __init__(self, seed: int) -> None:
        self.reads = 0
        self.pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)

    @contextmanager
    def __call__(self) -> Iterator[np.ndarray]:
        self.reads += 1
        yield self.pixels


@pytest.mark.parametrize("prompts", [POINT, POINTS, BOX, BOTH], ids=["a point", "two points", "a box", "both"])
def test_every_prompt_gives_one_mask_of_the_photos_size(tiny_sam: SegmentAnythingModel, prompts: Prompts) -> None:
    mask, score = predict(tiny_sam, "a", Photo(0), prompts)

    assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), bool)
    assert 0 <= score <= 1


def test_a_photo_is_read_and_encoded_once(tiny_sam: SegmentAnythingModel) -> None:
    photo = Photo(0)

    first, _ = predict(tiny_sam, "a", photo, POINT)
    predict(tiny_sam, "a", photo, BOX)
    again, _ = predict(tiny_sam, "a", photo, POINT)

    assert photo.reads == 1
    np.testing.assert_array_equal(first, again)


def test_photos_are_not_mixed_up(tiny_sam: SegmentAnythingModel) -> None:
    first_photo, second_photo = Photo(1), Photo(2)
    first, _ = predict(tiny_sam, "first", first_photo, POINT)

    second, _ = predict(tiny_sam, "second", second_photo, POINT)
    back, _ = predict(tiny_sam, "first", first_photo, POINT)

    np.testing.assert_array_equal(first, back)
    assert (first != second).any()


def test_many_people_click_on_many_photos_at_once(tiny_sam: SegmentAnythingModel) -> None:
    photos = [Photo(number) for number in range(3)]
    alone = [predict(tiny_sam, f"photo {number}", photo, POINT)[0] for number, photo in enumerate(photos)]

    with ThreadPoolExecutor(8) as people:
        clicks = [
            (number % 3, people.submit(predict, tiny_sam, f"photo {number % 3}", photos[number % 3], POINT))
            for number in range(48)
        ]

    for number, click in clicks:
        np.testing.assert_array_equal(click.result()[0], alone[number])
    assert [photo.reads for photo in photos] == [1, 1, 1]


def test_an_embedding_from_disk_gives_the_same_mask(tiny_sam: SegmentAnythingModel, tmp_path: Path) -> None:
    mask, _ = predict(tiny_sam, "a", Photo(0), POINT)
    restarted = SegmentAnythingModel(tiny_network(), "tiny", EmbeddingCache("tiny", tmp_path))

    again, _ = predict(restarted, "a", Photo(1), POINT)

    np.testing.assert_array_equal(mask, again)
    assert restarted.is_ready(PhotoAddress("a", 1))
    assert not restarted.is_ready(PhotoAddress("b", 1))


@pytest.mark.parametrize("prompts", [POINT, POINTS, BOX, BOTH], ids=["a point", "two points", "a box", "both"])
def test_masks_are_those_of_the_official_predictor(tiny_sam: SegmentAnythingModel, prompts: Prompts) -> None:
    photo = Photo(0)
    official = SamPredictor(tiny_network().eval())
    official.set_image(photo.pixels)
    masks, scores, _ = official.predict(
        prompts.point_coords if len(prompts.point_coords) else None,
        prompts.point_labels.astype(int) if len(prompts.point_coords) else None,
        prompts.box,
        multimask_output=prompts is POINT,
    )
    hits = [(int(x), int(y)) for x, y in prompts.positive]

    mask, score = predict(tiny_sam, "a", photo, prompts)

    wanted = clean_region(masks[scores.argmax()], hits)
    assert np.mean(mask == wanted) > 0.995  # embeddings are stored in half precision
    assert score == pytest.approx(np.clip(scores.max(), 0, 1), abs=1e-3)


def test_the_encoder_is_converted_once_and_cached(tmp_path: Path) -> None:
    first = SegmentAnythingModel(tiny_network(), "tiny", EmbeddingCache("tiny", tmp_path / "a"), tmp_path / "runtime")
    embedding = first.set_image(PhotoAddress("a", 1), Photo(0)).embedding
    stamp = (tmp_path / "runtime" / "tiny.xml").stat().st_mtime_ns

    second = SegmentAnythingModel(tiny_network(), "tiny", EmbeddingCache("tiny", tmp_path / "b"), tmp_path / "runtime")
    again = second.set_image(PhotoAddress("a", 1), Photo(0)).embedding

    np.testing.assert_array_equal(embedding.features, again.features)
    assert (tmp_path / "runtime" / "tiny.xml").stat().st_mtime_ns == stamp
    assert not hasattr(first._network, "image_encoder")  # its weights would be in memory twice


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a small file that is named like an official checkpoint of these bytes."""

    def make(content: bytes) -> Path:
        path = tmp_path / f"sam_vit_b_{hashlib.sha256(content).hexdigest()[:6]}.pth"
        path.write_bytes(content)
        return path

    return make


@pytest.mark.parametrize("name", ["model.pth", "sam_vit_x_01ec64.pth", "sam_vit_b_01ec.pth", "sam_vit_b_01ec64.pt"])
def test_a_name_that_cannot_be_checked_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"weights")

    with pytest.raises(ModelError, match=r"not named like an official checkpoint .*sam_vit_b_01ec64.pth"):
        load_sam(str(tmp_path / name), tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*sam_vit_b_01ec64.pth"):
        load_sam(str(tmp_path / "sam_vit_b_01ec64.pth"), tmp_path)


def test_a_damaged_file_is_told_by_its_hash(checkpoint: Callable[[bytes], Path], tmp_path: Path) -> None:
    path = checkpoint(b"weights")
    path.write_bytes(b"weightz")

    with pytest.raises(ModelError, match="it is damaged; download it again"):
        load_sam(str(path), tmp_path)


def test_a_file_in_the_cache_is_checked_as_well(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / OFFICIAL["vit_b"][0].name).write_bytes(b"half a download")

    with pytest.raises(ModelError, match="it is damaged; download it again"):
        load_sam("vit_b", tmp_path)


@pytest.fixture
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> type[torch.nn.Module]:
    """A registry whose vit_b is small enough to be written as a file."""

    class Small(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.image_encoder = torch.nn.Identity()
            self.image_encoder.img_size = 64

    monkeypatch.setattr("segment_anything.sam_model_registry", {"vit_b": Small})
    return Small


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_a_file_that_is_no_checkpoint_is_refused(
    content: bytes, checkpoint: Callable[[bytes], Path], tiny_registry: type, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="holds no weights of vit_b"):
        load_sam(str(checkpoint(content)), tmp_path)


def test_weights_of_another_network_are_refused(tiny_registry: type, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 3)}, tmp_path / "weights")
    content = (tmp_path / "weights").read_bytes()
    path = (tmp_path / "weights").rename(tmp_path / f"sam_vit_b_{hashlib.sha256(content).hexdigest()[:8]}.pth")

    with pytest.raises(ModelError, match="holds no weights of vit_b"):
        load_sam(str(path), tmp_path)


def test_an_official_file_is_served_under_its_name_and_hash(
    tiny_registry: type[torch.nn.Module], tmp_path: Path
) -> None:
    torch.save(tiny_registry().state_dict(), tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()[:6]
    path = (tmp_path / "weights").rename(tmp_path / f"sam_vit_b_{digest}.pth")

    assert load_sam(str(path), tmp_path).version == f"sam:vit_b-{digest}"


def test_a_checkpoint_that_is_not_downloaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*checkpoints/sam_vit_b_01ec64.pth"):
        load_sam("vit_b", tmp_path)
