"""Out-of-fold predictions by small models: the features of a pretrained encoder, and a head per fold.

The encoders were trained on ImageNet alone and never on these labels, so their features are independent of what was
drawn. They are computed once per photo and cached. For each fold a small head is trained on the photos of all other
folds, which takes minutes on a CPU; photos of a family, which look alike, are always in one fold.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import nn
from torch.nn import functional

from pipelines.fs import write_atomically
from pipelines.params import IGNORE, TrainParams
from pipelines.photos.decode import sha256_hex
from pipelines.quality.label_errors import HEIGHT, WIDTH, JudgedPhoto
from pipelines.segmentation.model import new_network
from pipelines.segmentation.runtime import multiplies_bfloat16
from pipelines.segmentation.transforms import BACKGROUND, normalize, resize_image, resize_mask

logger = logging.getLogger(__name__)
MIN_PHOTOS = 40  # heads trained on fewer predict poorly
# The mean of the heads of two encoders is better than each head alone.
ENCODERS, _WEIGHTS = ("timm-tf_efficientnet_lite0", "timm-tf_efficientnet_lite2"), "imagenet-pypi"
_HEIGHT, _WIDTH = 480, 320  # of the encoders' input
_STAGES = 3  # the last ones of an encoder, whose output is used: at 1/8, 1/16 and 1/32 of that size
_CHANNELS, _STEPS, _BATCH, _LR, _DECAY = 64, 400, 16, 3e-3, 0.05
_DROPOUT, _SMOOTHING = 0.5, 0.1  # against overconfidence after a few hundred photos
_MAX_BYTES = 4_000_000_000  # of cached features, per encoder

Read = Callable[[str], np.ndarray]  # by SHA-256: a photo, (H, W, 3) uint8 RGB, or its index mask, (H, W) uint8


class Features:
    """A pretrained encoder's features of photos, cached in a folder up to a limit; half a megabyte per photo.

    A photo's features are an array per stage, the finest first: (C, h, w) float16.
    """

    def __init__(self, folder: Path, read_photo: Read, options: TrainParams, encoder: str) -> None:
        changes = {"encoder": encoder, "encoder_weights": _WEIGHTS, "architecture": "FPN", "decoder": {}}
        network, card = new_network(options.model_copy(update=changes), {"garment": 1})
        self._encoder, self._mean, self._std = network.get_submodule("encoder").eval(), card.mean, card.std
        self._read_photo, self._folder = read_photo, folder / f"{encoder}-{_HEIGHT}x{_WIDTH}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cached = {path.name for path in self._folder.iterdir()}
        self.shapes = [stage.shape for stage in self._stages(np.zeros((_HEIGHT, _WIDTH, 3), np.uint8))]

    def of(self, sha256: str) -> list[np.ndarray]:
        """Return a photo's features."""
        values = np.fromfile(self._folder / sha256, np.float16) if sha256 in self._cached else self._compute(sha256)
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), self.shapes, strict=True)]

    def evict_all_but(self, names: Sequence[str]) -> None:
        """Delete the cached features of all photos but these."""
        for name in self._cached - set(names):
            (self._folder / name).unlink(missing_ok=True)
        self._cached &= set(names)

    def _compute(self, sha256: str) -> np.ndarray:
        stages = self._stages(resize_image(self._read_photo(sha256), _HEIGHT, _WIDTH))
        values = np.concatenate([stage.ravel() for stage in stages]).astype(np.float16)
        if (len(self._cached) + 1) * values.nbytes <= _MAX_BYTES:
            write_atomically(self._folder / sha256, values.tobytes())
            self._cached.add(sha256)
        return values

    @torch.inference_mode()
    def _stages(self, photo: np.ndarray) -> list[np.ndarray]:
        pixels = torch.from_numpy(normalize(photo, self._mean, self._std))
        return [stage[0].numpy() for stage in self._encoder(pixels[None])[-_STAGES:]]


