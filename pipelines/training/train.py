"""DVC stage `train`: fit the network of params.yaml on the train split; writes model/ and curves.csv.

A training is its optimizer steps: the same parameters, photos and processor give the same bytes, whatever else the
machine does meanwhile, unless `max_minutes` cuts it short. Checkpoints are in training/ meanwhile.
"""

import ctypes
import json
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MANIFEST, MODEL, START, STEPS, TRAINING
from pipelines.errors import DatasetError, ModelError, TrainingError
from pipelines.fs import write_atomically
from pipelines.log import run_stage
from pipelines.params import Params, TrainParams, load_params
from pipelines.photos.decode import sha256_hex
from pipelines.segmentation.model import ModelCard, new_network, save_model
from pipelines.training.budget import Schedule
from pipelines.training.data import Batches, Photos, RepeatFactorSampler, clean_photos, photos_in, processes
from pipelines.training.features import VIEWS, HeadLearner, Views, can_be_kept
from pipelines.training.live import LiveLog
from pipelines.training.loop import COUNTED_BATCHES, VALIDATIONS, Loop
from pipelines.training.module import Learner
from pipelines.training.start import Start, take_start

logger = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "numpy", "opencv-python-headless")
_ONE_OF_MANY = "LOCAL_RANK"  # torch's launcher sets it for processes that train together


def train(dataset: Dataset, params: Params) -> None:
    """Train on a dataset and write model/ and curves.csv beside it.

    Raise DatasetError when the train split has fewer than two photos, or the test split none, and TrainingError when no
    network can be built as params.yaml says, or the training diverges.
    """
    begun, learned_from = time.monotonic(), photos_in(dataset, "train")
    options = params.train.for_photos(len(learned_from))
    prepare_torch(options)
    photos_in(dataset, "test")  # better to hear now than after the training that nothing can be evaluated
    network, card = build_for_size(options, params.label_ids)
    start = take_start(dataset, network, card, options.start)
    smaller = replace(card, height=options.image_height, width=options.image_width)
    photos = Photos(dataset, learned_from, smaller, augment=True)
    if len(photos) < 2:
        raise DatasetError(
            "training needs at least two photos in the train split; label more, then run `maskloop sync`"
        )
    validation, decides = _validation_photos(dataset, card)
    # Batch normalisation needs two photos per batch.
    size = min(options.batch_size, max(2, len(photos)))
    batches = Batches(RepeatFactorSampler(photos.pixels, options.repeat_threshold, options.seed), size)
    planned, missing = steps_to_do(options, batches.per_epoch, start.steps)
    logger.info(
        "training on %d photos, validating on %d; %d steps of %d", len(photos), len(validation), missing, planned
    )
    pixels = card.height * card.width / (smaller.height * smaller.width)
    schedule = Schedule(
        missing, 60 * options.max_minutes, spent=time.monotonic() - begun, validations=VALIDATIONS,
        validating=pixels * len(validation) / (size * processes()[1]),
        closing=min(COUNTED_BATCHES, batches.per_epoch),
    )  # fmt: skip
    learner, learned, validated = _learner(dataset, network, options, photos, validation)
    with LiveLog() as live:
        loop = Loop(
            learner, learned, batches, validated, schedule, steps_before=start.steps,
            patience=options.patience * batches.per_epoch if decides else 0, live=live,
        )  # fmt: skip
        loop.run(dataset.path(TRAINING) / training_key(dataset, params, options) / "last.ckpt")
    if processes()[0] == 0:
        _write(dataset, loop, card, start, planned, schedule)


def _learner(
    dataset: Dataset, network: torch.nn.Module, options: TrainParams, photos: Photos, validation: Photos
) -> tuple[Learner, Photos | Views, Photos | Views]:
    """Return the network as it learns, and what it learns from and is validated on: features where they can be kept."""
    network = network.to(memory_format=torch.channels_last)
    pixels = photos.pixels.sum(0)
    if not can_be_kept(network, options, len(photos)):
        return Learner(network, options, pixels), photos, validation
    logger.info("the encoder is frozen: its features are computed once, for %d views of each photo", VIEWS)
    learned = Views(dataset, photos, network, views=VIEWS, seed=options.seed)
    validated = Views(dataset, validation, network, views=1, seed=options.seed)
    sizes = [(part.card.height, part.card.width) for part in (photos, validation)]
    return HeadLearner(network, options, pixels, sizes), learned, validated


