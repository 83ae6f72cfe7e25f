"""Learn decoder and head alone, from features of a frozen encoder that are computed once for each view of a photo.

Few photos teach an encoder little, and its passes are most of a step's time: a model of twenty photos is trained in a
minute. A pretrained encoder's features with a trained head come close to a fine-tuned encoder as long as photos are few
("Fine-tuning can distort pretrained features and underperform out-of-distribution", Kumar et al., ICLR 2022).
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import Dataset as TorchDataset

from pipelines.dataset.dataset import Dataset
from pipelines.params import TrainParams
from pipelines.segmentation.model import is_plain
from pipelines.training.data import Draw, Photos, processes
from pipelines.training.module import Learner

VIEWS = 6  # of each training photo: so many augmentations are enough for a head
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Layout:
    """The shapes of an encoder's features of photos of one size, the photo itself first, and which the decoder uses."""

    shapes: tuple[tuple[int, ...], ...]
    used: tuple[int, ...]

    @classmethod
    def of(cls, network: torch.nn.Module, height: int, width: int) -> "Layout":
        """Return the layout for photos of (height, width) pixels; encoder and decoder are left in evaluation mode."""
        encoder, decoder = (network.get_submodule(part).eval() for part in ("encoder", "decoder"))
        with torch.inference_mode():
            shapes = tuple(tuple(feature.shape[1:]) for feature in encoder(torch.zeros(1, 3, height, width)))
        features = [torch.zeros(1, *shape, requires_grad=True) for shape in shapes]
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(
            decoder(features).sum(), features, allow_unused=True
        )
        return cls(shapes, tuple(level for level, gradient in enumerate(gradients) if gradient is not None))

    @property
    def length(self) -> int:
        """Count the values of a photo's features that the decoder uses."""
        return sum(math.prod(self.shapes[level]) for level in self.used)


def can_be_kept(network: torch.nn.Module, options: TrainParams, photos: int) -> bool:
    """Return whether a network's encoder is frozen as a whole, so that features of so many photos may be kept."""
    frozen = options.frozen_stride == 32 and options.encoder_weights != "none"
    if not frozen or not is_plain(network) or processes()[1] > 1:
        return False
    layout = Layout.of(network, options.image_height, options.image_width)
    return photos * VIEWS * 2 * layout.length <= _MOST_BYTES


class Views(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """A frozen encoder's features of photos, of `views` augmentations each, in a mapped file without a name.

    An item is (F, 1, 1) float16, all features that the decoder uses one after the other, and an (h, w) int64 mask. The
    seed of a draw says which augmentation of a photo is given.
    """

    def __init__(self, dataset: Dataset, photos: Photos, network: torch.nn.Module, *, views: int, seed: int) -> None:
        height, width = photos.card.height, photos.card.width
        encoder, self._views = network.get_submodule("encoder").eval(), views
        layout, count = Layout.of(network, height, width), len(photos) * views
        with tempfile.TemporaryFile(dir=dataset.root) as file:  # mapped, it stays after it is closed
            self._features = _mapped(file, (count, layout.length), np.float16)
        with tempfile.TemporaryFile(dir=dataset.root) as file:
            self._masks = _mapped(file, (count, height, width), np.uint8)
        seeds = np.random.default_rng(seed).integers(2**63, size=count).tolist()
        with torch.inference_mode():
            for number in track(range(count), "encoding", transient=True):
                photo, mask = photos[number // views, seeds[number]]
                features = encoder(photo[None].to(memory_format=torch.channels_last))
                packed = torch.cat([features[level].flatten() for level in layout.used])
                self._features[number], self._masks[number] = packed.half().numpy(), mask.numpy()

    def __len__(self) -> int:
        """Count the photos."""
        return len(self._features) // self._views

    def __getitem__(self, draw: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a photo's features in one of its views, and the mask of that view."""
        place, seed = draw if isinstance(draw, tuple) else (draw, 0)
        number = place * self._views + seed % self._views
        features = torch.from_numpy(np.array(self._features[number]))
        return features[:, None, None], torch.from_numpy(self._masks[number].astype(np.int64))


class HeadLearner(Learner):
    """A network whose decoder and head learn from the features that `Views` packs; `sizes` are photos' (h, w)."""

    def __init__(
        self, network: torch.nn.Module, params: TrainParams, pixels: np.ndarray, sizes: Iterable[tuple[int, int]]
    ) -> None:
        super().__init__(network, params, pixels)
        layouts = [Layout.of(network, *size) for size in sizes]
        self._layouts = {layout.length: layout for layout in layouts}
        self.train()

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Return (N, C, h, w) float32 logits of (N, F, 1, 1) packed features, before the head enlarges them."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16 and not photos.is_cuda):
            return self._small(photos).float()

    def logits(self, photos: torch.Tensor) -> torch.Tensor:
        """Return the (N, C, h, w) logits of packed features at the photos' size."""
        _, *enlarging = self.network.get_submodule("segmentation_head").children()
        return torch.nn.Sequential(*enlarging)(self._small(photos))

    def loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch; of the masks, those pixels count that lie at the centres of small logits."""
        step = masks.shape[1] // logits.shape[2]
        return super().loss(logits, masks[:, step // 2 :: step, step // 2 :: step])

    def _small(self, packed: torch.Tensor) -> torch.Tensor:
        decoder, head = map(self.network.get_submodule, ("decoder", "segmentation_head"))
        convolution, *_ = head.children()
        return convolution(decoder(self._unpacked(packed)))

    def _unpacked(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """Return a feature for each level of the encoder; those that the decoder does not use are zeros."""
        layout, begin = self._layouts[packed.shape[1]], 0
        features = [packed.new_zeros(1, dtype=torch.float32).expand(len(packed), *shape) for shape in layout.shapes]
        for level in layout.used:
            end = begin + math.prod(layout.shapes[level])
            values = packed[:, begin:end, 0, 0].float().reshape(len(packed), *layout.shapes[level])
            features[level], begin = values.contiguous(memory_format=torch.channels_last), end
        return features


def _mapped(file: object, shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
    """Return an array in a file; an empty one, which cannot be mapped, in memory."""
    return np.memmap(file, kind, "w+", shape=shape) if shape[0] else np.empty(shape, kind)  # type: ignore[call-overload]  # a file object
