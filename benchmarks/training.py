"""Training: its throughput against the bare network, and how good it gets within half an hour.

Throughput is that of `train` on 160 drawn photos against forward and backward alone, of the same layers in the same
precision by the same loss on the same tensors, already in memory. With MASKLOOP_BENCH_CCP naming a folder of photos/,
masks/ and labels.csv (columns index, label, and coarse: a group of labels, empty for background) the network is trained
on those photos' train split for at most half an hour and measured on the test split, by labels and by groups, each with
the interval of 95 % of resamples.
"""

import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks.harness import Row
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST, MODEL, START, STEPS
from pipelines.demo.archive import SyntheticArchive
from pipelines.exchange.as_dataset import write_dataset
from pipelines.exchange.masked_photos import masked_photos
from pipelines.params import Params, load_params
from pipelines.segmentation.model import ModelCard, load_model, new_network
from pipelines.settings import PROJECT_ROOT
from pipelines.training.bootstrap import interval, resampled_miou
from pipelines.training.budget import Schedule
from pipelines.training.confusion import Confusion
from pipelines.training.data import Photos, photos_in
from pipelines.training.evaluate import evaluate_model
from pipelines.training.metrics import CONFIDENCE
from pipelines.training.module import Learner, segmentation_loss
from pipelines.training.train import keep_freed_memory, train

_PHOTOS, _EPOCHS, _BATCHES = 160, 4, 12
_MINUTES = 30.0
_KNOWN, _EPOCHS_OF_A_ROUND = 200, 12


