"""SAM 2.1 on single photos (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024), from transformers.

The checkpoints are those for videos; the memory of earlier frames is left out. The encoder gives three feature maps, of
1/4, 1/8 and 1/16 of its input's side.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from pipelines.errors import ModelError
from pipelines.segmentation.embeddings import BlobStore, Embedding, EmbeddingCache
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam_checkpoints import CONFIG, WEIGHTS, Checkpoint, checked_sha256
from pipelines.segmentation.sam_model import PromptableModel, as_logits, edited_mask, is_ambiguous, scaled_size
from pipelines.segmentation.transforms import normalize

if TYPE_CHECKING:
    from transformers import Sam2Model

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in each preprocessor_config.json
_MAX_ITEMS = 16  # embeddings in memory: 8 MiB each, four times as large as SAM 1's
_KINDS = ("sam2", "sam2_video")  # the official config.json says the latter


class Sam2SegmentAnythingModel(PromptableModel):
    """A loaded SAM 2.1; photos are stretched to the encoder's square input."""

    _network: "Sam2Model"

    def __init__(
        self,
        network: "Sam2Model",
        name: str,
        embeddings: EmbeddingCache,
        cache_dir: Path | None = None,
        sha256: str = "",
    ) -> None:
        super().__init__(network, name, embeddings, cache_dir, sha256)
        self._sizes = [tuple(size) for size in network.backbone_feature_sizes]

    @property
    def input_size(self) -> int:
        """Return the side of the encoder's square input in pixels."""
        return int(self._network.prompt_encoder.input_image_size)  # type: ignore[arg-type]  # one number, not two

    @property
    def decoder(self) -> torch.nn.Module:
        """Return the mask decoder."""
        return self._network.mask_decoder

    @property
    def encoder_network(self) -> torch.nn.Module:
        """Return the image encoder: (1, 3, size, size) float32 to all feature maps in one row, (1, N) float32."""
        return _Encoder(self._network)

    def drop_encoder(self) -> None:
        """Free the encoder's weights."""
        del self._network.vision_encoder

    def input_of(self, photo: np.ndarray) -> np.ndarray:
        """Return an (H, W, 3) uint8 RGB photo as the encoder's input: (1, 3, size, size) float32."""
        size = self.input_size, self.input_size
        small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
        return normalize(small, _MEAN, _STD)[None]

    def embedding_of(self, output: np.ndarray, height: int, width: int) -> Embedding:
        """Return the encoder's output for a (height, width) photo as an embedding."""
        channels = _channels(self._network)
        counts = [count * h * w for count, (h, w) in zip(channels, self._sizes, strict=True)]
        rows = np.split(output[0].astype(np.float16), np.cumsum(counts)[:-1])
        *fine, features = (
            row.reshape(count, h, w) for row, count, (h, w) in zip(rows, channels, self._sizes, strict=True)
        )
        return Embedding(features, height, width, tuple(fine))

    def cleaning_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (h, w) at which masks are cleaned: the photo's own, or the input's long side if that is smaller.

        Like the official predictor it is reached from the decoder's grid in one step.
        """
        return min((height, width), scaled_size(height, width, self.input_size))

    def shares(self, mask: np.ndarray) -> np.ndarray:
        """Return how much of each pixel of the decoder's grid a (H, W) bool mask covers: (h, w) float32, 0..1."""
        height, width = self._network.prompt_encoder.mask_input_size
        return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)

    def likelihood(self, logits: np.ndarray, size: tuple[int, int], height: int, width: int) -> np.ndarray:
        """Return (h, w) float32 logits of the decoder's grid at `size`, (h2, w2)."""
        return cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR)

    def answers(self, embedding: Embedding, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Return masks as (M, h, w) logits on the decoder's grid, and estimates of their IoU, (M,)."""
        scale = np.array([self.input_size / embedding.width, self.input_size / embedding.height], np.float32)
        levels = [
            torch.from_numpy(level).float()[None].to(self._device) for level in (*embedding.fine, embedding.features)
        ]
        inputs: dict[str, torch.Tensor] = {}
        if len(prompts.point_coords):
            inputs["input_points"] = torch.from_numpy(prompts.point_coords * scale)[None, None]
            inputs["input_labels"] = torch.from_numpy(prompts.point_labels.astype(np.int32))[None, None]
        if prompts.box is not None:
            inputs["input_boxes"] = torch.from_numpy(prompts.box.reshape(2, 2) * scale).reshape(1, 1, 4)
        if (mask := edited_mask(prompts)) is not None:
            inputs["input_masks"] = torch.from_numpy(as_logits(self.shares(mask)))
        answer = self._network(
            image_embeddings=levels,
            multimask_output=is_ambiguous(prompts),
            **{name: tensor.to(self._device) for name, tensor in inputs.items()},
        )
        return answer.pred_masks[0, 0], answer.iou_scores[0, 0]


class _Encoder(torch.nn.Module):
    """The image encoder with what the decoder would compute anew on every click, as one tensor for the runtime."""

    def __init__(self, network: "Sam2Model") -> None:
        super().__init__()
        self.encoder = network.vision_encoder
        self.conv_s0, self.conv_s1 = network.mask_decoder.conv_s0, network.mask_decoder.conv_s1
        self.no_memory = network.no_memory_embedding

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        large, middle, small = self.encoder(pixels).fpn_hidden_states
        levels = self.conv_s0(large), self.conv_s1(middle), small + self.no_memory.reshape(1, -1, 1, 1)
        return torch.cat([level.flatten(1) for level in levels], dim=1)


def _channels(network: "Sam2Model") -> tuple[int, ...]:
    """Return the number of channels of each feature map."""
    decoder = network.mask_decoder
    return decoder.conv_s0.out_channels, decoder.conv_s1.out_channels, network.hidden_dim


def load_sam2(chosen: Checkpoint, folder: Path, blob_store: BlobStore | None = None) -> Sam2SegmentAnythingModel:
    """Load a SAM 2 checkpoint that is on this machine; see `load_sam`."""
    weights = chosen.path / WEIGHTS
    if not weights.is_file() or not (chosen.path / CONFIG).is_file():
        raise ModelError(f"MASKLOOP_SAM_CHECKPOINT: {chosen.path} has no {CONFIG} and {WEIGHTS}")
    expected = next((file.sha256 for file in chosen.files if file.name == WEIGHTS), "")
    digest = checked_sha256(weights, expected)
    network = _network(chosen.path).to("cuda" if torch.cuda.is_available() else "cpu")
    embeddings = EmbeddingCache(chosen.name, folder / "embeddings", max_items=_MAX_ITEMS, blob_store=blob_store)
    return Sam2SegmentAnythingModel(network, chosen.name, embeddings, folder / "runtime", digest)


def _network(path: Path) -> Any:
    from transformers import Sam2Config, Sam2Model

    try:
        fields = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if (kind := fields.get("model_type")) not in _KINDS:
            raise ModelError(f"{path} is a {kind} and no SAM 2; set MASKLOOP_SAM_CHECKPOINT to another checkpoint")
        parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        config = Sam2Config(**{name: fields[name] for name in parts if name in fields})
        loaded: Any = Sam2Model.from_pretrained(
            path, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path} holds no SAM 2 that can be loaded ({error}); use another checkpoint") from error
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{path} lacks weights of {missing[0]} and {len(missing) - 1} more; use another checkpoint")
    return network
