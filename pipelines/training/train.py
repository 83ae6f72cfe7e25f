"""DVC stage `train`: fit the network of params.yaml on the train side; writes model/ and curves.csv.

Each epoch leaves a checkpoint in training/, from which the same training goes on after a kill; what it ends with is the
same bytes as without one.
"""

import logging
import os
import shutil
import time
from pathlib import Path

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from pipelines.dataset.files import CURVES, MANIFEST, MODEL, START, TRAINING
from pipelines.errors import DatasetError
from pipelines.images import sha256_hex
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.segmentation.clothing import WEIGHTS, ModelCard, load_card, new_network, save_model
from pipelines.training.data import Photos, RareFirst, photos_of
from pipelines.training.learner import Learner

logger = logging.getLogger(__name__)


def train(params: Params) -> None:
    """Train on the workspace in the current folder and write model/ and curves.csv.

    Raises DatasetError when the train side has fewer than two photos, or the test side none.
    """
    options, begun = params.train, time.monotonic()
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    photos_of("test")  # better to hear now than after the training that nothing can be evaluated
    network, card = new_network(options, params.label_ids)
    if options.start == "champion":
        _take_over(network, card)
    train_side = Photos(photos_of("train"), card, augment=True)
    val_side = Photos(photos_of("val"), card, augment=False)
    if len(train_side) < 2:
        raise DatasetError("training needs at least two photos on the train side; label more, then run `maskloop sync`")
    logger.info("training on %d photos, validating on %d", len(train_side), len(val_side))
    # Batch normalisation needs two photos per batch; the last, smaller batch is dropped when there are others.
    size = min(options.batch_size, max(2, len(train_side)))
    order = RareFirst(train_side.pixels, options.repeat_rare, options.seed)
    loader = DataLoader(train_side, size, sampler=order, drop_last=len(train_side) // _gpus() > size)
    network = network.to(memory_format=torch.channels_last)
    learner = Learner(network, options, train_side.pixels.sum(0), time.monotonic() - begun)
    folder = TRAINING / _key(params)
    trainer = _trainer(params, folder, validates=len(val_side) > 0)
    last = folder / "last.ckpt"
    if last.exists():
        order.set_epoch(
            int(torch.load(last, weights_only=True)["epoch"]) + 1
        )  # the first draws come before Lightning says so
        logger.info("going on after epoch %d of the training that was interrupted", order.epoch)
    trainer.fit(
        learner, loader, DataLoader(val_side, size) if len(val_side) else None,
        ckpt_path=last if last.exists() else None, weights_only=True,
    )  # fmt: skip
    if trainer.is_global_zero:
        save_model(learner.network, card, MODEL)
        pd.DataFrame(learner.curve).to_csv(CURVES, index=False, float_format="%.5f")
        shutil.rmtree(TRAINING, ignore_errors=True)


def _take_over(network: torch.nn.Module, card: ModelCard) -> None:
    """Give the network the champion's weights, if there is one and it is the same network for the same labels."""
    if not (START / WEIGHTS).exists():
        logger.info("there is no champion to go on from: training starts from scratch")
        return
    of_champion = load_card(START)
    pairs = {name: (getattr(of_champion, name), getattr(card, name)) for name in ("architecture", "encoder")}
    pairs["labels"] = tuple(of_champion.labels.items()), tuple(card.labels.items())  # channels stand in their order
    different = [name for name, (theirs, ours) in pairs.items() if theirs != ours]
    if different:
        logger.warning("the champion has other %s: training starts from scratch", " and ".join(different))
    else:
        network.load_state_dict(load_file(START / WEIGHTS))


def _trainer(params: Params, folder: Path, *, validates: bool) -> lightning.Trainer:
    options = params.train
    every = max(1, options.epochs // 12)
    keep = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks: list[Callback] = [keep]
    if options.average:
        callbacks.append(EMAWeightAveraging(decay=options.average))
    if validates and options.patience:
        # It looks once per validation; patience is counted in epochs.
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=max(1, options.patience // every)))
    gpu = torch.cuda.is_available()
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if gpu else "cpu",
        devices="auto" if gpu else 1,
        precision="16-mixed" if gpu else "32-true",
        use_distributed_sampler=False,  # `RareFirst` divides its draws among processes itself
        deterministic="warn",
        logger=False,
        callbacks=callbacks,
        enable_model_summary=False,
        enable_progress_bar=os.isatty(1),
        num_sanity_val_steps=0,
        check_val_every_n_epoch=every,
    )


def _gpus() -> int:
    """Count the processes that train together: one per GPU, or one."""
    return max(1, torch.cuda.device_count())


def _key(params: Params) -> str:
    """Name a training by all that it depends on: parameters, photos, masks and the network it goes on from."""
    parts = [MANIFEST.read_bytes(), repr(params.train).encode(), repr(params.label_ids).encode()]
    if params.train.start == "champion" and (START / WEIGHTS).exists():
        parts.append((START / WEIGHTS).read_bytes())
    return sha256_hex(b"\n".join(parts))[:16]


def main() -> None:
    """Run the stage in the current folder."""
    torch.set_num_threads(os.cpu_count() or 1)
    train(load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("train", main)
