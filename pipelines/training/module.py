"""The network under optimisation: what it learns, by which loss, and with which statistics it ends."""

from collections.abc import Iterable

import numpy as np
import torch

from pipelines.params import IGNORE, TrainParams
from pipelines.segmentation.model import is_plain
from pipelines.segmentation.runtime import multiplies_bfloat16
from pipelines.training.confusion import Confusion
from pipelines.training.freeze import freeze

Batch = tuple[torch.Tensor, torch.Tensor]  # photos (N, 3, h, w) float32, masks (N, h, w) int64
_ENCODER_SHARE = 1 / 3  # of the learning rate: the encoder is pretrained
_GREATEST_WEIGHT = 20.0  # of a class, against the mean pixel's


def class_weights(pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Return weights of classes by pixel count to the power of −`exponent`, the mean pixel's is 1: (C,) float32.

    `pixels` is (C,) int64. 0 weighs all alike, 1 gives each class as much as the background; classes without pixels
    get 0, and none gets more than 20.
    """
    shares = pixels / max(1, pixels.sum())
    weights = np.where(pixels > 0, np.maximum(shares, 1e-9) ** -exponent, 0.0)
    return np.minimum(weights / max(1e-9, float((weights * shares).sum())), _GREATEST_WEIGHT).astype(np.float32)


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor, *, dice: bool) -> torch.Tensor:
    """Return weighted cross-entropy, plus with `dice` the Dice loss averaged over the classes in the batch.

    `logits` is (N, C, h, w) float32, `masks` (N, h, w) int64 channel numbers or `IGNORE`, whose pixels do not count,
    `weights` (C,) float32. Dice after Milletari et al., "V-Net" (2016), with plain sums; both come from one softmax
    and no one-hot mask, which takes half the time of the two losses of torch and segmentation-models-pytorch.
    """
    classes = len(weights)
    known = (masks != IGNORE).to(logits.dtype)  # (N, h, w)
    targets = masks.masked_fill(masks == IGNORE, 0)
    log_probs = logits.log_softmax(dim=1)
    of_target = log_probs.gather(1, targets[:, None]).flatten()
    flat, counted = targets.flatten(), known.flatten()
    of_pixel = weights[flat] * counted
    loss = -(of_target * of_pixel).sum() / of_pixel.sum().clamp_min(1e-7)
    if dice:
        true = of_target.new_zeros(classes).index_add(0, flat, counted)
        both = of_target.new_zeros(classes).index_add(0, flat, of_target.exp() * counted)
        probs = log_probs.exp().flatten(2)  # (N, C, h·w); a product with `known` sums up without another tensor of it
        total = torch.bmm(probs, known.flatten(1)[:, :, None]).sum(dim=(0, 2)) + true
        present = true > 0
        if present.any():
            loss = loss + (1 - 2 * both / total)[present].mean()
    return loss


class Learner(torch.nn.Module):
    """A network that learns, except for what is frozen of its encoder, by `segmentation_loss`.

    `pixels` is (C,) int64: how many pixels of the training photos each class has.
    """

    class_weights: torch.Tensor
    measure_name = "val_miou"  # of what `measure` returns, in learning curves

    def __init__(self, network: torch.nn.Module, params: TrainParams, pixels: np.ndarray) -> None:
        super().__init__()
        self.network, self.params = network, params
        pretrained = params.encoder_weights != "none"
        size = params.image_height, params.image_width
        self._frozen = freeze(network.get_submodule("encoder"), params.frozen_stride if pretrained else 0, *size)
        self._bfloat16 = params.precision == "auto" and multiplies_bfloat16()
        weights = torch.from_numpy(class_weights(pixels, params.class_weights))
        self.register_buffer("class_weights", weights, persistent=False)
        self.train()

    def train(self, mode: bool = True) -> "Learner":
        """Switch between training and evaluation; what is frozen keeps the statistics of its normalisations."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Return (N, C, h, w) float32 logits of (N, 3, h, w) float32 photos in channels-last order.

        Processors that multiply matrices of bfloat16 numbers (AMX) do so in the decoder, as `torch.autocast` rounds
        them, unless `precision` is float32; encoders hold convolutions that are slower in it.
        """
        if photos.is_cuda or not (self._bfloat16 and is_plain(self.network)):
            return self.network(photos).float()
        encoder, decoder, head = map(self.network.get_submodule, ("encoder", "decoder", "segmentation_head"))
        features = encoder(photos)
        with torch.autocast("cpu", torch.bfloat16):
            return head(decoder(features)).float()

    def loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch."""
        return segmentation_loss(logits, masks, self.class_weights, dice=self.params.dice)

    def tally(self, batches: Iterable[Batch]) -> np.ndarray:
        """Return counts of what the network predicts on batches, which may be summed over processes: (C, C) int64."""
        confusion = Confusion(len(self.class_weights))
        for photos, masks in batches:
            predicted, known = self.logits(photos).argmax(dim=1).cpu(), masks != IGNORE
            confusion.add(predicted[known].numpy(), masks[known].numpy())
        return confusion.matrix

    def measure(self, tally: np.ndarray) -> float:
        """Return the measure by which validations are compared, from counts of `tally`: the mIoU."""
        confusion = Confusion(len(self.class_weights))
        confusion.matrix = tally
        return confusion.miou()

    def see(self, photos: torch.Tensor, masks: torch.Tensor) -> None:  # others need the masks
        """Run the network on a batch, as its normalisations count statistics."""
        self(photos)

    def logits(self, photos: torch.Tensor) -> torch.Tensor:
        """Return the network's (N, C, h, w) logits of photos, in its own precision, as validations compute them."""
        return self.network(photos)

    def renew_statistics(self, batches: Iterable[Batch]) -> None:
        """Count anew what batch normalisations expect, as the averaged weights never saw a batch themselves.

        After Izmailov et al., "Averaging weights leads to wider optima and better generalization" (UAI 2018). It also
        lets a training of a few steps end with statistics of its photos and not of how it began. What is frozen stays.
        """
        kept = {id(module) for frozen in self._frozen for module in frozen.modules()}
        self.eval()
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and id(module) not in kept:
                module.reset_running_stats()
                module.momentum = None  # the plain mean over all batches
                module.train()
        with torch.no_grad():
            for photos, masks in batches:
                self.see(photos.to(self.class_weights.device, memory_format=torch.channels_last), masks)
        self.eval()

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW; the encoder learns at a third of the rate, and normalisations and biases do not decay.

        Each of its groups holds the peak of its learning rate as `peak`.
        """
        encoder = {id(parameter) for parameter in self.network.get_submodule("encoder").parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in self.network.parameters():
            if not parameter.requires_grad:
                continue
            rate = self.params.lr * (_ENCODER_SHARE if id(parameter) in encoder else 1)
            decay = self.params.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": those, "lr": rate, "peak": rate, "weight_decay": decay}
                for (rate, decay), those in groups.items()
            ]
        )
