"""Which photos people draw without seeing a model's masks, so that models can be judged by what people drew alone.

These are the photos of the test and validation sides, known before anybody sees them, and once the test side has
stopped growing some photos by chance, which show what masks save. While a champion is paused, nobody is shown any.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.dataset.published import Published
from pipelines.dataset.split import BLIND_SIDES, TEST, TRAIN, is_blind, is_marked_full, sides_of
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
_SECOND_AT_ONCE = 20  # photos drawn from masks that wait for somebody who draws them blind
_MOST_PEOPLE = 3  # who draw a photo before it is given up


@dataclass(frozen=True)
class Blindness:
    """The side of each photo by SHA-256, and what follows from it for who sees masks.

    `drawn_from_masks` are the test photos in whose mask a model had a part, `labelled` all photos of the newest
    dataset with whether their mask is blind.
    """

    sides: Mapping[str, str]
    labelled: Mapping[str, bool]
    drawn_from_masks: frozenset[str]
    is_test_full: bool
    control_share: float

    def judges(self, task: Task) -> bool:
        """Tell whether models are judged or chosen by this task's photo."""
        return self.sides.get(task.image.sha256) in BLIND_SIDES

    def is_blind(self, task: Task) -> bool:
        """Tell whether people draw this task without masks: it judges models, or chance chose it for comparison."""
        is_control = self.is_test_full and chance("control", task) < self.control_share
        return self.judges(task) or (is_control and self.sides.get(task.image.sha256) == TRAIN)

    def __str__(self) -> str:
        """Say how much of the newest dataset is blind, and whether the test side still grows."""
        full = f"; the test side is large enough, {self.control_share:.0%} of new photos are for comparison"
        return f"{sum(self.labelled.values())} of {len(self.labelled)} labelled photos" + full * self.is_test_full


def read_blindness(settings: Settings, params: Params, tasks: Sequence[Task]) -> Blindness:
    """Return what is known of the photos of all `tasks` of the project and of the newest dataset."""
    published = Published.of(settings)
    tags = published.tags()
    manifest = published.manifest(tags[-1]) if tags else None
    return blindness_of(tasks, manifest, params)


def blindness_of(tasks: Sequence[Task], manifest: pd.DataFrame | None, params: Params) -> Blindness:
    """Return who sees masks of these tasks, given the newest dataset's manifest (None before there is one)."""
    sides = sides_of(tasks, manifest, params.split)
    labelled: dict[str, bool] = {}
    full = False
    if manifest is not None:
        labelled = dict(zip(manifest["sha256"], is_blind(manifest).tolist(), strict=True))
        full = is_marked_full(manifest)
    dirty = frozenset(photo for photo, blind in labelled.items() if not blind and sides.get(photo) == TEST)
    return Blindness(sides, labelled, dirty, full, params.prelabel.control_share)


def why_paused(settings: Settings, version: str) -> str:
    """Return why the serving `version` draws no masks for people though it is champion; empty when it does.

    When MLflow cannot be asked, it goes on drawing.
    """
    from pipelines.models.registry import Registry

    try:
        champion = Registry(settings).champion()
    except ServiceError as error:
        logger.warning("%s; whether %s is paused is not known, so it goes on", error, version)
        return ""
    return champion.paused if champion and champion.served_as == version else ""


def open_for_blind_work(
    labels: LabelStudioClient, project: int, tasks: Sequence[Task], blindness: Blindness, version: str, held: set[int]
) -> int:
    """Let somebody else draw, without masks, test photos in whose mask a model had a part; returns how many wait.

    That happened before their side counted, or in an archive of an earlier version. A bounded number waits at a time;
    those that wait already are kept in the stream by a prediction of `version`. Tasks in `held` are in people's hands.
    """
    dirty = [task for task in tasks if task.image.sha256 in blindness.drawn_from_masks and _drawn_by(task)]
    waiting = [task for task in dirty if task.is_open]
    shown = tasks_with_masks(labels, project, [task.id for task in waiting])
    ours = [task for task in waiting if task.id not in shown]  # others: gold photos that measure people
    for task in ours:
        if task.id not in held and task.prediction_versions != (version,):
            _empty(labels, project, task, version)
    closed = [task for task in dirty if not task.is_open and _drawn_by(task) < _MOST_PEOPLE and task.id not in held]
    opened = 0
    for task in sorted(closed, key=lambda task: chance("second", task)):
        if len(ours) + opened < _SECOND_AT_ONCE and not _was_drawn_blind(labels, project, task):
            _empty(labels, project, task, version)
            serve_again(labels, task.id, _drawn_by(task) + 1)
            opened += 1
    if dirty:
        logger.info(
            "%d test photos were drawn from a model's masks; %d of them wait for somebody who draws them without",
            len({task.image.sha256 for task in dirty}), len(ours) + opened,
        )  # fmt: skip
    return len(ours) + opened


def _was_drawn_blind(labels: LabelStudioClient, project: int, task: Task) -> bool:
    """Tell whether somebody drew a task blind since the newest dataset: of one that one person drew, nobody did."""
    if _drawn_by(task) == 1:
        return False
    return any(
        not raw["was_cancelled"] and not prediction_version_of(raw)
        for exported in export_tasks(labels, project, [task.id])
        for raw in exported["annotations"]
    )


def _empty(labels: LabelStudioClient, project: int, task: Task, version: str) -> None:
    prediction = empty_prediction(version, chance("score", task))
    if not task.prediction_count or not replace_predictions(labels, task.id, prediction):
        push_predictions(labels, project, {task.id: prediction})


def _drawn_by(task: Task) -> int:
    return task.annotation_count - task.skipped_count