class Head(nn.Module):
    """A small decoder: logits (N, classes, h, w) from the features of N photos, whose stages are reduced and added."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(count), nn.Conv2d(count, _CHANNELS, 1)) for count in channels
        )
        mixing = [
            layer
            for _ in range(2)
            for layer in (nn.BatchNorm2d(_CHANNELS), nn.ReLU(), nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1))
        ]
        self.mix = nn.Sequential(
            *mixing, nn.BatchNorm2d(_CHANNELS), nn.ReLU(), nn.Dropout2d(_DROPOUT), nn.Conv2d(_CHANNELS, classes, 1)
        )

    def forward(self, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logits at the size of the first stage."""
        size = stages[0].shape[2:]
        reduced = [reduce(stage) for reduce, stage in zip(self.reduce, stages, strict=True)]
        return self.mix(sum(functional.interpolate(stage, size=size, mode="bilinear") for stage in reduced))


def assign_folds(families: Mapping[str, str], count: int) -> dict[str, int]:
    """Return the number of each photo's fold; photos of a family share one, and folds have about the same size.

    `families` maps photos to families. The assignment depends on the hashes of the families' names alone.
    """
    sizes = Counter(families.values())
    fold_of: dict[str, int] = {}
    fold_sizes = [0] * count
    for family in sorted(sizes, key=lambda name: (-sizes[name], sha256_hex(name.encode()))):
        fold_of[family] = fold_sizes.index(min(fold_sizes))
        fold_sizes[fold_of[family]] += sizes[family]
    return {photo: fold_of[family] for photo, family in families.items()}


def predict_out_of_fold(
    families: Mapping[str, str], features: Sequence[Features], read_mask: Read, labels: Mapping[str, int], folds: int
) -> Iterator[JudgedPhoto]:
    """Yield each photo with class probabilities from heads that were trained on the photos of all other folds.

    `families` maps photos to families, `labels` labels to pixel values. The probabilities are the mean of one head for
    each of `features`. Labels that no mask holds are left out. Yields nothing when all photos are of one family.
    """
    fold_of = assign_folds(families, min(folds, len(set(families.values()))))
    photos = sorted(fold_of)
    masks = {photo: resize_mask(read_mask(photo), HEIGHT, WIDTH) for photo in track(photos, "masks", transient=True)}
    present = set(np.unique(np.concatenate([np.unique(mask) for mask in masks.values()])).tolist())
    known = {name: value for name, value in labels.items() if value in present}
    for fold in sorted(set(fold_of.values())) if len(set(fold_of.values())) > 1 else []:
        others = [photo for photo in photos if fold_of[photo] != fold]
        heads = [train_head(others, cache, masks, list(known.values()), seed=fold) for cache in features]
        for photo in photos:
            if fold_of[photo] == fold:
                probs = [probabilities(head, cache.of(photo)) for head, cache in zip(heads, features, strict=True)]
                yield JudgedPhoto(photo, masks[photo], np.mean(probs, axis=0), known, "folds")


def train_head(
    photos: Sequence[str], features: Features, masks: Mapping[str, np.ndarray], values: Sequence[int], seed: int
) -> Head:
    """Train a head on these photos; `masks` are their index masks, of any size.

    Channel 0 is background, channel i the i-th of the pixel `values`; pixels of other values are ignored.
    """
    channel_of = np.full(256, IGNORE, np.uint8)
    channel_of[[BACKGROUND, *values]] = np.arange(len(values) + 1)
    height, width = features.shapes[0][1:]
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head([shape[0] for shape in features.shapes], len(values) + 1).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(head.parameters(), _LR, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, _STEPS)
        for step in track(range(_STEPS), f"head {seed + 1}", transient=True):
            sampled = [photos[index] for index in random.choice(len(photos), _BATCH)]
            batch = [features.of(photo) for photo in sampled]
            targets = [channel_of[resize_mask(masks[photo], height, width)] for photo in sampled]
            target = torch.from_numpy(np.stack(targets)).long()
            stages = [_as_tensor(np.stack(stage)) for stage in zip(*batch, strict=True)]
            if step % 2:  # mirrored
                stages, target = [stage.flip(3) for stage in stages], target.flip(2)
            with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
                logits = head(stages)
            loss = functional.cross_entropy(logits.float(), target, ignore_index=IGNORE, label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


@torch.inference_mode()
def probabilities(head: Head, stages: Sequence[np.ndarray]) -> np.ndarray:
    """Return class probabilities (C, h, w) float32 of one photo's features."""
    return head([_as_tensor(stage[None]) for stage in stages]).softmax(dim=1)[0].numpy()


def _as_tensor(stage: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stage).float().to(memory_format=torch.channels_last)
