"""DVC stage `train`: fit the network of params.yaml on the train side; writes model/ and curves.csv.

Each epoch leaves a checkpoint in training/, from which the same training goes on after a kill; on a CPU, and unless the
budget of minutes binds, what it ends with is the same bytes as without one.
"""

import ctypes
import logging
import math
import os
import shutil
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from pipelines.dataset.files import CURVES, MANIFEST, MODEL, START, TRAINING
from pipelines.errors import DatasetError
from pipelines.images import sha256_hex
from pipelines.log import run_stage
from pipelines.params import Params, TrainParams, load_params
from pipelines.segmentation.clothing import WEIGHTS, ModelCard, load_card, new_network, save_model
from pipelines.training.data import Photos, RepeatFactorSampler, photos_of
from pipelines.training.learner import Learner

logger = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def train(params: Params) -> None:
    """Train on the workspace in the current folder and write model/ and curves.csv.

    Raises DatasetError when the train side has fewer than two photos, or the test side none.
    """
    options, begun = params.train, time.monotonic()
    keep_freed_memory()
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    photos_of("test")  # better to hear now than after the training that nothing can be evaluated
    network, card = new_network(options, params.label_ids)
    if options.start == "champion":
        _take_over(network, card)
    smaller = replace(card, height=options.image_height, width=options.image_width)
    train_side = Photos(photos_of("train"), smaller, augment=True)
    val_side = Photos(photos_of("val"), card, augment=False)
    if len(train_side) < 2:
        raise DatasetError("training needs at least two photos on the train side; label more, then run `maskloop sync`")
    logger.info("training on %d photos, validating on %d", len(train_side), len(val_side))
    # Batch normalisation needs two photos per batch; the last, smaller batch is dropped when there are others.
    size = min(options.batch_size, max(2, len(train_side)))
    order = RepeatFactorSampler(train_side.pixels, options.repeat_threshold, options.seed)
    loader = DataLoader(train_side, size, sampler=order, drop_last=len(train_side) // _gpus() > size)
    network = network.to(memory_format=torch.channels_last)
    options = options.model_copy(update={"epochs": _epochs(options, len(loader))})
    learner = Learner(network, options, train_side.pixels.sum(0), time.monotonic() - begun)
    folder = TRAINING / _key(params)
    trainer = _trainer(options, folder, validates=len(val_side) > 0)
    last = folder / "last.ckpt"
    if done := _epochs_done(last):
        order.set_epoch(done)  # the first draws come before Lightning says so
        logger.info("going on after epoch %d of the training that was interrupted", done)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found .* in eval mode")  # those are frozen
        trainer.fit(
            learner, loader, DataLoader(val_side, size) if len(val_side) else None,
            ckpt_path=last if done else None, weights_only=True,
        )  # fmt: skip
    if trainer.is_global_zero:
        # Killed after its last epoch, a training is not averaged again; the checkpoint holds the averaged weights.
        learner.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
        order.set_epoch(options.epochs)
        learner.to(trainer.strategy.root_device).renew_statistics(loader)
        save_model(learner.network, card, MODEL)
        pd.DataFrame(learner.curve).to_csv(CURVES, index=False, float_format="%.5f")
        shutil.rmtree(TRAINING)


def _epochs_done(checkpoint: Path) -> int:
    """Give how many epochs a checkpoint holds; one that a kill left damaged is removed."""
    try:
        return int(torch.load(checkpoint, weights_only=True)["epoch"]) + 1
    except FileNotFoundError:
        return 0
    except (OSError, EOFError, RuntimeError, KeyError, UnpicklingError) as error:
        logger.warning("%s is damaged and training starts again: %s", checkpoint, error)
        checkpoint.unlink()
        return 0


def _take_over(network: torch.nn.Module, card: ModelCard) -> None:
    """Give the network the champion's weights, if there is one and it is the same network for the same labels."""
    if not (START / WEIGHTS).exists():
        logger.info("there is no champion to go on from: training starts from scratch")
        return
    of_champion = load_card(START)
    pairs = {name: (getattr(of_champion, name), getattr(card, name)) for name in ("architecture", "encoder", "decoder")}
    pairs["labels"] = tuple(of_champion.labels.items()), tuple(card.labels.items())  # channels stand in their order
    different = [name for name, (theirs, ours) in pairs.items() if theirs != ours]
    if different:
        logger.warning("the champion has other %s: training starts from scratch", " and ".join(different))
    else:
        network.load_state_dict(load_file(START / WEIGHTS))


def _trainer(options: TrainParams, folder: Path, *, validates: bool) -> lightning.Trainer:
    every = max(1, options.epochs // 12)
    keep = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks: list[Callback] = [keep]
    if options.ema_decay:
        callbacks.append(WeightAveraging(avg_fn=partial(_moving_average, options.ema_decay)))
    if validates and options.patience:
        # It looks once per validation; patience is counted in epochs.
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=max(1, options.patience // every)))
    gpu = torch.cuda.is_available()
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if gpu else "cpu",
        devices="auto" if gpu else 1,
        precision="16-mixed" if gpu else "32-true",
        use_distributed_sampler=False,  # `RepeatFactorSampler` divides its draws among processes itself
        deterministic="warn",
        logger=False,
        callbacks=callbacks,
        enable_model_summary=False,
        enable_progress_bar=os.isatty(1),
        num_sanity_val_steps=0,
        check_val_every_n_epoch=every,
    )


def _moving_average(decay: float, average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
    """Move the average towards the weights of now; at first faster, so that a short training forgets how it began.

    The decay after n steps is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """
    here = min(decay, (1 + float(steps)) / (10 + float(steps)))
    return average + (1 - here) * (now - average)  # in this form what does not learn stays exactly as it is


def training_code() -> bytes:
    """Give the code of this package: what another version of it left is not gone on with."""
    return b"\0".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, which otherwise gets it anew, page by page and cleared."""
    with suppress(AttributeError):  # other C libraries have no such function
        libc = ctypes.CDLL(None)
        if libc.mallopt(_M_MMAP_THRESHOLD, 2**30) or libc.mallopt(_M_MMAP_THRESHOLD, 2**25):  # older ones stop there
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _epochs(options: TrainParams, steps: int) -> int:
    """Give the number of epochs of so many steps each."""
    epochs = max(options.epochs, math.ceil(options.min_steps / steps))
    return max(1, min(epochs, options.max_steps // steps)) if options.max_steps else epochs


def _gpus() -> int:
    """Count the processes that train together: one per GPU, or one."""
    return max(1, torch.cuda.device_count())


def _key(params: Params) -> str:
    """Name a training by what it depends on: parameters, photos, masks, the network it goes on from, and this code."""
    parts = [training_code(), MANIFEST.read_bytes(), repr(params.train).encode(), repr(params.label_ids).encode()]
    if params.train.start == "champion" and (START / WEIGHTS).exists():
        parts.append((START / WEIGHTS).read_bytes())
    return sha256_hex(b"\n".join(parts))[:16]


def main() -> None:
    """Run the stage in the current folder."""
    torch.set_num_threads(os.cpu_count() or 1)
    train(load_params(Path("params.yaml")))


if __name__ == "__main__":
    run_stage("train", main)
