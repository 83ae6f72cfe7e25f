"""Which photos people draw without seeing a model's masks, so that models are judged by masks that no model drew.

These are the photos of the splits test and val, which are known before anybody sees a photo. Once the test split has
stopped growing, a random share of the other photos is drawn without masks too, to measure what masks save. While the
champion is paused, nobody is shown masks.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.dataset.published import Published
from pipelines.dataset.split import BLIND_SPLITS, TEST, TRAIN, is_blind, is_marked_full, splits_of
from pipelines.errors import ServiceError
from pipelines.labelstudio.annotations import export_tasks, prediction_version_of
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import empty_prediction, push_predictions, replace_predictions
from pipelines.labelstudio.tasks import serve_again, tasks_with_masks
from pipelines.params import Params
from pipelines.prelabel.strategies import chance
from pipelines.records import Task
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_MAX_WAITING = 20  # photos drawn from masks that wait at a time for somebody who draws them blind
_MAX_ANNOTATORS = 3  # of a photo, before it is given up


@dataclass(frozen=True)
class Blindness:
    """The split of each photo, by SHA-256, and what follows from it for who sees masks.

    `labelled` are all photos of the newest dataset, with whether no model had a part in their mask; `drawn_from_masks`
    are those test photos in whose mask a model had one.
    """

    splits: Mapping[str, str]
    labelled: Mapping[str, bool]
    drawn_from_masks: frozenset[str]
    is_test_full: bool
    control_share: float

    def judges(self, task: Task) -> bool:
        """Return whether models are judged or chosen by this task's photo."""
        return self.splits.get(task.image.sha256) in BLIND_SPLITS

    def is_blind(self, task: Task) -> bool:
        """Return whether people draw this task without masks: it judges models, or is a random control."""
        is_control = self.is_test_full and chance("control", task) < self.control_share
        return self.judges(task) or (is_control and self.splits.get(task.image.sha256) == TRAIN)

    def __str__(self) -> str:
        """Return how much of the newest dataset is blind, and whether the test split still grows."""
        full = f"; the test split is large enough, {self.control_share:.0%} of new photos are for comparison"
        return f"{sum(self.labelled.values())} of {len(self.labelled)} labelled photos" + full * self.is_test_full


def read_blindness(settings: Settings, params: Params, tasks: Sequence[Task]) -> Blindness:
    """Return who sees masks of all `tasks` of the project, by the newest dataset."""
    published = Published.of(settings)
    tags = published.tags()
    manifest = published.manifest(tags[-1]) if tags else None
    return blindness_of(tasks, manifest, params)


def blindness_of(tasks: Sequence[Task], manifest: pd.DataFrame | None, params: Params) -> Blindness:
    """Return who sees masks of these tasks, by the newest dataset's manifest (None before there is one)."""
    splits = splits_of(tasks, manifest, params.split)
    labelled: dict[str, bool] = {}
    full = False
    if manifest is not None:
        labelled = dict(zip(manifest["sha256"], is_blind(manifest).tolist(), strict=True))
        full = is_marked_full(manifest)
    from_masks = frozenset(photo for photo, blind in labelled.items() if not blind and splits.get(photo) == TEST)
    return Blindness(splits, labelled, from_masks, full, params.prelabel.control_share)


def pause_reason(settings: Settings, version: str) -> str:
    """Return why the serving `version` draws no masks though it is champion; empty when it is not paused.

    When MLflow cannot be asked, it counts as not paused.
    """
    from pipelines.models.registry import Registry

    try:
        champion = Registry(settings).champion()
    except ServiceError as error:
        logger.warning("%s; whether %s is paused is not known, so it goes on drawing masks", error, version)
        return ""
    return champion.paused if champion and champion.served_as == version else ""


def open_for_blind_work(
    labels: LabelStudioClient,
    project: int,
    tasks: Sequence[Task],
    blindness: Blindness,
    version: str,
    locked: set[int],
) -> int:
    """Let other people draw, without masks, test photos in whose mask a model had a part; returns how many wait.

    A model had a part before the photo came to the test split, or in an archive of an earlier version. A bounded number
    of photos waits at a time; those that wait already stay in the label stream by a prediction of `version`. Tasks in
    `locked` are being worked on.
    """
    from_masks = [task for task in tasks if task.image.sha256 in blindness.drawn_from_masks and _annotators(task)]
    open_tasks = [task for task in from_masks if task.is_open]
    with_masks = tasks_with_masks(labels, project, [task.id for task in open_tasks])
    waiting = [task for task in open_tasks if task.id not in with_masks]  # the others are gold photos: planted regions
    for task in waiting:
        if task.id not in locked and task.prediction_versions != (version,):
            _clear_masks(labels, project, task, version)
    closed = [
        task
        for task in from_masks
        if not task.is_open and _annotators(task) < _MAX_ANNOTATORS and task.id not in locked
    ]
    opened = 0
    for task in sorted(closed, key=lambda task: chance("second", task)):
        if len(waiting) + opened < _MAX_WAITING and not _was_drawn_blind(labels, project, task):
            _clear_masks(labels, project, task, version)
            serve_again(labels, task.id, _annotators(task) + 1)
            opened += 1
    if from_masks:
        logger.info(
            "%d test photos were drawn from a model's masks; %d of them wait for somebody who draws them without",
            len({task.image.sha256 for task in from_masks}), len(waiting) + opened,
        )  # fmt: skip
    return len(waiting) + opened


def _was_drawn_blind(labels: LabelStudioClient, project: int, task: Task) -> bool:
    """Return whether somebody drew a task blind since the newest dataset; with a single annotator, nobody did."""
    if _annotators(task) == 1:
        return False
    return any(
        not raw["was_cancelled"] and not prediction_version_of(raw)  # planted regions name a version, too
        for exported in export_tasks(labels, project, [task.id])
        for raw in exported["annotations"]
    )


def _clear_masks(labels: LabelStudioClient, project: int, task: Task, version: str) -> None:
    prediction = empty_prediction(version, chance("score", task))
    if not task.prediction_count or not replace_predictions(labels, task.id, prediction):
        push_predictions(labels, project, {task.id: prediction})


def _annotators(task: Task) -> int:
    return task.annotation_count - task.skipped_count
