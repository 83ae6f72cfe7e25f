"""What SAM 1 and SAM 2 share: photos are encoded once, clicks are answered from the embedding, masks are cleaned."""

import threading
from abc import ABC, abstractmethod
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from pipelines.records import PhotoAddress
from pipelines.segmentation.editing import parts_of
from pipelines.segmentation.embeddings import Embedding, EmbeddingCache
from pipelines.segmentation.postprocess import clean_likelihood
from pipelines.segmentation.prompts import PhotoOpener, Prompts, pixels_at
from pipelines.segmentation.runtime import Forward, compile_network
from pipelines.segmentation.transforms import mask_at_photo_size

if TYPE_CHECKING:
    import torch

_LOGIT = 10.0  # of a pixel that surely belongs to the mask that is edited


class PromptableModel(ABC):
    """A loaded Segment Anything. A photo is encoded once, which takes seconds; clicks on others do not wait for it.

    `name` is what its embeddings are named after and `sha256` the digest of its weights. `cache_dir` is the folder for
    the encoder as the runtime needs it; without one it is converted on every start.
    """

    def __init__(
        self, network: "torch.nn.Module", name: str, embeddings: EmbeddingCache, cache_dir: Path | None, sha256: str
    ) -> None:
        self.version, self.sha256 = f"sam:{name}", sha256
        self._embeddings = embeddings
        self._device = next(network.parameters()).device
        self._network = network.eval().requires_grad_(False)
        self._encoder_file = cache_dir / f"{name}.xml" if cache_dir else None
        self._encoder: Forward | None = None
        self._encoding = threading.Lock()  # one photo at a time, because the encoder uses all cores

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Return the side of the encoder's square input in pixels."""

    @property
    @abstractmethod
    def decoder(self) -> "torch.nn.Module":
        """Return the mask decoder."""

    @property
    @abstractmethod
    def encoder_network(self) -> "torch.nn.Module":
        """Return the image encoder: (1, 3, size, size) float32 to what `embedding_of` takes."""

    @abstractmethod
    def drop_encoder(self) -> None:
        """Free the encoder's weights; the runtime has a copy of its own, of hundreds of megabytes."""

    @abstractmethod
    def input_of(self, photo: np.ndarray) -> np.ndarray:
        """Return an (H, W, 3) uint8 RGB photo as the encoder's input: (1, 3, size, size) float32."""

    @abstractmethod
    def embedding_of(self, output: np.ndarray, height: int, width: int) -> Embedding:
        """Return the encoder's output for a (height, width) photo as an embedding."""

    @abstractmethod
    def shares(self, mask: np.ndarray) -> np.ndarray:
        """Return how much of each pixel of the decoder's grid a (H, W) bool mask covers: (h, w) float32, 0..1."""

    @abstractmethod
    def likelihood(self, logits: np.ndarray, size: tuple[int, int], height: int, width: int) -> np.ndarray:
        """Return (h, w) float32 logits of the decoder's grid at `size`, (h2, w2), of a (height, width) photo."""

    @abstractmethod
    def answers(self, embedding: Embedding, prompts: Prompts) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return masks as (M, h, w) logits on the decoder's grid, and estimates of their IoU, (M,).

        A single point is ambiguous and gets three masks, other prompts one. Gradients reach the decoder's parameters.
        """

    def with_own_decoder(self) -> Self:
        """Return this model with a copy of its mask decoder; all else is shared, the encoder and embeddings included.

        The encoder is loaded first, so that its weights are in memory once.
        """
        self.warm_up()
        other, network = copy(self), copy(self._network)
        network._modules = {**network._modules, "mask_decoder": deepcopy(self.decoder)}
        other._network = network
        return other

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

        height, width = embedding.height, embedding.width
        size = self.cleaning_size(height, width)
        with torch.inference_mode():
            logits, scores = self.answers(embedding, prompts)
        best = int(scores.argmax())
        likely = self.likelihood(logits[best].float().cpu().numpy(), size, height, width)
        inside = pixels_at(prompts.positive, size, height, width)
        if (edited := edited_mask(prompts)) is None:
            cleaned = clean_likelihood(likely, 0, inside, pixels_at(prompts.negative, size, height, width))
        else:
            before = cv2.resize(edited.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA).astype(bool)
            cleaned = np.where((likely > 0) & ~parts_of(likely > 0, before, inside), -1, likely)
        return mask_at_photo_size(cleaned, 0, height, width), float(scores[best].clip(0, 1))

    def cleaning_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (h, w) at which masks of a (height, width) photo are cleaned: that of the encoder's input."""
        return scaled_size(height, width, self.input_size)

    def warm_up(self) -> None:
        """Convert and load the encoder, which takes seconds, before the first photo needs it."""
        with self._encoding:
            self._ready_encoder()

    def compiled_encoder(self) -> Forward:
        """Return the compiled encoder; see `encoder_network`."""
        shape = (3, self.input_size, self.input_size)
        return compile_network(self.encoder_network, shape, cache_file=self._encoder_file)

    def _encode(self, open_photo: PhotoOpener) -> Embedding:
        with open_photo() as photo:
            height, width = photo.shape[:2]
            pixels = self.input_of(photo)
        del photo  # before the encoder is waited for
        with self._encoding:
            output = self._ready_encoder()(pixels)
        return self.embedding_of(output, height, width)

    def _ready_encoder(self) -> Forward:
        import torch

        if self._encoder is None:
            self._encoder = self.compiled_encoder()
            if not torch.cuda.is_available():
                self.drop_encoder()
        return self._encoder


@dataclass(frozen=True)
class SamImagePredictor:
    """Predicts masks on one encoded photo."""

    model: PromptableModel
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
        """Return a mask and a score; see `PromptableModel.decode`."""
        return self.model.decode(self.embedding, prompts)


def edited_mask(prompts: Prompts) -> np.ndarray | None:
    """Return the (H, W) bool mask that the prompts change, or None where they draw a new one."""
    return None if prompts.redraws else prompts.mask


def is_ambiguous(prompts: Prompts) -> bool:
    """Return whether the best of several masks is taken: a single point may mean a button, a coat or a person."""
    return len(prompts.point_coords) == 1 and prompts.box is None and edited_mask(prompts) is None


def as_logits(shares: np.ndarray) -> np.ndarray:
    """Return (h, w) shares of pixels, 0..1, as a mask prompt: (1, 1, h, w) float32 logits."""
    return (2 * _LOGIT * shares - _LOGIT).astype(np.float32)[None, None]


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return the (height, width) with this long side, rounded as ResizeLongestSide does."""
    scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