def build_for_size(options: TrainParams, label_ids: Mapping[str, int]) -> tuple[torch.nn.Module, ModelCard]:
    """Build the network that params.yaml asks for; raises TrainingError when there is none, or none for the size."""
    height, width = options.image_height, options.image_width
    try:
        network, card = new_network(options, label_ids)
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width))
    except ModelError as error:
        raise TrainingError(str(error)) from error
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:  # libraries raise all of these
        raise TrainingError(
            f"{options.architecture} with encoder {options.encoder} takes no photos of {height}×{width} pixels "
            f"({error}); change train.image_height and image_width, or the network"
        ) from error
    return network, card


def _write(dataset: Dataset, loop: Loop, card: ModelCard, start: Start, planned: int, schedule: Schedule) -> None:
    save_model(loop.network, card, dataset.path(MODEL))
    steps = {
        "planned_steps": planned, "done_steps": start.steps + schedule.done, "ended_by": schedule.ended_by,
        "started_from": start.version, "steps_before": start.steps,
    }  # fmt: skip
    write_atomically(dataset.path(STEPS), (json.dumps(steps, indent=1) + "\n").encode())
    pd.DataFrame(loop.curve).to_csv(dataset.path(CURVES), index=False, float_format="%.7g")
    shutil.rmtree(dataset.path(TRAINING), ignore_errors=True)  # there is none of a short training
    logger.info("%d / %d steps done, ended by %s", steps["done_steps"], planned, schedule.ended_by)


def steps_to_do(options: TrainParams, per_epoch: int, before: int) -> tuple[int, int]:
    """Return the steps of a training in all, and those that it has to do when `before` were done by an earlier one.

    What is gone on with does as many as lie between two validations, at least, so that it can come down again.
    """
    planned = max(options.epochs * per_epoch, options.min_steps, 1)
    if options.max_steps:
        planned = min(planned, options.max_steps)
    missing = max(planned - before, math.ceil(planned / VALIDATIONS))
    return before + missing, missing


def _validation_photos(dataset: Dataset, card: ModelCard) -> tuple[Photos, bool]:
    """Return the photos that the learning curve is made of, and whether they may decide when a training ends."""
    photos, decides = photos_in(dataset, "val"), True
    if not photos:
        photos, decides = clean_photos(dataset, "test"), False
        logger.info("no photo is in the val split: the learning curve is of %d test photos, to be looked at only",
                    len(photos))  # fmt: skip
    return Photos(dataset, photos, card, augment=False), decides


def prepare_torch(options: TrainParams) -> None:
    """Set threads, seed and deterministic algorithms for a training."""
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what GPUs need for the next line
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that nobody reads costs time; mypy does not know this property of a module.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # untyped
    torch.manual_seed(options.seed)


def training_code() -> bytes:
    """Return the code that training depends on: what another version of it left is not gone on with."""
    packages = (Path(__file__).parent, Path(__file__).parent.parent / "segmentation")
    return b"\0".join(path.read_bytes() for package in packages for path in sorted(package.glob("*.py")))


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, which otherwise gets it anew, page by page and cleared."""
    with suppress(AttributeError):  # other C libraries have no such function
        libc = ctypes.CDLL(None)
        if libc.mallopt(_M_MMAP_THRESHOLD, 2**30) or libc.mallopt(_M_MMAP_THRESHOLD, 2**25):  # older ones stop there
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def training_key(dataset: Dataset, params: Params, options: TrainParams) -> str:
    """Return a hash of all that a training depends on: parameters, photos, masks, start and code."""
    parts = [training_code(), dataset.path(MANIFEST).read_bytes(), repr(options).encode()]
    parts.append(repr(params.label_ids).encode())
    parts += [path.read_bytes() for path in sorted(dataset.path(START).glob("[!.]*"))]
    versions = [platform.python_version(), *(f"{name} {version(name)}" for name in _PACKAGES)]
    return sha256_hex(b"\n".join([*parts, *map(str.encode, versions)]))[:16]


def _on_all_gpus(dataset: Dataset, count: int) -> None:
    """Start this program anew, once for each GPU; with few photos, on fewer of them."""
    count = min(count, max(1, len(photos_in(dataset, "train")) // 2))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    os.execv(sys.executable, [sys.executable, *launcher, "pipelines.training.train"])  # noqa: S606 # no shell


def main() -> None:
    """Run the stage in the current folder; with several GPUs one process for each."""
    dataset, gpus = Dataset(Path.cwd()), torch.cuda.device_count()
    if gpus > 1 and _ONE_OF_MANY not in os.environ:
        _on_all_gpus(dataset, gpus)
    if _ONE_OF_MANY not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
        train(dataset, load_params(Path("params.yaml")))
        return
    if gpus:
        torch.cuda.set_device(int(os.environ[_ONE_OF_MANY]))
    torch.distributed.init_process_group()
    try:
        train(dataset, load_params(Path("params.yaml")))
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_stage("train", main)
