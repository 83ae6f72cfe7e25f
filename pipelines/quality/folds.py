"""Masks judged by small models that did not learn from the photo: the features of a pretrained encoder, and heads.

The encoders learned from ImageNet alone and never from these labels, so their features say nothing of what was drawn.
They are computed once per photo and kept. On them small heads are trained for each fold, on the photos of all other
folds, which takes minutes on a processor; a family of photos that look alike is never on both sides.
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
from pipelines.quality.label_errors import HEIGHT, WIDTH, Judged
from pipelines.segmentation.model import new_network
from pipelines.segmentation.runtime import multiplies_bfloat16
from pipelines.segmentation.transforms import BACKGROUND, normalize, resize_image, resize_mask

logger = logging.getLogger(__name__)
ENOUGH_PHOTOS = 40  # heads that learn from fewer see little
# Two encoders see more than one: the mean of their heads is right where each by itself errs.
ENCODERS, _WEIGHTS = ("timm-tf_efficientnet_lite0", "timm-tf_efficientnet_lite2"), "imagenet-pypi"
_HEIGHT, _WIDTH = 480, 320  # of photos that the encoders see
_STAGES = 3  # of an encoder, the last ones, whose output is kept: at 1/8, 1/16 and 1/32 of that size
_CHANNELS, _STEPS, _BATCH, _LR, _DECAY = 64, 400, 16, 3e-3, 0.05
_DROPOUT, _SMOOTHING = 0.5, 0.1  # against certainty that a few hundred photos do not give
_MOST_BYTES = 4_000_000_000  # of features that are kept of an encoder

Read = Callable[[str], np.ndarray]  # a photo, (H, W, 3) uint8 RGB, or its index mask, (H, W) uint8, by SHA-256


class Features:
    """What a pretrained encoder makes of photos, kept in a folder until that is full: half a megabyte of each.

    A photo's features are an array per stage, the finest first: (C, h, w) float16.
    """

    def __init__(self, folder: Path, read_photo: Read, options: TrainParams, encoder: str) -> None:
        wanted = {"encoder": encoder, "encoder_weights": _WEIGHTS, "architecture": "FPN", "decoder": {}}
        network, card = new_network(options.model_copy(update=wanted), {"garment": 1})
        self._encoder, self._mean, self._std = network.get_submodule("encoder").eval(), card.mean, card.std
        self._read_photo, self._folder = read_photo, folder / f"{encoder}-{_HEIGHT}x{_WIDTH}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._kept = {path.name for path in self._folder.iterdir()}
        self.shapes = [stage.shape for stage in self._stages(np.zeros((_HEIGHT, _WIDTH, 3), np.uint8))]

    def of(self, sha256: str) -> list[np.ndarray]:
        """Return a photo's features."""
        values = np.fromfile(self._folder / sha256, np.float16) if sha256 in self._kept else self._compute(sha256)
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), self.shapes, strict=True)]

    def drop_others(self, names: Sequence[str]) -> None:
        """Remove what is kept of photos that are not among these."""
        for name in self._kept - set(names):
            (self._folder / name).unlink(missing_ok=True)
        self._kept &= set(names)

    def _compute(self, sha256: str) -> np.ndarray:
        stages = self._stages(resize_image(self._read_photo(sha256), _HEIGHT, _WIDTH))
        values = np.concatenate([stage.ravel() for stage in stages]).astype(np.float16)
        if (len(self._kept) + 1) * values.nbytes <= _MOST_BYTES:
            write_atomically(self._folder / sha256, values.tobytes())
            self._kept.add(sha256)
        return values

    @torch.inference_mode()
    def _stages(self, photo: np.ndarray) -> list[np.ndarray]:
        pixels = torch.from_numpy(normalize(photo, self._mean, self._std))
        return [stage[0].numpy() for stage in self._encoder(pixels[None])[-_STAGES:]]


class Head(nn.Module):
    """Logits (N, classes, h, w) from the features of N photos: each stage reduced, brought to one size and added up."""

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
        return self.mix(sum(functional.interpolate(one, size=size, mode="bilinear") for one in reduced))


def folds_of(families: Mapping[str, str], count: int) -> dict[str, int]:
    """Assign each photo the number of its fold, so that photos of a family share one and folds are about as large.

    `families` names the family by photo. Which families share a fold follows from their names' hashes.
    """
    sizes = Counter(families.values())
    fold_of: dict[str, int] = {}
    filled = [0] * count
    for family in sorted(sizes, key=lambda one: (-sizes[one], sha256_hex(one.encode()))):
        fold_of[family] = filled.index(min(filled))
        filled[fold_of[family]] += sizes[family]
    return {photo: fold_of[family] for photo, family in families.items()}


def judge_out_of_fold(
    families: Mapping[str, str], features: Sequence[Features], read_mask: Read, labels: Mapping[str, int], folds: int
) -> Iterator[Judged]:
    """Yield each photo with class probabilities by heads that were trained on the photos of all other folds.

    `families` names the family by photo, `labels` the pixel value by label; there is a head for each of `features`, and
    their mean counts. Labels that no mask holds are left out. Yields nothing when the photos are of one family.
    """
    fold_of = folds_of(families, min(folds, len(set(families.values()))))
    places = sorted(fold_of)
    masks = {photo: resize_mask(read_mask(photo), HEIGHT, WIDTH) for photo in track(places, "masks", transient=True)}
    there = set(np.unique(np.concatenate([np.unique(mask) for mask in masks.values()])).tolist())
    known = {name: value for name, value in labels.items() if value in there}
    for fold in sorted(set(fold_of.values())) if len(set(fold_of.values())) > 1 else []:
        others = [photo for photo in places if fold_of[photo] != fold]
        heads = [train_head(others, one, masks, list(known.values()), seed=fold) for one in features]
        for photo in places:
            if fold_of[photo] == fold:
                said = [probabilities(head, one.of(photo)) for head, one in zip(heads, features, strict=True)]
                yield Judged(photo, masks[photo], np.mean(said, axis=0), known, "folds")


def train_head(
    photos: Sequence[str], features: Features, masks: Mapping[str, np.ndarray], values: Sequence[int], seed: int
) -> Head:
    """Train a head on these photos; `masks` are their index masks, of any size.

    Channel 0 is background, channel i the i-th of the pixel `values`; other values are not learned from.
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
            drawn = random.choice(len(photos), _BATCH)
            batch = [features.of(photos[place]) for place in drawn]
            drawn_as = [channel_of[resize_mask(masks[photos[place]], height, width)] for place in drawn]
            target = torch.from_numpy(np.stack(drawn_as)).long()
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
