"""Tune Segment Anything's mask decoder on a dataset's training photos, with simulated clicks on cached embeddings.

Image encoder and prompt encoder stay as they are. The loss is that of Kirillov et al., "Segment Anything" (2023): 20
times the focal loss, the dice loss, and the squared error of the estimated IoU; of several masks the best one learns.
Clicks follow from the answers before, as labelers' do, and begin from nothing, a box or a damaged mask.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torchvision.ops import sigmoid_focal_loss

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.records import decode_mask
from pipelines.errors import TrainingError
from pipelines.params import IGNORE, Params
from pipelines.records import PhotoAddress
from pipelines.segmentation.embeddings import Embedding
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam_decoder import DECODER, save_decoder, tuned_parameters
from pipelines.segmentation.sam_model import PromptableModel
from pipelines.training.click_simulation import box_around, damaged, next_click
from pipelines.training.data import photos_in

logger = logging.getLogger(__name__)

_FOCAL_WEIGHT = 20.0
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss (Lin et al., 2017), as in the published training code
_ROUNDS = 3  # clicks on a garment, each answered and learned from
_FROM_BOX, _FROM_MASK = 0.15, 0.35  # shares of the garments that begin so; the others begin with a click
_MAX_NORM = 1.0  # of the gradient
_JUDGED = 60  # garments of the validation photos, on which the decoder is compared with the one before


@dataclass
class Garment:
    """A garment that is asked for; masks are (h, w) bool at `PromptableModel.cleaning_size`."""

    label: str
    truth: np.ndarray
    judged: np.ndarray
    others: np.ndarray  # where other garments are
    mask: np.ndarray | None = None  # as it is now
    box: np.ndarray | None = None
    points: list[tuple[int, int]] = field(default_factory=list)
    positive: list[bool] = field(default_factory=list)

    def click(self, chance: np.random.Generator | None) -> bool:
        """Add the labeler's next click, in the middle of what is wrong without `chance`; return whether there is one.

        A garment that begins anew needs a positive click.
        """
        current = np.zeros_like(self.truth) if self.mask is None else self.mask
        place = next_click(current, self.truth, chance, "centre" if chance is None else "human", self.judged)
        if place is None or (self.mask is None and self.box is None and not place[2] and not any(self.positive)):
            return False
        self.points.append(place[:2])
        self.positive.append(place[2])
        return True

    def prompts(self) -> Prompts:
        """Return what the model is asked with."""
        points = np.array(self.points, np.float32).reshape(-1, 2)
        return Prompts(points, np.array(self.positive, bool), self.box, self.label, self.mask)


def tune_sam(dataset: Dataset, params: Params, sam: PromptableModel, folder: Path, *, lr: float = 1e-4) -> Path:
    """Tune `sam` in place, and write its decoder and card into `folder`; return the decoder's path, for `tuned`.

    `params.clicks` says for how long, on how many garments of a photo, and which are too small. `lr` is the first
    learning rate, which falls to 0 along a cosine. The card holds the mean IoU on validation photos after one and two
    clicks, before and after. Raises TrainingError when the loss is not finite, and DatasetError without training
    photos.
    """
    photos = _Photos(dataset, params, sam)
    train, val = photos_in(dataset, "train"), photos_in(dataset, "val")
    before = photos.mean_iou(val)
    steps = _learn(photos, train, params, lr)
    after = photos.mean_iou(val)
    logger.info("mean IoU after one and two clicks: %s before, %s after %d steps", before, after, steps)
    details = {"photos": len(train), "steps": steps, "val_iou_before": before, "val_iou_after": after}
    return save_decoder(sam, folder / DECODER, details)


def _learn(photos: "_Photos", train: list[str], params: Params, lr: float) -> int:
    """Optimise the decoder until the epochs or the minutes are over, and return the number of steps."""
    clicks, chance = params.clicks, np.random.default_rng(params.clicks.seed)
    weights = list(tuned_parameters(photos.sam).values())
    optimizer = torch.optim.AdamW((weight.requires_grad_(True) for weight in weights), lr=lr, weight_decay=0.01)
    per_epoch = math.ceil(len(train) / clicks.batch_size)
    steps = max(clicks.min_steps, clicks.epochs * per_epoch)
    steps = min(steps, clicks.max_steps or steps)
    begun, step = time.monotonic(), 0
    order: Iterator[str] = iter(())
    while step < steps:
        minutes = (time.monotonic() - begun) / 60
        progress = max(step / steps, minutes / clicks.max_minutes if clicks.max_minutes else 0)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * progress)) / 2
        batch = list(islice(order, clicks.batch_size))
        if not batch:
            order = iter(chance.permutation(np.array(train, object)).tolist())
            continue
        for photo in batch:
            photos.accumulate(photo, chance, 1 / len(batch))
        torch.nn.utils.clip_grad_norm_(weights, _MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    for weight in weights:
        weight.requires_grad_(False)
    return step


class _Photos:
    """The dataset's photos as embeddings with garments."""

    def __init__(self, dataset: Dataset, params: Params, sam: PromptableModel) -> None:
        self.sam, self._dataset, self._params = sam, dataset, params
        # Masks lie in shards, which are read once when photos come in the order of their hashes.
        self._masks = {photo: dataset.mask_png(photo) for photo in sorted(dataset.manifest()["sha256"])}
        self._addresses = {str(row["sha256"]): _address(row) for _, row in dataset.manifest().iterrows()}

    def accumulate(self, photo: str, chance: np.random.Generator, weight: float) -> None:
        """Add the gradient of a photo's mean loss, times `weight`."""
        embedding, garments = self._opened(photo)
        chance.shuffle(garments)  # type: ignore[arg-type]  # a list is a sequence that can be changed
        chosen = garments[: self._params.clicks.garments]
        for garment in chosen:
            _begin(garment, chance)
            for number in range(_ROUNDS):
                # A box alone is asked first.
                if not (number == 0 and garment.box is not None) and not garment.click(chance):
                    break
                logits, scores = self.sam.answers(embedding, garment.prompts())
                loss = _loss(self.sam, garment, logits, scores)
                if not torch.isfinite(loss):
                    raise TrainingError(f"the loss on photo {photo} is {loss.item()}; lower the learning rate")
                (loss * weight / (_ROUNDS * len(chosen))).backward()
                garment.mask = self._mask_of(logits[int(scores.detach().argmax())], embedding)

    def mean_iou(self, photos: list[str]) -> list[float]:
        """Return the mean IoU of the first garments of photos after one and after two clicks in the middle."""
        rows: list[list[float]] = []
        for photo in photos:
            if len(rows) >= _JUDGED:
                break
            embedding, garments = self._opened(photo)
            rows += [self._ious(embedding, garment) for garment in garments]
        return [round(float(value), 4) for value in np.mean(rows, axis=0)] if rows else []

    def _ious(self, embedding: Embedding, garment: Garment) -> list[float]:
        values = []
        for _ in range(2):
            if garment.click(None):
                garment.mask = self.sam.decode(embedding, garment.prompts())[0]
            mask = garment.mask if garment.mask is not None else np.zeros_like(garment.truth)
            union = np.count_nonzero((mask | garment.truth) & garment.judged)
            values.append(np.count_nonzero(mask & garment.truth & garment.judged) / max(union, 1))
        return values

    def _opened(self, photo: str) -> tuple[Embedding, list[Garment]]:
        """Return a photo's embedding, as if the photo were of the size at which masks are cleaned, and its garments."""
        predictor = self.sam.set_image(
            self._addresses[photo], lambda: nullcontext(self._dataset.read_image(photo))
        )  # fmt: skip
        mask = decode_mask(self._masks[photo], f"the mask of {photo} in {self._dataset.root}")
        height, width = self.sam.cleaning_size(*mask.shape)
        small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return replace(predictor.embedding, height=height, width=width), list(self._garments(small))

    def _garments(self, mask: np.ndarray) -> Iterator[Garment]:
        judged, garments = mask != IGNORE, (mask > 0) & (mask != IGNORE)
        for label, index in self._params.label_ids.items():
            truth = mask == index
            if truth.mean() >= max(self._params.clicks.smallest, 1 / mask.size):
                yield Garment(label, truth, judged, garments & ~truth)

    def _mask_of(self, logits: torch.Tensor, embedding: Embedding) -> np.ndarray | None:
        """Return the answer as the mask that the next click edits; None when it is empty."""
        size = embedding.height, embedding.width
        mask = self.sam.likelihood(logits.detach().float().cpu().numpy(), size, *size) > 0
        return mask if mask.any() else None


