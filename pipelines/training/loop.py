"""The optimizer steps of a training, one after the other: losses, averages, validations, checkpoints.

A step's photos, augmentation and dropout follow from the seed and the step's number alone, and a checkpoint holds
everything else, so a training that was killed resumes as if it had not been.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset

from pipelines.errors import TrainingError
from pipelines.training.budget import Schedule, lr_scale
from pipelines.training.data import Batches, Photos, processes
from pipelines.training.features import Views
from pipelines.training.live import LiveLog
from pipelines.training.module import Batch, Learner

logger = logging.getLogger(__name__)
VALIDATIONS = 10  # evenly spread over the schedule
ROWS = 40  # of the learning curve, likewise
COUNTED_BATCHES = 32  # at most, for the statistics of batch normalisations
CHECKPOINT_SECONDS = 30.0  # between two checkpoints, at least
_WORKERS = 4  # processes that load photos for a GPU; a CPU has nothing to spare for them


class Loop:
    """Trains `learner` on `batches` of `photos` until `schedule` is over; `steps_before` it were done by another one.

    Validation is on `validation`, and ends the training when `patience` steps bring nothing better (0: never). `curve`
    has a row per fortieth of the schedule; `network` is the one that becomes the model.
    """

    def __init__(
        self,
        learner: Learner,
        photos: Photos | Views,
        batches: Batches,
        validation: Photos | Views,
        schedule: Schedule,
        *,
        steps_before: int = 0,
        patience: int = 0,
        live: LiveLog | None = None,
    ) -> None:
        params = learner.params
        self._rank, self._together = processes()
        gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self._half = gpu and params.precision == "auto"
        self._learner, self._schedule = learner.to(self._device), schedule
        self._photos, self._batches, self._validation = photos, batches, validation
        self._steps_before, self._patience, self._live = steps_before, patience, live or LiveLog()
        averaging = partial(moving_average, params.ema_decay)
        self._averaged = AveragedModel(learner, avg_fn=averaging, use_buffers=True) if params.ema_decay else None
        self._forward: Callable[[torch.Tensor], torch.Tensor] = learner
        if self._together > 1:
            self._forward = DistributedDataParallel(learner, device_ids=[self._device.index] if gpu else None)
        self._optimizer = learner.optimizer()
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._half)
        self._losses: list[float] = []
        self._best, self._best_step = -math.inf, 0
        self.curve: list[dict[str, float]] = []

    @property
    def network(self) -> torch.nn.Module:
        """Return the network that is validated and becomes the model: the averaged one, if weights are averaged."""
        return self._final.network

    @property
    def _final(self) -> Learner:
        if self._averaged is None:
            return self._learner
        learner = self._averaged.module
        assert isinstance(learner, Learner)
        return learner

    def run(self, checkpoint: Path) -> None:
        """Train to the end; raise TrainingError at the first loss that is not finite."""
        self._resume(checkpoint)
        batches, saved_at = self._load(self._steps_before + self._schedule.done), time.monotonic()
        while not self._schedule.is_over:
            left = self._agreed(self._schedule.left())
            rows, validations = self._schedule.passed(ROWS), self._schedule.passed(VALIDATIONS)
            rate = self._set_rate()
            begun = time.monotonic()
            forward = self._step(*next(batches))
            self._schedule.step_done(left, time.monotonic() - begun, forward)
            if self._schedule.is_over:
                self._renew_statistics()
            if self._schedule.passed(ROWS) > rows:
                self._add_row(rate, validates=self._schedule.passed(VALIDATIONS) > validations)
            ends_epoch = self._schedule.done % self._batches.per_epoch == 0
            if ends_epoch and not self._schedule.is_over and time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                self._save(checkpoint)
                saved_at = time.monotonic()

    def _load(self, first: int) -> Iterator[Batch]:
        """Return the batches from a step on."""
        batches = Batches(self._batches.order, self._batches.size, first)
        workers = _WORKERS if self._device.type == "cuda" else 0
        return iter(DataLoader(self._photos, batch_sampler=batches, num_workers=workers, pin_memory=workers > 0))

    def _set_rate(self) -> float:
        """Set the learning rates of the next step, and return the decoder's."""
        scale = lr_scale(self._schedule.progress)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        return self._learner.params.lr * scale

    def _step(self, photos: torch.Tensor, masks: torch.Tensor) -> float:
        """Learn from one batch; return the seconds of the forward pass."""
        params, begun = self._learner.params, time.monotonic()
        torch.manual_seed(hash((params.seed, self._steps_before + self._schedule.done, self._rank)))  # of dropout
        photos = photos.to(self._device, memory_format=torch.channels_last, non_blocking=True)
        with torch.autocast(self._device.type, torch.float16, enabled=self._half):
            logits = self._forward(photos)
        loss = self._learner.loss(logits, masks.to(self._device, non_blocking=True))
        value, forward = float(loss.detach()), time.monotonic() - begun
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self._schedule.done + 1} of {self._schedule.planned}: the training "
                f"diverges; lower train.lr ({params.lr:g}) in params.yaml, by a third at first"
            )
        self._losses.append(value)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        if params.clip_norm:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._learner.parameters(), params.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self._learner)
        return forward

    def _renew_statistics(self) -> None:
        """Count what the finished network's normalisations expect: on the first one's photos of several processes."""
        epochs = math.ceil((self._steps_before + self._schedule.done) / self._batches.per_epoch)
        batches = self._load(epochs * self._batches.per_epoch)
        self._final.renew_statistics(islice(batches, min(COUNTED_BATCHES, self._batches.per_epoch)))
        if self._together > 1:
            for statistics in self._final.buffers():
                torch.distributed.broadcast(statistics, 0)
        if not all(torch.isfinite(values).all() for values in self._final.state_dict().values()):
            raise TrainingError(
                "the trained network holds values that are not finite: the training diverged in its last steps; lower "
                f"train.lr ({self._learner.params.lr:g}) in params.yaml, by a third at first"
            )

    def _add_row(self, rate: float, *, validates: bool) -> None:
        """Add to the learning curve what was learned since its last row."""
        schedule = self._schedule
        measure = self._validate() if validates and len(self._validation) else math.nan
        step = self._steps_before + schedule.done
        row = {
            "epoch": (step - 1) // self._batches.per_epoch, "step": step, "learning_rate": rate,
            "train_loss": float(np.mean(self._losses)), self._learner.measure_name: measure,
        }  # fmt: skip
        self.curve.append(row)
        self._losses = []
        if measure > self._best:
            self._best, self._best_step = measure, schedule.done
        elif self._patience and math.isfinite(measure) and schedule.done - self._best_step >= self._patience:
            schedule.come_down()
        if self._rank == 0:
            self._log(row)

    def _log(self, row: dict[str, float]) -> None:
        """Log the progress of the training, in MLflow as well."""
        schedule, step = self._schedule, int(row["step"])
        planned = self._steps_before + schedule.planned
        measure = self._learner.measure_name
        metrics = {name: row[name] for name in ("train_loss", measure, "learning_rate")}
        self._live.log(step, metrics | {"steps_done": step, "steps_planned": planned})
        left = schedule.left() if not schedule.is_over else 0
        logger.info(
            "%d / %d steps: loss %.3f, %s %.3f, %.0f min left%s", step, planned, row["train_loss"], measure,
            row[measure], left * (schedule.step_s or 0) / 60,
            "" if schedule.done + left >= schedule.planned else f" for {left} more steps",
        )  # fmt: skip

    def _validate(self) -> float:
        """Return the learner's own measure over all validation photos, such as the mIoU, at the network's size."""
        begun, learner = time.monotonic(), self._final.eval()
        mine = Subset(self._validation, range(self._rank, len(self._validation), self._together))
        batches = (
            (photos.to(self._device, memory_format=torch.channels_last), masks)
            for photos, masks in DataLoader(mine, self._batches.size)
        )
        with torch.inference_mode(), torch.autocast(self._device.type, torch.float16, enabled=self._half):
            tally = learner.tally(batches)
        if self._together > 1:
            total = torch.from_numpy(tally).to(self._device)
            torch.distributed.all_reduce(total)
            tally = total.cpu().numpy()
        if not self._schedule.is_over:
            self._learner.train()
        self._schedule.validated(time.monotonic() - begun)
        return learner.measure(tally)

    def _agreed(self, left: int) -> int:
        """Return the fewest steps that any process has time for: all must come to the same end."""
        if self._together == 1 or not self._schedule.seconds:
            return left
        fewest = torch.tensor(left, device=self._device)
        torch.distributed.all_reduce(fewest, torch.distributed.ReduceOp.MIN)
        return int(fewest)

    def _parts(self) -> dict[str, Any]:
        parts = {"learner": self._learner, "optimizer": self._optimizer, "scaler": self._scaler}
        return parts | ({"averaged": self._averaged} if self._averaged is not None else {})

    def _save(self, checkpoint: Path) -> None:
        if self._rank:
            return
        begun = time.monotonic()
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"schedule": self._schedule.state(), "curve": self.curve, "losses": self._losses}
        state |= {"best": (self._best, self._best_step)}
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(checkpoint)
        self._schedule.saved(time.monotonic() - begun)

    def _resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, if there is one; one that a kill left damaged is removed."""
        with suppress(FileNotFoundError):
            try:
                state = torch.load(checkpoint, weights_only=True, map_location=self._device)
                schedule, curve, losses, best = (state[name] for name in ("schedule", "curve", "losses", "best"))
            except (EOFError, RuntimeError, KeyError, UnpicklingError) as error:
                logger.warning("%s is damaged and training starts again: %s", checkpoint, error)
                checkpoint.unlink(missing_ok=True)
                return
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self._schedule.resume(schedule)
            self.curve, self._losses, (self._best, self._best_step) = curve, losses, best
            logger.info(
                "going on after step %d of the training that was interrupted", self._steps_before + schedule["done"]
            )


def moving_average(decay: float, average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
    """Move the average towards the current weights; faster at first, so that initial weights weigh little in the end.

    The decay after n steps is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """
    current = min(decay, (1 + float(steps)) / (10 + float(steps)))
    return average + (1 - current) * (now - average)  # in this form frozen weights stay exactly as they are
