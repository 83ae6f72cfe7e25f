"""DVC stage `train`: fit the network of params.yaml on the train side; writes model/ and curves.csv."""

import logging
import os
from pathlib import Path

import lightning.pytorch as lightning
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader

from pipelines.dataset.files import CURVES, MODEL
from pipelines.errors import DatasetError
from pipelines.log import run_stage
from pipelines.params import Params, TrainParams, load_params
from pipelines.segmentation.clothing import new_network, save_model
from pipelines.training.data import Photos, photos_of
from pipelines.training.metrics import Confusion

logger = logging.getLogger(__name__)


class Learner(lightning.LightningModule):
    """The network under optimisation; keeps the learning curve in `curve`."""

    def __init__(self, network: torch.nn.Module, params: TrainParams, steps: int, channels: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.params, self.steps = params, steps
        self.dice = smp.losses.DiceLoss("multiclass")
        self.cross_entropy = torch.nn.CrossEntropyLoss(label_smoothing=0.02)
        self.curve: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._confusion = Confusion(channels)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Give the loss of one batch: cross-entropy + Dice."""
        photos, masks = batch
        logits = self.network(photos.contiguous(memory_format=torch.channels_last))
        loss = self.cross_entropy(logits, masks) + self.dice(logits, masks)
        self._losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        """Count one validation batch."""
        photos, masks = batch
        self._confusion.add(self.network(photos).argmax(dim=1).cpu().numpy(), masks.cpu().numpy())

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve."""
        row = {"epoch": float(self.current_epoch), "train_loss": sum(self._losses) / len(self._losses)}
        row["val_miou"] = self._confusion.miou() if self._confusion.matrix.any() else float("nan")
        self.curve.append(row)
        logger.info("epoch %d: loss %.3f, val mIoU %.3f", self.current_epoch + 1, row["train_loss"], row["val_miou"])
        self._losses, self._confusion = [], Confusion(len(self._confusion.matrix))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Use AdamW on a one-cycle schedule; the pretrained encoder learns at a third of the rate."""
        rate = self.params.learning_rate
        encoder = list(self.network.get_submodule("encoder").parameters())
        ids = {id(p) for p in encoder}
        head = [p for p in self.network.parameters() if id(p) not in ids]
        groups = [{"params": encoder, "lr": rate / 3}, {"params": head, "lr": rate}]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.params.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [rate / 3, rate], total_steps=self.steps, pct_start=0.2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(params: Params) -> None:
    """Train on the workspace in the current folder and write model/ and curves.csv."""
    options = params.train
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    photos_of("test")  # better to hear now than after the training that nothing can be evaluated
    network, card = new_network(options, params.label_ids)
    train_side = Photos(photos_of("train"), card, augment=True)
    val_side = Photos(photos_of("val"), card, augment=False)
    if len(train_side) < 2:
        raise DatasetError("training needs at least two photos on the train side; label more, then run `maskloop sync`")
    logger.info("training on %d photos, validating on %d", len(train_side), len(val_side))
    # Batch normalisation needs two photos per batch; the last, smaller batch is dropped when there are others.
    size = min(options.batch_size, max(2, len(train_side)))
    loader = DataLoader(
        train_side, size, shuffle=True, drop_last=len(train_side) > size,
        generator=torch.Generator().manual_seed(options.seed)
    )  # fmt: skip
    learner = Learner(network, options, steps=len(loader) * options.epochs, channels=len(card.index_of_channel))
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices="auto" if torch.cuda.is_available() else 1,
        precision="16-mixed" if torch.cuda.is_available() else "32-true",
        deterministic="warn",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=os.isatty(1),
        num_sanity_val_steps=0,
        check_val_every_n_epoch=max(1, options.epochs // 8),
    )
    trainer.fit(learner, loader, DataLoader(val_side, size) if len(val_side) else None)
    save_model(learner.network, card, MODEL)
    pd.DataFrame(learner.curve).to_csv(CURVES, index=False, float_format="%.5f")


def main() -> None:
    """Run the stage in the current folder."""
    torch.set_num_threads(os.cpu_count() or 1)
    train(load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("train", main)
