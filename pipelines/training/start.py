"""What a training starts from: the champion, or an earlier training that the minutes cut short, or nothing.

Labels are matched by their ids, which they keep for ever: one that was renamed or stands elsewhere in params.yaml keeps
what the network knows of it, a new one begins with random weights, and one that is gone is left out.
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
_SPARE = "one label more"
_NAME = "version"  # in the training.json that lies in data/start: what the network there is called
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Start:
    """The network that a training goes on from, such as `clothing:v3`, and the steps of its own it counts as done."""

    version: str = ""
    steps: int = 0


def take_start(dataset: Dataset, network: torch.nn.Module, card: ModelCard, start: str) -> Start:
    """Give a network the weights of the one in data/start, and return what that is.

    An unfinished training is gone on with whatever `start` (`train.start`) says; a champion is with `champion` only. A
    network of another architecture is left alone, and a warning says so.
    """
    folder = dataset.path(START)
    if not (folder / WEIGHTS).exists():
        if start == "champion":
            logger.info("there is no champion to go on from: training starts from scratch")
        return Start()
    earlier = _read_earlier(folder / STEPS.name)
    if start != "champion" and not earlier.is_cut_short:
        return Start()
    theirs = load_card(folder)
    pairs = {name: (getattr(theirs, name), getattr(card, name)) for name in ("architecture", "encoder", "decoder")}
    if different := [name for name, (their_value, our_value) in pairs.items() if their_value != our_value]:
        logger.warning("%s has other %s: training starts from scratch", earlier.version, " and ".join(different))
        return Start()
    try:
        take_over(network, card, load_file(folder / WEIGHTS), theirs)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); run `maskloop retrain --again`") from error
    if not earlier.is_cut_short:
        logger.info("the training starts from the weights of %s", earlier.version)
        return Start(earlier.version)
    logger.info("going on with %s, which did %d of %d steps", earlier.version, earlier.done, earlier.planned)
    return Start(earlier.version, earlier.done)


def take_over(network: torch.nn.Module, card: ModelCard, weights: Weights, theirs: ModelCard) -> None:
    """Load weights of a network with the labels of the card `theirs` into one with those of `card`.

    What belongs to a label goes to the label of the same id; what `card` has and `theirs` lacks stays as it is. Raises
    RuntimeError when the networks differ in anything else.
    """
    ours = network.state_dict()
    indices = theirs.index_of_channel.tolist()
    pairs = [(ours_at, indices.index(pixel_value)) for ours_at, pixel_value in enumerate(card.index_of_channel)
             if pixel_value in indices]  # fmt: skip
    to, taken = ([pair[side] for pair in pairs] for side in (0, 1))
    of_labels = _label_dimensions(card)
    merged = dict(weights)
    for name, dimension in of_labels.items():
        rows = ours[name].clone().movedim(dimension, 0)
        rows[to] = weights[name].movedim(dimension, 0)[taken]
        merged[name] = rows.movedim(0, dimension)
    network.load_state_dict(merged)
    known = {pixel_value: name for name, pixel_value in theirs.labels.items()}
    if new := [name for name, pixel_value in card.labels.items() if pixel_value not in known]:
        logger.info("new to the network: %s", ", ".join(new))


def _label_dimensions(card: ModelCard) -> dict[str, int]:
    """Return which tensors have a row for each label, and in which dimension: those that grow with the labels."""
    labels = {**card.labels, _SPARE: 0}
    with torch.random.fork_rng(devices=[]):
        few, many = (build_network(replace(card, labels=those)).state_dict() for those in (card.labels, labels))
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
    """Read what a training noted of itself; networks of before there was such a file are finished."""
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
