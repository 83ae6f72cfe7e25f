"""The network under optimisation: losses, schedule, and the learning curve."""

import logging
import math
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch

from pipelines.params import TrainParams
from pipelines.segmentation.clothing import is_plain
from pipelines.segmentation.runtime import multiplies_bfloat16
from pipelines.training.frozen import freeze
from pipelines.training.metrics import Confusion

logger = logging.getLogger(__name__)
Batch = tuple[torch.Tensor, torch.Tensor]  # photos (N, 3, h, w) float32, masks (N, h, w) int64 channel numbers
_WARM_UP = 0.15  # share of the training in which the learning rate rises
_ENCODER_SHARE = 1 / 3  # of the learning rate: the encoder is pretrained
_COUNTED_BATCHES = 32  # at most, for the statistics of batch normalisations
_GREATEST_WEIGHT = 20.0  # of a class, against the mean pixel's


def class_weights(pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Weigh classes by pixel count to the power of −`exponent`, so that the mean pixel weighs 1: (C,) float32.

    `pixels` is (C,) int64. 0 weighs all alike, 1 gives each class as much as the background; classes without pixels
    get 0, and none gets more than 20.
    """
    shares = pixels / max(1, pixels.sum())
    weights = np.where(pixels > 0, np.maximum(shares, 1e-9) ** -exponent, 0.0)
    return np.minimum(weights / max(1e-9, float((weights * shares).sum())), _GREATEST_WEIGHT).astype(np.float32)


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor, *, dice: bool) -> torch.Tensor:
    """Give weighted cross-entropy, plus with `dice` the Dice loss averaged over the classes in the batch.

    `logits` is (N, C, h, w) float32, `masks` (N, h, w) int64, `weights` (C,) float32. Dice after Milletari et al.,
    «V-Net» (2016), with plain sums; both come from one softmax and no one-hot mask, which takes half the time of the
    two losses of torch and segmentation-models-pytorch.
    """
    flat, classes = masks.flatten(), len(weights)
    log_probabilities = logits.log_softmax(dim=1)
    right = log_probabilities.gather(1, masks[:, None]).flatten()
    of_pixel = weights[flat]
    loss = -(right * of_pixel).sum() / of_pixel.sum().clamp_min(1e-7)
    if dice:
        true = torch.bincount(flat, minlength=classes)
        both = right.new_zeros(classes).index_add(0, flat, right.exp())
        total = log_probabilities.exp().sum(dim=(0, 2, 3)) + true
        present = true > 0
        loss = loss + (1 - 2 * both / total)[present].mean()
    return loss


def lr_scale(progress: float) -> float:
    """Give the share of the peak learning rate at a progress of 0..1: a linear rise, then half a cosine to 0."""
    if progress < _WARM_UP:
        return max(0.01, progress / _WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))


class Learner(lightning.LightningModule):
    """Fits a network; keeps a row per epoch in `curve`. `prepared` is how many seconds of the budget are gone already.

    The schedule follows `progress` (0..1), which each step moves on by its share of what is left: when the budget of
    minutes turns out to be too short for all epochs, the learning rate still comes down to 0 at the end.
    """

    class_weights: torch.Tensor

    def __init__(self, network: torch.nn.Module, params: TrainParams, pixels: np.ndarray, prepared: float = 0) -> None:
        super().__init__()
        self.network = network
        self.params, self.prepared = params, prepared
        self.progress, self.seconds = 0.0, 0.0  # seconds of the epochs that are done, those before a resume included
        self.curve: list[dict[str, float]] = []
        pretrained = params.encoder_weights != "none"
        size = params.image_height, params.image_width
        self._frozen = freeze(network.get_submodule("encoder"), params.frozen_stride if pretrained else 0, *size)
        self._bfloat16 = multiplies_bfloat16()
        self.register_buffer(
            "class_weights", torch.from_numpy(class_weights(pixels, params.class_weights)), persistent=False
        )
        self._losses: list[float] = []
        self._confusion = Confusion(len(pixels))
        self._begun = 0.0
        self.train()

    def on_train_epoch_start(self) -> None:
        """Begin to collect losses and to measure time."""
        self._losses, self._begun = [], time.monotonic()

    def on_train_batch_start(self, batch: Batch, number: int) -> None:
        """Set the learning rate and seed the dropout of this step: a resumed training draws what others would."""
        torch.manual_seed(hash((self.params.seed, self.current_epoch, number)))
        for group in self.optimizers().param_groups:  # type: ignore[union-attr] # one optimizer, no list
            group["lr"] = group["peak"] * lr_scale(self.progress)
        left = int(self.trainer.num_training_batches) * (self._epochs() - self.current_epoch) - number
        self.progress += (1 - self.progress) / max(1, left)

    def train(self, mode: bool = True) -> "Learner":
        """Switch between training and evaluation; what is frozen keeps the statistics of its normalisations."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def logits(self, photos: torch.Tensor) -> torch.Tensor:
        """Give (N, C, h, w) float32 logits of (N, 3, h, w) float32 photos in channels-last order.

        Processors that multiply matrices of bfloat16 numbers (AMX) do so in the decoder, as `torch.autocast` rounds
        them; encoders hold convolutions that are slower in it.
        """
        if photos.is_cuda or not (self._bfloat16 and is_plain(self.network)):
            return self.network(photos).float()
        encoder, decoder, head = map(self.network.get_submodule, ("encoder", "decoder", "segmentation_head"))
        features = encoder(photos)
        with torch.autocast("cpu", torch.bfloat16):
            return head(decoder(features)).float()

    def renew_statistics(self, batches: Iterable[Batch]) -> None:
        """Count anew what batch normalisations expect, as the averaged weights never saw a batch themselves.

        After Izmailov et al., «Averaging weights leads to wider optima and better generalization» (UAI 2018). It also
        lets a training of a few steps end with statistics of its photos and not of how it began. What is frozen stays.
        """
        kept = {id(one) for module in self._frozen for one in module.modules()}
        self.eval()
        for one in self.network.modules():
            if isinstance(one, torch.nn.BatchNorm2d) and id(one) not in kept:
                one.reset_running_stats()
                one.momentum = None  # the plain mean over all batches
                one.train()
        with torch.no_grad():
            for photos, _ in islice(batches, _COUNTED_BATCHES):
                self.logits(photos.to(self.device, memory_format=torch.channels_last))
        self.eval()

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Give the loss of one batch."""
        photos, masks = batch
        logits = self.logits(photos.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(logits, masks, self.class_weights, dice=self.params.dice)
        self._losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count one validation batch."""
        photos, masks = batch
        logits = self.network(photos.contiguous(memory_format=torch.channels_last))
        self._confusion.add(logits.argmax(dim=1).cpu().numpy(), masks.cpu().numpy())

    def on_validation_epoch_start(self) -> None:
        """Begin to count anew."""
        self._confusion = Confusion(len(self._confusion.matrix))

    def on_validation_epoch_end(self) -> None:
        """Tell the mIoU over all validation photos to what watches it."""
        counts = torch.from_numpy(self._confusion.matrix).to(self.device)
        self._confusion.matrix = self.trainer.strategy.reduce(counts, reduce_op="sum").cpu().numpy()
        self.log("val_miou", self._confusion.miou(), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve, and see how many more the budget holds."""
        self.seconds += time.monotonic() - self._begun
        done = self.current_epoch + 1
        spent = torch.tensor([self.prepared, self.seconds], device=self.device)
        prepared, seconds = self.trainer.strategy.reduce(
            spent, reduce_op="max"
        ).tolist()  # all must come to the same end
        per_epoch = seconds / done
        row = {"epoch": float(self.current_epoch), "train_loss": float(np.mean(self._losses))}
        row["val_miou"] = (
            float(self.trainer.callback_metrics.get("val_miou", math.nan)) if self._validated() else math.nan
        )
        self.curve.append(row)
        epochs = self._epochs()
        if self.params.max_minutes:
            counting = _COUNTED_BATCHES * per_epoch / int(self.trainer.num_training_batches)
            fit = int((self.params.max_minutes * 60 - prepared - counting) / per_epoch)
            epochs = max(done, min(self.params.epochs, fit))
            self.trainer.fit_loop.max_epochs = epochs
        logger.info(
            "epoch %d of %d: loss %.3f, val mIoU %.3f, %.0f min left", done, epochs, row["train_loss"],
            row["val_miou"], (epochs - done) * per_epoch / 60,
        )  # fmt: skip

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use AdamW; the encoder learns at a third of the rate, and normalisations and biases do not decay."""
        encoder = {id(one) for one in self.network.get_submodule("encoder").parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for one in self.network.parameters():
            if not one.requires_grad:
                continue
            rate = self.params.lr * (_ENCODER_SHARE if id(one) in encoder else 1)
            groups.setdefault((rate, self.params.weight_decay if one.ndim > 1 else 0.0), []).append(one)
        return torch.optim.AdamW(
            [{"params": those, "lr": rate, "peak": rate, "weight_decay": decay}
             for (rate, decay), those in groups.items()]
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed training goes on with."""
        checkpoint["learner"] = {
            "progress": self.progress, "seconds": self.seconds, "curve": self.curve, "epochs": self._epochs(),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what `on_save_checkpoint` kept."""
        kept = checkpoint["learner"]
        self.progress, self.seconds, self.curve = kept["progress"], kept["seconds"], kept["curve"]
        self.trainer.fit_loop.max_epochs = kept["epochs"]

    def _epochs(self) -> int:
        return int(self.trainer.max_epochs or self.params.epochs)

    def _validated(self) -> bool:
        every = self.trainer.check_val_every_n_epoch
        return bool(every and (self.current_epoch + 1) % every == 0)
