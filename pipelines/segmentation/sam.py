"""Segment Anything (Kirillov et al., "Segment Anything", 2023), and the loading of both generations of its checkpoints.

Files are used only when their SHA-256 is the expected one.
"""

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING
from zipfile import is_zipfile

import cv2
import numpy as np
from PIL import Image

from pipelines.errors import ModelError
from pipelines.segmentation.embeddings import BlobStore, Embedding, EmbeddingCache
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam_checkpoints import (
    Checkpoint,
    checked_sha256,
    checkpoint_of,
    expected_sha256,
    is_off,
    local_checkpoint,
)
from pipelines.segmentation.sam_model import PromptableModel, as_logits, edited_mask, is_ambiguous, scaled_size

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

logger = logging.getLogger(__name__)


class SegmentAnythingModel(PromptableModel):
    """A loaded SAM 1; photos are scaled to the input's side and padded at the right and below."""

    _network: "Sam"

    def __init__(
        self, network: "Sam", name: str, embeddings: EmbeddingCache, cache_dir: Path | None = None, sha256: str = ""
    ) -> None:
        super().__init__(network, name, embeddings, cache_dir, sha256)
        self._input_size = int(network.image_encoder.img_size)

    @property
    def input_size(self) -> int:
        """Return the side of the encoder's square input in pixels."""
        return self._input_size

    @property
    def decoder(self) -> "torch.nn.Module":
        """Return the mask decoder."""
        return self._network.mask_decoder

    @property
    def encoder_network(self) -> "torch.nn.Module":
        """Return the image encoder: (1, 3, size, size) float32, normalised and padded, to (1, C, h, w) float32."""
        return self._network.image_encoder

    def drop_encoder(self) -> None:
        """Free the encoder's weights."""
        del self._network.image_encoder

    def input_of(self, photo: np.ndarray) -> np.ndarray:
        """Return an (H, W, 3) uint8 RGB photo as the encoder's input: (1, 3, size, size) float32."""
        scaled = scaled_size(photo.shape[0], photo.shape[1], self._input_size)
        small = np.asarray(Image.fromarray(photo).resize(scaled[::-1], Image.Resampling.BILINEAR))
        mean, std = (value.flatten().cpu().numpy() for value in (self._network.pixel_mean, self._network.pixel_std))
        padded = np.zeros((1, 3, self._input_size, self._input_size), np.float32)
        padded[0, :, : scaled[0], : scaled[1]] = ((small - mean) / std).transpose(2, 0, 1)
        return padded

    def embedding_of(self, output: np.ndarray, height: int, width: int) -> Embedding:
        """Return the encoder's output for a (height, width) photo as an embedding."""
        return Embedding(output[0].astype(np.float16), height, width)

    def shares(self, mask: np.ndarray) -> np.ndarray:
        """Return how much of each pixel of the decoder's grid a (H, W) bool mask covers; 0 beside the photo."""
        scaled = scaled_size(mask.shape[0], mask.shape[1], self._input_size)
        padded = np.zeros((self._input_size, self._input_size), np.float32)
        padded[: scaled[0], : scaled[1]] = cv2.resize(mask.astype(np.uint8), scaled[::-1], interpolation=cv2.INTER_AREA)
        height, width = self._network.prompt_encoder.mask_input_size
        return cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA)

    def likelihood(self, logits: np.ndarray, size: tuple[int, int], height: int, width: int) -> np.ndarray:
        """Return logits at the scaled photo's size, without the padding, as `Sam.postprocess_masks`."""
        padded = cv2.resize(logits, (self._input_size, self._input_size))
        return np.ascontiguousarray(padded[: size[0], : size[1]])

    def answers(self, embedding: Embedding, prompts: Prompts) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return masks as (M, h, w) logits on the decoder's grid, and estimates of their IoU, (M,)."""
        import torch

        network, height, width = self._network, embedding.height, embedding.width
        scaled = scaled_size(height, width, self._input_size)
        scale = np.array([scaled[1] / width, scaled[0] / height], np.float32)
        mask, points, box = edited_mask(prompts), None, None
        if len(prompts.point_coords):
            labels = torch.from_numpy(prompts.point_labels.astype(np.int32))
            points = (
                torch.from_numpy(prompts.point_coords * scale)[None].to(self._device), labels[None].to(self._device)
            )  # fmt: skip
        if prompts.box is not None:
            box = torch.from_numpy(prompts.box.reshape(2, 2) * scale).reshape(1, 4).to(self._device)
        with torch.no_grad():
            sparse, dense = network.prompt_encoder(
                points=points,
                boxes=box,
                masks=None if mask is None else torch.from_numpy(as_logits(self.shares(mask))).to(self._device),
            )
        logits, scores = network.mask_decoder(
            image_embeddings=torch.from_numpy(embedding.features).float()[None].to(self._device),
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=is_ambiguous(prompts),
        )
        return logits[0], scores[0]


def load_sam(checkpoint: str, folder: Path, blob_store: BlobStore | None = None) -> PromptableModel:
    """Load a checkpoint that is on this machine, given as MASKLOOP_SAM_CHECKPOINT names it.

    Downloaded checkpoints (`SamLoader` downloads them) and embeddings are in `folder`; embeddings are shared through
    `blob_store`, if there is one.

    Raises ModelError when a file is missing, is not of the expected SHA-256, or holds another network.
    """
    return _load(checkpoint_of(checkpoint, folder), folder, blob_store)


def local_sam(setting: str, folder: Path) -> PromptableModel | None:
    """Load the checkpoint of a setting where its files are on this machine already; see `load_sam`.

    None where they are not, where they cannot be used, which the log says, and where Segment Anything is off.
    """
    if is_off(setting):
        return None
    try:
        chosen = local_checkpoint(setting, folder)
        if chosen is None:
            logger.info("no complete checkpoint of Segment Anything (%s) is in %s", setting, folder)
            return None
        return _load(chosen, folder)
    except ModelError as error:
        logger.warning("Segment Anything cannot be used: %s", error)
        return None


def _load(chosen: Checkpoint, folder: Path, blob_store: BlobStore | None = None) -> PromptableModel:
    if chosen.family == 1:
        return _load_sam_1(chosen, folder, blob_store)
    from pipelines.segmentation.sam2 import load_sam2

    return load_sam2(chosen, folder, blob_store)


def _load_sam_1(chosen: Checkpoint, folder: Path, blob_store: BlobStore | None) -> SegmentAnythingModel:
    import torch
    from segment_anything import sam_model_registry

    path, kind = chosen.path, chosen.name.partition("-")[0]
    digest = checked_sha256(path, expected_sha256(chosen))
    network = sam_model_registry[kind]()
    try:
        mapped = is_zipfile(path)  # not read as a whole beside the network; files of before PyTorch 1.6 cannot be
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except (UnpicklingError, EOFError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} holds no weights of {kind} ({error}); use an official checkpoint") from error
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    embeddings = EmbeddingCache(chosen.name, folder / "embeddings", blob_store=blob_store)
    return SegmentAnythingModel(network, chosen.name, embeddings, folder / "runtime", digest)
