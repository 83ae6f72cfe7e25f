"""Station 2: the next tasks of the queue get the champion's masks; older predictions give way to newer ones.

Tasks that people draw without masks (`blind`) get a prediction that proposes nothing: it gives them their place
in the queue, which is by chance.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from pipelines.contract import SEGMENTATION
from pipelines.errors import ServiceError
from pipelines.fs import held
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.interface import require_same_labels
from pipelines.labelstudio.predictions import empty_prediction, push_predictions, replace_predictions
from pipelines.labelstudio.project import find_project, project_labels, show_predictions_of
from pipelines.labelstudio.schema import PredictionJson
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, task_data, tasks_with_masks
from pipelines.params import Params
from pipelines.prelabel.strategies import Ledger, LedgerFile, chance, next_tasks, to_score
from pipelines.records import NO_MODEL, ImageRef, Task
from pipelines.services import ask_service
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_PREDICT_TIMEOUT_S = 300
_SCORED_AT_ONCE = 100


class Batch(TypedDict):
    """Ids of tasks that get the serving model's masks, and of tasks that get the empty prediction of a `version`."""

    masks: list[int]
    blind: list[int]
    version: str


@dataclass(frozen=True)
class PrelabelReport:
    """What one batch did: tasks asked for, how many got masks and how many none, problems as text by task id."""

    asked: int
    masks: int
    blind: int
    problems: dict[int, str]


def plan_batches(labels: LabelStudioClient, settings: Settings, params: Params) -> list[Batch]:
    """Give the tasks that are to get a prediction of the serving model now, or an empty one, in batches.

    These are the next tasks of the queue, and unopened ones that hold an older model's prediction, or masks that nobody
    is to see. Test photos that were drawn from masks are opened for somebody else on the way. There are none while no
    model serves. Raises ContractError when the labels of project, params.yaml and model disagree in a way that would
    lose masks.
    """
    from pipelines.prelabel.blind import open_for_blind_work, read_blindness, why_paused

    serving, known = serving_model(settings)
    if serving == NO_MODEL:
        logger.info("no champion yet: tasks stay without predictions until the first model is promoted")
        return []
    project = find_project(labels, params)
    require_same_labels(params, offered=project_labels(labels, project), model_labels=known, model=serving)
    _warn_of_unlearned_labels(serving, known, params)
    taken = locked_tasks(labels, project)
    tasks = list(list_tasks(labels, project))
    unopened = [task for task in tasks if not task.opened and task.id not in taken]
    blindness = read_blindness(settings, params, tasks)
    paused = why_paused(settings, serving)
    version = f"{serving} (paused)" if paused else serving  # another name, so that masks come when it goes on
    if any(version in task.prediction_versions for task in unopened):
        show_predictions_of(labels, project, version)  # in case the last run was killed just before
    open_for_blind_work(labels, project, tasks, blindness, version, taken)

    blind = {task.id for task in unopened if blindness.is_blind(task)}
    fresh = next_tasks(unopened, _scored(settings, params, serving, unopened, blind), params.prelabel, blind)
    queued = [task for task in unopened if task.prediction_versions]
    shown = tasks_with_masks(labels, project, [task.id for task in queued if paused or task.id in blind])
    outdated = [task for task in queued if not _is_done(task, version) or task.id in shown]
    due = [task.id for task in (*outdated, *fresh)]
    without = due if paused else [task for task in due if task in blind]
    _tell(serving, paused, len(due) - len(without), len(without), len(blind), len(unopened))
    return _batches([task for task in due if task not in set(without)], without, version, params.prelabel.batch_size)


def _tell(serving: str, paused: str, masks: int, without: int, blind: int, unopened: int) -> None:
    if paused:
        logger.warning("%s is paused and draws no masks for anybody: %s", serving, paused)
    logger.info(
        "%d tasks get masks of %s, %d none; %d wait for somebody, %d of them (%.0f %%) to be drawn without masks",
        masks, serving, without, unopened, blind, 100 * blind / max(1, unopened),
    )  # fmt: skip