def _address(row: "pd.Series[Any]") -> PhotoAddress:
    """Return the address under which clicks on a photo are answered, so that its embedding may be there already."""
    if "uri" not in row or "generation" not in row:
        return PhotoAddress(f"sha256:{row['sha256']}", 1)
    return PhotoAddress(str(row["uri"]), int(row["generation"]))


def _begin(garment: Garment, chance: np.random.Generator) -> None:
    kind = chance.random()
    if kind < _FROM_BOX:
        garment.box = np.array(box_around(garment.truth, chance), np.float32)
    elif kind < _FROM_BOX + _FROM_MASK:
        mask = damaged(garment.truth, garment.others, chance)
        garment.mask = mask if mask.any() else None


def _loss(sam: PromptableModel, garment: Garment, logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the loss of (M, h, w) logits and (M,) estimated IoUs; pixels that nobody can name do not count."""
    truth = torch.from_numpy(sam.shares(garment.truth)).to(logits).expand_as(logits)
    judged = torch.from_numpy(sam.shares(garment.judged)).to(logits).expand_as(logits)
    focal = sigmoid_focal_loss(logits, truth, _ALPHA, _GAMMA)
    focal = (focal * judged).sum((1, 2)) / judged.sum((1, 2))
    probs = logits.sigmoid() * judged
    dice = 1 - (2 * (probs * truth).sum((1, 2)) + 1) / ((probs + truth).sum((1, 2)) + 1)
    with torch.no_grad():
        mask, real = (logits > 0) & (judged > 0.5), truth > 0.5
        iou = (mask & real).sum((1, 2)) / (mask | real).sum((1, 2)).clamp(min=1)
    return (_FOCAL_WEIGHT * focal + dice).min() + (scores - iou).square().mean()
