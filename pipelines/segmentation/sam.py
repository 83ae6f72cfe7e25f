"""Segment Anything (Kirillov et al., "Segment Anything", 2023) with official checkpoints only, checked by hash.

An official file's name ends with the first hex digits of its SHA-256 (`sam_vit_b_01ec64.pth`); these are checked.
"""

import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING
from urllib.error import URLError

import cv2
import numpy as np
from PIL import Image

from pipelines.errors import ModelError
from pipelines.records import PhotoAddress
from pipelines.segmentation.editing import parts_of
from pipelines.segmentation.embeddings import BlobStore, Embedding, EmbeddingCache
from pipelines.segmentation.postprocess import clean_likelihood
from pipelines.segmentation.prompts import PhotoOpener, Prompts, pixels_at
from pipelines.segmentation.runtime import Forward, compile_network
from pipelines.segmentation.transforms import mask_at_photo_size

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

CHECKPOINTS = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
_LOGIT = 10.0  # of a pixel that surely belongs to the mask that is edited
_NAME = re.compile(r"sam_(vit_[blh])_([0-9a-f]{6,64})\.pth$")


class SegmentAnythingModel:
    """A loaded SAM. A photo is encoded once, which takes seconds; clicks on other photos do not wait for it.

    `cache_dir` is the folder for the encoder as the runtime needs it; without one it is converted on every start.
    """

    def __init__(self, network: "Sam", name: str, embeddings: EmbeddingCache, cache_dir: Path | None = None) -> None:
        self.version = f"sam:{name}"
        self._network, self._embeddings = network.eval(), embeddings
        self._input_size = int(network.image_encoder.img_size)  # photos are scaled to this long side, in pixels
        self._encoder_file = cache_dir / f"{name}.xml" if cache_dir else None
        self._encoder: Forward | None = None
        self._encoding = threading.Lock()  # one photo at a time, because the encoder uses all cores

    def set_image(
        self, address: PhotoAddress, open_photo: PhotoOpener, *, use_prior: bool = False
    ) -> "SamImagePredictor":
        """Return a predictor for a photo; the photo is opened and encoded when its embedding is not cached.

        Segment Anything takes no prior, so that `use_prior` changes nothing.
        """
        return SamImagePredictor(self, self._embeddings.get(address.key, lambda: self._encode(open_photo)))

    def is_ready(self, address: PhotoAddress) -> bool:
        """Return whether a click on this photo needs no encoder."""
        return self._embeddings.is_ready(address.key)

    def decode(self, embedding: Embedding, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a (H, W) bool mask of one clean region and the model's own estimate of its IoU, 0..1.

        A mask that is edited is the model's mask prompt, and its parts stay parts of the answer.
        """
        import torch

        network, height, width = self._network, embedding.height, embedding.width
        scaled = _scaled_size(height, width, self._input_size)
        scale = np.array([scaled[1] / width, scaled[0] / height], np.float32)
        device = network.device
        before = None
        if prompts.mask is not None and not prompts.redraws:
            before = cv2.resize(prompts.mask.astype(np.uint8), scaled[::-1], interpolation=cv2.INTER_AREA).astype(bool)
        with torch.inference_mode():
            sparse, dense = network.prompt_encoder(
                points=(
                    torch.from_numpy(prompts.point_coords * scale)[None].to(device),
                    torch.from_numpy(prompts.point_labels.astype(np.int32))[None].to(device),
                )
                if len(prompts.point_coords)
                else None,
                boxes=None
                if prompts.box is None
                else torch.from_numpy(prompts.box.reshape(2, 2) * scale).reshape(1, 4).to(device),
                masks=None if before is None else torch.from_numpy(self._as_logits(before)).to(device),
            )
            logits, scores = network.mask_decoder(
                image_embeddings=torch.from_numpy(embedding.features).float()[None].to(device),
                image_pe=network.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                # A single point is ambiguous: the best of three masks is taken.
                multimask_output=len(prompts.point_coords) == 1 and prompts.box is None and before is None,
            )
        best = int(scores[0].argmax())
        # As Sam.postprocess_masks, for the best mask only.
        padded = cv2.resize(logits[0, best].float().cpu().numpy(), (self._input_size, self._input_size))
        unpadded = np.ascontiguousarray(padded[: scaled[0], : scaled[1]])
        inside = pixels_at(prompts.positive, scaled, height, width)
        outside = pixels_at(prompts.negative, scaled, height, width)
        if before is None:
            cleaned = clean_likelihood(unpadded, network.mask_threshold, inside, outside)
        else:
            likely = unpadded > network.mask_threshold
            cleaned = np.where(likely & ~parts_of(likely, before, inside), network.mask_threshold - 1, unpadded)
        mask = mask_at_photo_size(cleaned, network.mask_threshold, height, width)
        return mask, float(scores[0, best].clip(0, 1))

    def _as_logits(self, mask: np.ndarray) -> np.ndarray:
        """Return a (h, w) bool mask of the scaled photo as the mask prompt: (1, 1, size, size) float32 logits."""
        padded = np.zeros((self._input_size, self._input_size), np.float32)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        height, width = self._network.prompt_encoder.mask_input_size
        small = cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA)
        return (2 * _LOGIT * small - _LOGIT)[None, None]

    def warm_up(self) -> None:
        """Convert and load the encoder, which takes seconds, before the first photo needs it."""
        with self._encoding:
            self._ready_encoder()

    def _encode(self, open_photo: PhotoOpener) -> Embedding:
        padded, height, width = self._padded(open_photo)
        with self._encoding:
            features = self._ready_encoder()(padded)[0]
        return Embedding(features.astype(np.float16), height, width)

    def _padded(self, open_photo: PhotoOpener) -> tuple[np.ndarray, int, int]:
        """Return the encoder's input and the photo's size; the photo is freed before the encoder is waited for."""
        with open_photo() as photo:
            height, width = photo.shape[:2]
            scaled = _scaled_size(height, width, self._input_size)
            small = np.asarray(Image.fromarray(photo).resize(scaled[::-1], Image.Resampling.BILINEAR))
        del photo
        mean, std = (value.flatten().cpu().numpy() for value in (self._network.pixel_mean, self._network.pixel_std))
        padded = np.zeros((1, 3, self._input_size, self._input_size), np.float32)
        padded[0, :, : scaled[0], : scaled[1]] = ((small - mean) / std).transpose(2, 0, 1)
        return padded, height, width

    def _ready_encoder(self) -> Forward:
        import torch

        if self._encoder is None:
            self._encoder = self.compiled_encoder()
            if not torch.cuda.is_available():
                del self._network.image_encoder  # the runtime has a copy of its own, of hundreds of megabytes
        return self._encoder

    def compiled_encoder(self) -> Forward:
        """Return the compiled encoder: (1, 3, size, size) float32, normalised and padded, to (1, C, h, w) float32."""
        shape = (3, self._input_size, self._input_size)
        return compile_network(self._network.image_encoder, shape, cache_file=self._encoder_file)


@dataclass(frozen=True)
class SamImagePredictor:
    """Predicts masks on one encoded photo."""

    model: SegmentAnythingModel
    embedding: Embedding

    @property
    def height(self) -> int:
        """Return the upright photo's height in pixels."""
        return self.embedding.height

    @property
    def width(self) -> int:
        """Return the upright photo's width in pixels."""
        return self.embedding.width

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a mask and a score; see `SegmentAnythingModel.decode`."""
        return self.model.decode(self.embedding, prompts)


def _scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return the (height, width) with this long side, rounded as ResizeLongestSide does."""
    scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def load_sam(checkpoint: str, folder: Path, blob_store: BlobStore | None = None) -> SegmentAnythingModel:
    """Load an official checkpoint given as a path or as vit_b, vit_l or vit_h (downloaded once).

    Checkpoints and embeddings are cached in `folder`; embeddings are shared through `blob_store`, if there is one.

    Raises ModelError when the file is missing, cannot be downloaded, is not of the SHA-256 in its name, or holds
    another network.
    """
    import torch
    from segment_anything import sam_model_registry

    path = _download(CHECKPOINTS[checkpoint], folder / "checkpoints") if checkpoint in CHECKPOINTS else Path(checkpoint)
    kind, expected = _official_name(path)
    _require_hash(path, expected)
    network = sam_model_registry[kind]()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (UnpicklingError, EOFError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} holds no weights of {kind} ({error}); use an official checkpoint") from error
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    embeddings = EmbeddingCache(embeddings_name(checkpoint), folder / "embeddings", blob_store=blob_store)
    return SegmentAnythingModel(network, f"{kind}-{expected}", embeddings, cache_dir=folder / "runtime")


def embeddings_name(checkpoint: str) -> str:
    """Return what embeddings of a checkpoint, given as `load_sam` takes it, are named after.

    Raises ModelError when it is not named like an official one.
    """
    return "-".join(_official_name(Path(CHECKPOINTS.get(checkpoint, checkpoint))))


def _official_name(path: Path) -> tuple[str, str]:
    match = _NAME.search(path.name)
    if not match:
        raise ModelError(
            f"{path} is not named like an official checkpoint (such as {CHECKPOINTS['vit_b']}), so it cannot be "
            "checked; set MASKLOOP_SAM_CHECKPOINT to one, or to vit_b, vit_l or vit_h"
        )
    return match[1], match[2]


def _require_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ModelError(f"MASKLOOP_SAM_CHECKPOINT: there is no file {path}")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(expected):
        raise ModelError(f"{path} has SHA-256 {actual[:12]}…, not {expected}…: it is damaged; download it again")


def _download(name: str, cache: Path) -> Path:
    import torch

    path = cache / name
    _, expected = _official_name(path)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(_ADDRESS + name, str(path), hash_prefix=expected, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ModelError(
                f"cannot download {_ADDRESS}{name} ({error}); fetch it by hand and set MASKLOOP_SAM_CHECKPOINT to it"
            ) from error
    return path