def _batches(masks: Sequence[int], blind: Sequence[int], version: str, size: int) -> list[Batch]:
    """Divide both kinds evenly over batches, in their order, because scores of blind ones follow from the others'."""
    count = max(-(-(len(masks) + len(blind)) // size), 0)
    return [
        Batch(
            masks=list(masks[len(masks) * place // count : len(masks) * (place + 1) // count]),
            blind=list(blind[len(blind) * place // count : len(blind) * (place + 1) // count]),
            version=version,
        )
        for place in range(count)
    ]


def prelabel_batch(labels: LabelStudioClient, settings: Settings, params: Params, batch: Batch) -> PrelabelReport:
    """Predict and import one batch; tasks that were opened, handed out or predicted meanwhile are left as they are.

    A photo that cannot be predicted is reported and the rest goes on. A prediction that is there already is brought up
    to date in its place: somebody may look at its photo without having been handed it, and Label Studio refuses work
    that started from a prediction that is gone.
    """
    project = find_project(labels, params)
    asked = [*batch["masks"], *batch["blind"]]
    free = _nobodys(labels, project, only=asked)
    without = [task for task in free if task.id in set(batch["blind"])]
    results: dict[int, PredictionJson] = {}
    problems: dict[int, str] = {}
    version = batch["version"]
    tasks: list[Task] = []
    if batch["masks"]:
        version, _ = serving_model(settings)
        tasks = [task for task in free if task not in without and not _is_done(task, version)]
        if version == NO_MODEL:
            return PrelabelReport(len(asked), 0, 0, {})
    if tasks:
        answer = _ask(settings, "/predict", tasks)
        version = str(answer["model_version"])
        results = {task.id: result for task, result in zip(tasks, answer["results"], strict=True) if "result" in result}
        problems = {tasks[int(position)].id: text for position, text in answer.get("problems", {}).items()}
    scores = sorted(float(result["score"]) for result in results.values())
    results |= {task.id: empty_prediction(version, _place(chance("score", task), scores)) for task in without}
    with held(settings.var / "prelabel.lock"):  # another run may be at the same tasks
        done = _publish(labels, project, version, [*tasks, *without], results)
        _note_failures(settings, version, [task for task in tasks if task.id in problems])
    for task_id, text in problems.items():
        logger.warning("task %d gets no prediction: %s", task_id, text)
    blind = len(done & set(batch["blind"]))
    return PrelabelReport(len(asked), len(done) - blind, blind, problems)


def _place(position: float, scores: Sequence[float]) -> float:
    """Give the score at a position (0..1) among ascending scores, or the position itself where there are none.

    The least score is handed out first. Among those of the photos that join the queue at the same time, photos without
    masks are reached neither sooner nor later than others.
    """
    if not scores:
        return position
    below, part = divmod(position * (len(scores) - 1), 1)
    above = scores[min(int(below) + 1, len(scores) - 1)]
    return scores[int(below)] * (1 - part) + above * part


def _publish(
    labels: LabelStudioClient, project: int, version: str, tasks: Sequence[Task], results: Mapping[int, PredictionJson]
) -> set[int]:
    """Import what still holds: predicting took a while, and people, ingest and other runs went on meanwhile.

    Gives the ids of the tasks that have it now.
    """
    before = {task.id: _state(task) for task in tasks if task.id in results}
    now = _nobodys(labels, project, only=list(before)) if before else []
    same = [task for task in now if _state(task) == before.get(task.id)]
    old = [task.id for task in same if task.prediction_versions]
    done = {task_id for task_id in old if replace_predictions(labels, task_id, results[task_id])}
    new = {task.id: results[task.id] for task in same if not task.prediction_versions}
    push_predictions(labels, project, new)
    done |= set(new)
    if done:
        show_predictions_of(labels, project, version)
    return done


def _state(task: Task) -> tuple[ImageRef, tuple[str, ...]]:
    return task.image, task.prediction_versions


def _is_done(task: Task, version: str) -> bool:
    """Tell whether a task holds the version's prediction, once."""
    return task.prediction_versions == (version,) and task.prediction_count <= 1


def serving_model(settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Ask the segmentation service for its model version and that model's labels."""
    answer = ask_service(settings, SEGMENTATION, "/setup", {}, timeout_s=10)
    return str(answer["model_version"]), tuple(answer["labels"])


def _warn_of_unlearned_labels(version: str, known: Sequence[str], params: Params) -> None:
    missing = sorted(set(params.label_ids) - set(known))
    if missing:
        logger.warning(
            "%s does not know %s: these are drawn by hand until the next training", version, ", ".join(missing)
        )


def _nobodys(labels: LabelStudioClient, project: int, only: Sequence[int] | None = None) -> list[Task]:
    """Give the tasks that nobody annotated, drew a draft on, or was handed by the labeling stream."""
    held = locked_tasks(labels, project)
    return [task for task in list_tasks(labels, project, only=only) if not task.opened and task.id not in held]


def _scored(
    settings: Settings, params: Params, version: str, unopened: Sequence[Task], blind: Collection[int]
) -> Ledger:
    """Score what the queue chooses from, unless all of it is served anyway; scores are kept as they come."""
    file = LedgerFile(gcs.connect(settings), settings.target_bucket, version)
    ledger = file.read()
    if len(unopened) <= params.prelabel.ahead:
        return ledger
    missing = to_score(unopened, ledger, params.prelabel, blind)
    for start in range(0, len(missing), _SCORED_AT_ONCE):
        part = missing[start : start + _SCORED_AT_ONCE]
        for task, score in zip(part, _ask(settings, "/score", part)["scores"], strict=True):
            if score is None:
                ledger.note_failure(task)
            else:
                ledger.scores[task.image.sha256] = score
        file.write(ledger)
        logger.info("scored %d of %d photos", start + len(part), len(missing))
    return ledger


def _note_failures(settings: Settings, version: str, tasks: Sequence[Task]) -> None:
    if tasks:
        file = LedgerFile(gcs.connect(settings), settings.target_bucket, version)
        ledger = file.read()
        for task in tasks:
            ledger.note_failure(task)
        file.write(ledger)


def _ask(settings: Settings, path: str, tasks: Sequence[Task]) -> Any:
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks]}
    answer = ask_service(settings, SEGMENTATION, path, body, timeout_s=_PREDICT_TIMEOUT_S)
    answered = len(answer["results" if "results" in answer else "scores"])
    if answered != len(tasks):
        raise ServiceError(f"the segmentation service answered {answered} results for {len(tasks)} tasks")
    return answer
