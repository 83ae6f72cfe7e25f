"""What a training starts from: the champion, an earlier training that the minutes cut short, or nothing.

Labels are matched by their ids, which never change: a label that was renamed or moved within params.yaml keeps its
weights, a new one begins with random weights, and a removed one is left out.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import START, STEPS
from pipelines.errors import ModelError
from pipelines.segmentation.model import WEIGHTS, ModelCard, build_network, load_card

logger = logging.getLogger(__name__)
_SPARE = "an additional label"
_NAME = "version"  # in data/start/training.json: the name of the network there
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Start:
    """The network that a training starts from, such as `clothing:v3`, and how many of its steps count as done."""

    version: str = ""
    steps: int = 0


def take_start(dataset: Dataset, network: torch.nn.Module, card: ModelCard, start: str) -> Start:
    """Load the weights in data/start into a network, and return what they are.

    An unfinished training is resumed whatever `start` (`train.start`) says; a champion is only used with `champion`.
    Nothing is loaded from a network of another architecture, and a warning says so.
    """
    folder = dataset.path(START)
    if not (folder / WEIGHTS).exists():
        if start == "champion":
            logger.info("there is no champion to start from: training starts from scratch")
        return Start()
    earlier = _read_earlier(folder / STEPS.name)
    if start != "champion" and not earlier.is_cut_short:
        return Start()
    source = load_card(folder)
    names = ("architecture", "encoder", "decoder")
    if different := [name for name in names if getattr(source, name) != getattr(card, name)]:
        logger.warning("%s has other %s: training starts from scratch", earlier.version, " and ".join(different))
        return Start()
    try:
        take_over(network, card, load_file(folder / WEIGHTS), source)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); run `maskloop retrain --again`") from error
    if not earlier.is_cut_short:
        logger.info("the training starts from the weights of %s", earlier.version)
        return Start(earlier.version)
    logger.info("resuming %s, which did %d of %d steps", earlier.version, earlier.done, earlier.planned)
    return Start(earlier.version, earlier.done)


def take_over(network: torch.nn.Module, card: ModelCard, weights: Weights, source: ModelCard) -> None:
    """Load weights of a network with the labels of the card `source` into one with those of `card`.

    Weights of a label go to the label of the same id; those of labels that `source` lacks stay as they are. Raise
    RuntimeError when the networks differ in anything else.
    """
    initial = network.state_dict()
    channel_of = {pixel_value: channel for channel, pixel_value in enumerate(source.index_of_channel.tolist())}
    pairs = {
        channel: channel_of[pixel_value]
        for channel, pixel_value in enumerate(card.index_of_channel.tolist())
        if pixel_value in channel_of
    }
    merged = dict(weights)
    for name, dimension in _label_dimensions(card).items():
        rows = initial[name].clone().movedim(dimension, 0)
        rows[list(pairs.keys())] = weights[name].movedim(dimension, 0)[list(pairs.values())]
        merged[name] = rows.movedim(0, dimension)
    network.load_state_dict(merged)
    known = set(source.labels.values())
    if new := [name for name, pixel_value in card.labels.items() if pixel_value not in known]:
        logger.info("new to the network: %s", ", ".join(new))


def _label_dimensions(card: ModelCard) -> dict[str, int]:
    """Return the tensors that have a row for each label, with its dimension: those that grow with the labels."""
    labels = {**card.labels, _SPARE: 0}
    with torch.random.fork_rng(devices=[]):
        few, many = (build_network(replace(card, labels=names)).state_dict() for names in (card.labels, labels))
    return {
        name: next(at for at, (size, other) in enumerate(zip(few[name].shape, many[name].shape, strict=True))
                   if size != other)
        for name in few
        if few[name].shape != many[name].shape
    }  # fmt: skip


@dataclass(frozen=True)
class _Earlier:
    """The training of the network in data/start."""

    version: str = "the champion"
    planned: int = 0
    done: int = 0
    ended_by: str = ""

    @property
    def is_cut_short(self) -> bool:
        return self.ended_by == "minutes" and self.done < self.planned


def _read_earlier(path: Path) -> _Earlier:
    """Read training.json; without the file a network is finished, as older networks are."""
    if not path.exists():
        return _Earlier()
    try:
        fields = dict(json.loads(path.read_text(encoding="utf-8")))
        return _Earlier(
            str(fields.get(_NAME) or _Earlier.version), int(fields.get("planned_steps", 0)),
            int(fields.get("done_steps", 0)), str(fields.get("ended_by", "")),
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} does not say how many steps were done ({error}); train again") from error