def run() -> list[Row]:
    """Measure throughput and memory, and quality where there are photos to measure it on."""
    torch.set_num_threads(os.cpu_count() or 1)
    keep_freed_memory()
    params = load_params(PROJECT_ROOT / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name:
        rows = _throughput(params, Dataset(Path(name) / "drawn"))
        if folder := os.environ.get("MASKLOOP_BENCH_CCP"):
            ccp = Dataset(Path(name) / "ccp")
            rows += _quality(params, Path(folder), ccp)
            rows += _from_champion(params, ccp)
    return rows


def _throughput(params: Params, dataset: Dataset) -> list[Row]:
    table = write_dataset(dataset, SyntheticArchive(dataset.root / "archive", params), params, _PHOTOS)
    dataset.write_table(MANIFEST, table[table["split"] != "val"])  # validation is no training
    bare, taken = [_bare(params, dataset)], []
    step_done = Schedule.step_done

    def note(schedule: Schedule, left: int, seconds: float, forward: float) -> None:
        step_done(schedule, left, seconds, forward)
        taken.append(seconds)

    few = params.train.model_copy(update={"epochs": _EPOCHS, "min_steps": 0, "max_minutes": 0})
    with patch.object(Schedule, "step_done", note):
        train(dataset, params.model_copy(update={"train": few}))
    bare.append(_bare(params, dataset))
    warm = taken[len(taken) // _EPOCHS :]
    ours, peer = params.train.batch_size / statistics.mean(warm), statistics.median(bare)
    return [
        Row("photos per second, against forward and backward alone", ours, peer, ours / peer, "1/s", len(warm)),
        *_memory(params, dataset),
    ]


def _bare(params: Params, dataset: Dataset) -> float:
    """Return photos per second of forward, loss and backward on batches in memory."""
    network, card = new_network(params.train, params.label_ids)
    learner = Learner(network.to(memory_format=torch.channels_last), params.train, np.ones(len(card.index_of_channel)))
    card, size = _card_of_training(params), params.train.batch_size
    photos = Photos(dataset, photos_in(dataset, "train"), card, augment=False)
    batches = [
        [torch.stack(part) for part in zip(*(photos[place] for place in range(start, start + size)), strict=True)]
        for start in range(0, size * _BATCHES, size)
    ]
    batches = [[pixels.contiguous(memory_format=torch.channels_last), masks] for pixels, masks in batches]
    weights, begun = torch.ones(len(card.index_of_channel)), 0.0
    for number, (pixels, masks) in enumerate(batches):
        if number == 2:  # the first ones are slower
            begun = time.perf_counter()
        segmentation_loss(learner(pixels), masks, weights, dice=params.train.dice).backward()
        network.zero_grad()
    return size * (_BATCHES - 2) / (time.perf_counter() - begun)


def _card_of_training(params: Params) -> ModelCard:
    _, card = new_network(params.train, params.label_ids)
    return replace(card, height=params.train.image_height, width=params.train.image_width)


def _memory(params: Params, dataset: Dataset) -> list[Row]:
    """Measure what decoded photos take of memory that the system cannot take back."""
    card = _card_of_training(params)
    before = _anonymous_mb()
    photos = Photos(dataset, photos_in(dataset, "train"), card, augment=True)
    taken = max(0.0, _anonymous_mb() - before)
    in_memory = len(photos) * card.height * card.width * 4 / 1e6
    return [Row(f"memory of {len(photos)} decoded photos", taken, in_memory, None, "MB", 1)]


def _anonymous_mb() -> float:
    info = psutil.Process().memory_info()
    return float(info.rss - info.shared) / 1e6


def _quality(params: Params, source: Path, dataset: Dataset) -> list[Row]:
    params = params.model_copy(update={"train": params.train.model_copy(update={"max_minutes": _MINUTES})})
    write_dataset(dataset, masked_photos(source / "photos", source / "masks", source / "labels.csv", params), params)
    begun = time.perf_counter()
    train(dataset, params)
    minutes = (time.perf_counter() - begun) / 60
    test = photos_in(dataset, "test")
    evaluation = evaluate_model(load_model(dataset.path(MODEL)), dataset, test, params.label_ids)
    steps = json.loads(dataset.path(STEPS).read_text(encoding="utf-8"))["done_steps"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    rounds = params.evaluate.resamples
    rows = [
        Row(f"minutes of training on CCP, {steps} steps", minutes, None, None, "min", 1),
        Row("peak memory of training and evaluation", peak, None, None, "MB", 1),
    ]
    for what, confusions in (
        ("labels", evaluation.confusions),
        ("groups", _grouped(evaluation.confusions, source / "labels.csv", params)),
    ):
        low, high = interval(resampled_miou(confusions, evaluation.families, rounds), CONFIDENCE)
        name = f"mIoU over {what} on {len(test)} test photos of CCP"
        rows.append(Row(name, Confusion.of(confusions).miou(), None, None, "", 1))
        rows += [
            Row(f"{name}, {end} of 95 %", value, None, None, "", rounds)
            for end, value in (("low", low), ("high", high))
        ]
    return rows


def _from_champion(params: Params, dataset: Dataset) -> list[Row]:
    """Train in as many steps from a champion that knew 200 of the photos, and from scratch; of small photos, for time.

    The difference comes with the interval of 95 % of resamples of the test photos.
    """
    options = {"image_height": 192, "image_width": 128, "epochs": _EPOCHS_OF_A_ROUND, "min_steps": 0, "max_minutes": 0}
    small = params.train.model_copy(update=options)
    evaluations, table = [], dataset.manifest()
    known = sorted(table.loc[table["split"] == "train", "sha256"])[:_KNOWN]
    dataset.write_table(MANIFEST, table[table["sha256"].isin(known) | (table["split"] != "train")])
    train(dataset, params.model_copy(update={"train": small}))
    shutil.copytree(dataset.path(MODEL), dataset.path(START))
    dataset.write_table(MANIFEST, table)
    for start in ("champion", "scratch"):
        train(dataset, params.model_copy(update={"train": small.model_copy(update={"start": start})}))
        model = load_model(dataset.path(MODEL))
        evaluations.append(evaluate_model(model, dataset, photos_in(dataset, "test"), params.label_ids))
    from_champion, from_scratch = (evaluation.confusion.miou() for evaluation in evaluations)
    rounds = params.evaluate.resamples
    resampled = [resampled_miou(evaluation.confusions, evaluation.families, rounds) for evaluation in evaluations]
    name = f"mIoU from a champion that knew {_KNOWN} photos, against scratch, in {_EPOCHS_OF_A_ROUND} epochs"
    return [
        Row(name, from_champion, from_scratch, from_champion / from_scratch, "", 1),
        *(
            Row(f"the same, difference, {end} of 95 %", value, None, None, "", rounds)
            for end, value in zip(("low", "high"), interval(resampled[0] - resampled[1], CONFIDENCE), strict=True)
        ),
    ]


def _grouped(confusions: np.ndarray, table: Path, params: Params) -> np.ndarray:
    """Add up what belongs to one group of labels; background stays by itself."""
    known = pd.read_csv(table, keep_default_na=False)
    group_of = {label: group for label, group in zip(known["label"], known["coarse"], strict=True) if label}
    groups = ["", *sorted(set(group_of.values()))]
    place = np.array([0, *(groups.index(group_of.get(label, "")) for label in params.label_ids)])
    member = (place[:, None] == np.arange(len(groups))).astype(np.int64)  # (C, G)
    return np.asarray(np.einsum("nij,ig,jh->ngh", confusions, member, member))
