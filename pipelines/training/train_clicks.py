"""DVC stage `train_clicks`: fit the click network on the train split; writes clicks/ and clicks.csv.

Its encoder begins with that of the clothing model that the stage `train` left in model/, as far as there is one and it
is the same, and with pretrained weights otherwise. Steps, budget and checkpoints are those of
`pipelines.training.loop`.
"""

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CLICK_CURVES, CLICK_STEPS, CLICKS, MODEL, TRAINING
from pipelines.errors import DatasetError, ModelError, TrainingError
from pipelines.fs import write_atomically
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.segmentation.click_network import ClickCard, ClickNetwork, save_clicks
from pipelines.segmentation.model import WEIGHTS, ModelCard, load_card
from pipelines.segmentation.sam import local_sam
from pipelines.segmentation.sam_model import PromptableModel
from pipelines.training.budget import Schedule
from pipelines.training.click_learner import ClickLearner
from pipelines.training.click_photos import WindowedPhotos
from pipelines.training.data import Batches, Photos, RepeatFactorSampler, photos_in
from pipelines.training.live import LiveLog
from pipelines.training.loop import COUNTED_BATCHES, VALIDATIONS, Loop
from pipelines.training.train import build_for_size, prepare_torch, steps_to_do, training_key
from pipelines.training.tune_sam import tune_sam

logger = logging.getLogger(__name__)
_ENCODER = "encoder."  # before the names of its weights
_VALIDATED = 24  # photos, at most: the learning curve need not be exact


def train_clicks(dataset: Dataset, params: Params, sam: PromptableModel | None = None) -> None:
    """Train on a dataset and write clicks/ and clicks.csv beside it.

    With `clicks.tune_sam` the mask decoder of `sam`, which is changed, is tuned afterwards and lies in clicks/sam/.

    Raise DatasetError when the train split has fewer than two photos, and TrainingError when no network can be built as
    params.yaml says, or the training diverges.
    """
    options, begun = params.clicks.as_train(params.train), time.monotonic()
    prepare_torch(options)
    trunk, card = build_for_size(options, params.label_ids)
    started_from = _take_encoder(dataset, trunk, card)
    network = ClickNetwork(ClickCard(card))
    network.take_trunk(trunk)
    smaller = replace(card, height=options.image_height, width=options.image_width)
    photos = WindowedPhotos(dataset, photos_in(dataset, "train"), smaller)
    if len(photos) < 2:
        raise DatasetError(
            "training needs at least two photos in the train split; label more, then run `maskloop sync`"
        )
    validation = Photos(dataset, photos_in(dataset, "val")[:_VALIDATED], card, augment=False)
    size = min(options.batch_size, len(photos))
    batches = Batches(RepeatFactorSampler(photos.pixels, options.repeat_threshold, options.seed), size)
    planned, missing = steps_to_do(options, batches.per_epoch, 0)
    logger.info("the click model learns on %d photos in %d steps", len(photos), missing)
    schedule = Schedule(
        missing, 60 * options.max_minutes, spent=time.monotonic() - begun, validations=VALIDATIONS,
        validating=len(validation) / size, closing=min(COUNTED_BATCHES, batches.per_epoch),
    )  # fmt: skip
    learner = ClickLearner(
        network.to(memory_format=torch.channels_last), options, photos.pixels.sum(0), params.clicks.garments
    )
    with LiveLog() as live:
        loop = Loop(learner, photos, batches, validation, schedule, live=live)
        loop.run(dataset.path(TRAINING) / f"clicks-{training_key(dataset, params, options)}" / "last.ckpt")
    _write(dataset, loop, ClickCard(card), started_from, planned, schedule)
    if params.clicks.tune_sam:
        _tune(dataset, params, sam)


def _take_encoder(dataset: Dataset, trunk: torch.nn.Module, card: ModelCard) -> str:
    """Load the encoder of the clothing model in model/ into the trunk; return what the training starts from."""
    folder = dataset.path(MODEL)
    if not (folder / WEIGHTS).exists():
        return "the encoder's pretrained weights"
    if (encoder := load_card(folder).encoder) != card.encoder:
        logger.warning("the clothing model has another encoder, %s: the click model starts without it", encoder)
        return "the encoder's pretrained weights"
    try:
        weights = load_file(folder / WEIGHTS)
        of_encoder = {
            name.removeprefix(_ENCODER): tensor for name, tensor in weights.items() if name.startswith(_ENCODER)
        }
        trunk.get_submodule("encoder").load_state_dict(of_encoder)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); run `maskloop retrain --again`") from error
    return "the clothing model's encoder"


def _write(dataset: Dataset, loop: Loop, card: ClickCard, started_from: str, planned: int, schedule: Schedule) -> None:
    network = loop.network
    assert isinstance(network, ClickNetwork)
    save_clicks(network, card, dataset.path(CLICKS))
    steps = {
        "planned_steps": planned, "done_steps": schedule.done, "ended_by": schedule.ended_by,
        "started_from": started_from, "minutes": round(schedule.spent / 60, 1),
    }  # fmt: skip
    write_atomically(dataset.path(CLICK_STEPS), (json.dumps(steps, indent=1) + "\n").encode())
    pd.DataFrame(loop.curve).to_csv(dataset.path(CLICK_CURVES), index=False, float_format="%.7g")
    logger.info("%d / %d steps done, ended by %s", schedule.done, planned, schedule.ended_by)


def _tune(dataset: Dataset, params: Params, sam: PromptableModel | None) -> None:
    """Tune the decoder; the log says why there is none, as the click model is of use without it."""
    if sam is None:
        logger.warning(
            "clicks.tune_sam: no decoder is tuned, because no checkpoint of Segment Anything is on this machine; start "
            "the service that answers clicks here, which downloads it, or set MASKLOOP_SAM_CHECKPOINT to its path: the "
            "training on the next dataset version tunes it"
        )
        return
    try:
        tune_sam(dataset, params, sam, dataset.path(CLICKS))
    except TrainingError as error:
        logger.error("the decoder of %s is not tuned: %s", sam.version, error)


def main() -> None:
    """Run the stage in the current folder; Segment Anything is that of the settings in the environment."""
    from pipelines.settings import get_settings

    torch.set_num_threads(os.cpu_count() or 1)
    params, settings = load_params(Path("params.yaml")), get_settings()
    sam = local_sam(settings.sam_checkpoint, settings.var / "segment-anything") if params.clicks.tune_sam else None
    train_clicks(Dataset(Path.cwd()), params, sam)


if __name__ == "__main__":
    run_stage("train_clicks", main)
