"""A click network under optimisation: what it is asked in training, and by which loss it learns.

Iterative training with simulated clicks after RITM (Sofiiuk et al., 2021): each garment begins from nothing, from what
the network itself takes for it, or from a damaged mask; some clicks are answered without learning, and the network
learns from its answer to the next one. Its class logits go on learning beside, so that a network without a clothing
model before it knows garments as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from pipelines.params import IGNORE, TrainParams
from pipelines.segmentation.click_network import FINE_STRIDE, STRIDE, ClickNetwork
from pipelines.segmentation.click_prompts import Box, Click, prompt_planes
from pipelines.training.click_simulation import box_around, damaged, next_click
from pipelines.training.module import Batch, Learner, segmentation_loss

_FROM_NOTHING, _FROM_CLASSES = 0.5, 0.2  # shares of the garments that begin so; the others begin with a damaged mask
_BOX = 0.45  # share of those from nothing that are asked with a box first
_AGAIN = 0.25  # share of the garments with a click and a mask that are looked at once more, without another click
_UNNAMED = 0.15  # share of the garments whose label the network is not told
_SMALLEST = 24  # pixels of the answer's grid; smaller garments are not learned from
_MAX_CLICKS = 4  # that are simulated before the one that is learned from
_CLASSES_WEIGHT = 0.5  # of the loss of the class logits
_GAMMA = 2.0  # of the normalised focal loss
_AIMS = ("centre", "jittered", "human")


@dataclass
class Garment:
    """A garment that is asked for: its photo in the batch, its label's channel, and its masks on the answer's grid."""

    photo: int
    channel: int
    truth: np.ndarray  # (h/2, w/2) bool
    judged: np.ndarray  # (h/2, w/2) bool
    mask: np.ndarray | None = None  # (h/2, w/2) bool, as it is now
    clicks: list[Click] = field(default_factory=list)
    box: Box | None = None
    is_named: bool = True  # whether the network is told the label

    def click(self, chance: np.random.Generator, aim: str) -> None:
        """Add the click that a labeler makes next; where nothing is wrong, one in the garment."""
        mask = np.zeros_like(self.truth) if self.mask is None else self.mask
        place = next_click(mask, self.truth, chance, aim, self.judged)  # type: ignore[arg-type]  # of _AIMS
        place = place or next_click(np.zeros_like(mask), self.truth, chance, aim)  # type: ignore[arg-type]  # of _AIMS
        assert place is not None, "garments have pixels"
        x, y, positive = place
        self.clicks.append(Click(FINE_STRIDE * x + 0.5, FINE_STRIDE * y + 0.5, positive))

    def planes(self, size: tuple[int, int]) -> np.ndarray:
        """Return the planes that the network is asked with."""
        return prompt_planes(size, self.clicks, self.box, None if self.mask is None else self.mask.astype(np.float32))


class ClickLearner(Learner):
    """A click network that learns from up to `garments` garments of each photo."""

    network: ClickNetwork
    measure_name = "val_iou_2_clicks"

    def __init__(self, network: ClickNetwork, params: TrainParams, pixels: np.ndarray, garments: int) -> None:
        super().__init__(network, params, pixels)
        self._garments = garments
        self._size = params.image_height, params.image_width

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Return the features of (N, 3, h, w) float32 photos; see `ClickNetwork.encode`."""
        return self.network.encode(photos)

    def loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch, whose features are `logits`; what is asked follows from torch's seed."""
        chance = np.random.default_rng(int(torch.randint(2**62, ())))
        small = masks[:, FINE_STRIDE // 2 :: FINE_STRIDE, FINE_STRIDE // 2 :: FINE_STRIDE]
        coarse = masks[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        of_classes = segmentation_loss(
            self.network.class_logits(logits), coarse, self.class_weights, dice=self.params.dice
        )
        garments = self._asked(logits, small.cpu().numpy(), chance)
        if not garments:
            return _CLASSES_WEIGHT * of_classes
        self._answer_some(logits, garments, chance)
        for garment in garments:
            looks_again = garment.mask is not None and garment.clicks and chance.random() < _AGAIN
            if garment.box is None and not looks_again:
                garment.click(chance, _AIMS[int(chance.integers(len(_AIMS)))])
        answers = self._answers(logits, garments)
        truth, judged = _targets(garments, masks)
        return click_loss(answers, truth, judged) + _CLASSES_WEIGHT * of_classes

    def tally(self, batches: Iterable[Batch]) -> np.ndarray:
        """Return the sum of the IoU after two clicks from nothing, and how many garments: (2,) float64."""
        total = np.zeros(2)
        for photos, masks in batches:
            features = self(photos)
            small = masks[:, FINE_STRIDE // 2 :: FINE_STRIDE, FINE_STRIDE // 2 :: FINE_STRIDE].numpy()
            garments = garments_of(small)
            size = photos.shape[2], photos.shape[3]
            for _ in range(2):
                for garment in garments:
                    garment.click(np.random.default_rng(0), "centre")
                self._update(features, garments, size)
            for garment in garments:
                total += intersection_over_union(garment.mask, garment.truth, garment.judged), 1
        return total

    def measure(self, tally: np.ndarray) -> float:
        """Return the mean IoU after two clicks."""
        return float(tally[0] / tally[1]) if tally[1] else float("nan")

    def see(self, photos: torch.Tensor, masks: torch.Tensor) -> None:
        """Run the encoder and the decoder, which hold the normalisations that count statistics."""
        self(photos)

    def _asked(self, features: torch.Tensor, masks: np.ndarray, chance: np.random.Generator) -> list[Garment]:
        """Choose garments of each photo and what they begin from."""
        asked: list[Garment] = []
        with torch.no_grad():
            logits = self.network.class_logits(features.detach())
            wanted = [size // FINE_STRIDE for size in self._size]
            taken = functional.interpolate(logits, wanted, mode="bilinear").argmax(dim=1).cpu().numpy()
        for photo in range(len(masks)):
            garments = garments_of(masks[photo : photo + 1])
            chosen = chance.permutation(len(garments))[: self._garments]
            for garment in (garments[number] for number in chosen):
                garment.photo = photo
                self._begin(garment, masks[photo], taken[photo], chance)
                garment.is_named = chance.random() >= _UNNAMED
                asked.append(garment)
        return asked

    def _begin(self, garment: Garment, mask: np.ndarray, taken: np.ndarray, chance: np.random.Generator) -> None:
        kind = chance.random()
        if kind < _FROM_NOTHING:
            if chance.random() < _BOX:
                x1, y1, x2, y2 = (FINE_STRIDE * value for value in box_around(garment.truth, chance))
                garment.box = float(x1), float(y1), float(x2), float(y2)
            return
        if kind < _FROM_NOTHING + _FROM_CLASSES:
            inside = np.bincount(taken[garment.truth], minlength=self.network.channels)[1:]
            start = taken == 1 + int(inside.argmax())
            if inside.any() and 0.2 < intersection_over_union(start, garment.truth, garment.judged) < 0.97:
                garment.mask = start
                return
        others = (mask > 0) & (mask != IGNORE) & ~garment.truth
        start = damaged(garment.truth, others, chance)
        garment.mask = start if start.any() else None

    def _answer_some(self, features: torch.Tensor, garments: list[Garment], chance: np.random.Generator) -> None:
        """Answer up to four prompts of some garments without learning."""
        rounds = np.minimum(chance.geometric(0.45, len(garments)) - 1, _MAX_CLICKS)
        with torch.no_grad():
            kept = features.detach()
            for turn in range(int(rounds.max(initial=0))):
                asked = [garment for garment, count in zip(garments, rounds, strict=True) if count > turn]
                for garment in asked:
                    if garment.box is None:
                        garment.click(chance, _AIMS[int(chance.integers(len(_AIMS)))])
                self._update(kept, asked, self._size)

    def _update(self, features: torch.Tensor, garments: list[Garment], size: tuple[int, int]) -> None:
        if garments:
            answers = self._answers(features, garments, size) > 0
            for garment, answer in zip(garments, answers[:, 0].cpu().numpy(), strict=True):
                garment.mask, garment.box = answer, None  # in use a box is asked with once, and clicks follow

    def _answers(
        self, features: torch.Tensor, garments: list[Garment], size: tuple[int, int] | None = None
    ) -> torch.Tensor:
        planes = np.stack([garment.planes(size or self._size) for garment in garments])
        labels = torch.tensor([garment.channel * garment.is_named for garment in garments], device=features.device)
        chosen = features[[garment.photo for garment in garments]]
        prompts = torch.from_numpy(planes).to(features.device, memory_format=torch.channels_last)
        return self.network.decode(chosen, prompts, labels)


def garments_of(masks: np.ndarray) -> list[Garment]:
    """Return the garments of (N, h, w) masks of channel numbers that are large enough to be learned from."""
    return [
        Garment(photo, int(channel), mask == channel, mask != IGNORE)
        for photo, mask in enumerate(masks)
        for channel, count in zip(*np.unique(mask, return_counts=True), strict=True)
        if 0 < channel < IGNORE and count >= _SMALLEST
    ]


def intersection_over_union(mask: np.ndarray | None, truth: np.ndarray, judged: np.ndarray) -> float:
    """Return the IoU of two (h, w) bool masks over the judged pixels: 0..1."""
    if mask is None:
        return 0.0
    union = np.count_nonzero((mask | truth) & judged)
    return np.count_nonzero(mask & truth & judged) / union if union else 1.0


def click_loss(answers: torch.Tensor, truth: torch.Tensor, judged: torch.Tensor) -> torch.Tensor:
    """Return the normalised focal loss (Sofiiuk et al., 2019) plus the Dice loss of (N, 1, h, w) logits.

    `truth` and `judged` are (N, 1, H, W) float32 of 0 and 1; the logits are enlarged to their size.
    """
    logits = functional.interpolate(answers, truth.shape[2:], mode="bilinear")
    probability = logits.sigmoid()
    of_truth = torch.where(truth > 0, probability, 1 - probability).clamp(1e-6, 1)
    weight = (1 - of_truth) ** _GAMMA * judged
    scale = (judged.sum((1, 2, 3)) / weight.detach().sum((1, 2, 3)).clamp_min(1e-6))[:, None, None, None]
    focal = -(scale * weight * of_truth.log()).sum((1, 2, 3)) / judged.sum((1, 2, 3)).clamp_min(1)
    both = (probability * truth * judged).sum((1, 2, 3))
    total = (probability * judged).sum((1, 2, 3)) + (truth * judged).sum((1, 2, 3))
    return (focal + 1 - 2 * both / total.clamp_min(1)).mean()


def _targets(garments: list[Garment], masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the garments' true masks and which pixels are judged, (N, 1, h, w) float32, at the size of the photos."""
    of_garments = masks[[garment.photo for garment in garments]][:, None]
    channels = torch.tensor([garment.channel for garment in garments], device=masks.device)[:, None, None, None]
    return (of_garments == channels).float(), (of_garments != IGNORE).float()
