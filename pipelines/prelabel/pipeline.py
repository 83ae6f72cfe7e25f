"""The prelabel pipeline: the next tasks of the queue get the champion's masks; newer predictions replace older ones.

Tasks that people draw without masks (`blind`) get a prediction that proposes nothing: its random score gives them a
position in the queue.
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
from pipelines.labelstudio.predictions import empty_prediction, push_predictions, replace_predictions, with_reason
from pipelines.labelstudio.project import find_project, project_labels, show_predictions_of
from pipelines.labelstudio.schema import PredictionJson
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, task_data, tasks_with_masks
from pipelines.params import Params, PrelabelParams
from pipelines.prelabel.strategies import ScoreCache, ScoreCacheFile, chance, next_tasks, reason_of, to_score
from pipelines.records import NO_MODEL, ImageRef, Task
from pipelines.services import ask_service
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_PREDICT_TIMEOUT_S = 300
_SCORES_PER_REQUEST = 100


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
    """Return, in batches, the tasks that are to get a prediction of the serving model now, or an empty one.

    These are the next tasks of the queue, and unopened ones that hold an older model's prediction, or masks that nobody
    should see. Test photos that were drawn from masks are also opened for somebody else. There are no batches while no
    model serves. Raises ContractError when the labels of project, params.yaml and model disagree in a way that would
    lose masks.
    """
    from pipelines.prelabel.blind import open_for_blind_work, pause_reason, read_blindness

    serving, known = serving_model(settings)
    if serving == NO_MODEL:
        logger.info("no champion yet: tasks stay without predictions until the first model is promoted")
        return []
    project = find_project(labels, params)
    require_same_labels(params, offered=project_labels(labels, project), model_labels=known, model=serving)
    _warn_of_unlearned_labels(serving, known, params)
    locked = locked_tasks(labels, project)
    tasks = list(list_tasks(labels, project))
    unopened = [task for task in tasks if not task.opened and task.id not in locked]
    blindness = read_blindness(settings, params, tasks)
    paused = pause_reason(settings, serving)
    version = f"{serving} (paused)" if paused else serving  # another name, so that masks come when the pause ends
    if any(version in task.prediction_versions for task in unopened):
        show_predictions_of(labels, project, version)  # in case the last run was killed just before
    open_for_blind_work(labels, project, tasks, blindness, version, locked)

    blind = {task.id for task in unopened if blindness.is_blind(task)}
    scores = _score_pool(settings, params, serving, unopened, blind)
    next_in_queue = next_tasks(unopened, scores, params.prelabel, blind)
    queued = [task for task in unopened if task.prediction_versions]
    with_masks = tasks_with_masks(labels, project, [task.id for task in queued if paused or task.id in blind])
    outdated = [task for task in queued if not _is_done(task, version) or task.id in with_masks]
    due = [task.id for task in (*outdated, *next_in_queue)]
    unmasked = due if paused else [task_id for task_id in due if task_id in blind]
    masked = [task_id for task_id in due if task_id not in set(unmasked)]
    if paused:
        logger.warning("%s is paused and draws no masks for anybody: %s", serving, paused)
    logger.info(
        "%d tasks get masks of %s, %d none; %d wait for somebody, %d of them (%.0f %%) to be drawn without masks",
        len(masked), serving, len(unmasked), len(unopened), len(blind), 100 * len(blind) / max(1, len(unopened)),
    )  # fmt: skip
    return _batches(masked, unmasked, version, params.prelabel.batch_size)


def _batches(masks: Sequence[int], blind: Sequence[int], version: str, size: int) -> list[Batch]:
    """Distribute both kinds evenly over batches, in their order: blind tasks get scores by those of their batch."""
    count = max(-(-(len(masks) + len(blind)) // size), 0)
    return [
        Batch(
            masks=list(masks[len(masks) * number // count : len(masks) * (number + 1) // count]),
            blind=list(blind[len(blind) * number // count : len(blind) * (number + 1) // count]),
            version=version,
        )
        for number in range(count)
    ]


def prelabel_batch(labels: LabelStudioClient, settings: Settings, params: Params, batch: Batch) -> PrelabelReport:
    """Predict and import one batch; tasks that were opened, served or predicted meanwhile stay as they are.

    A photo that cannot be predicted is reported and the others go on. An existing prediction is updated and keeps its
    id: somebody may have opened its photo without being served it, and Label Studio refuses an annotation that started
    from a deleted prediction.
    """
    project = find_project(labels, params)
    asked = [*batch["masks"], *batch["blind"]]
    free = _unassigned(labels, project, only=asked)
    unmasked = [task for task in free if task.id in set(batch["blind"])]
    results: dict[int, PredictionJson] = {}
    problems: dict[int, str] = {}
    version = batch["version"]
    tasks: list[Task] = []
    if batch["masks"]:
        version, _ = serving_model(settings)
        tasks = [task for task in free if task not in unmasked and not _is_done(task, version)]
        if version == NO_MODEL:
            return PrelabelReport(len(asked), 0, 0, {})
    if tasks:
        answer = _ask(settings, "/predict", tasks)
        version = str(answer["model_version"])
        results = {
            task.id: with_reason(_placed(task, result, params.prelabel), reason_of(task, params.prelabel))
            for task, result in zip(tasks, answer["results"], strict=True)
            if "result" in result
        }
        problems = {tasks[int(position)].id: text for position, text in answer.get("problems", {}).items()}
    scores = sorted(float(result["score"]) for result in results.values())
    results |= {task.id: empty_prediction(version, _score_at(chance("score", task), scores)) for task in unmasked}
    with held(settings.var / "prelabel.lock"):  # another run may be at the same tasks
        done = _publish(labels, project, version, [*tasks, *unmasked], results)
        _record_failures(settings, version, [task for task in tasks if task.id in problems])
    for task_id, text in problems.items():
        logger.warning("task %d gets no prediction: %s", task_id, text)
    blind = len(done & set(batch["blind"]))
    return PrelabelReport(len(asked), len(done) - blind, blind, problems)


def _placed(task: Task, prediction: PredictionJson, params: PrelabelParams) -> PredictionJson:
    """Return a prediction with the score by which the queue serves it: the model's, or by chance where all is."""
    return {**prediction, "score": chance("score", task)} if params.by_chance == 1 else prediction


def _score_at(position: float, scores: Sequence[float]) -> float:
    """Return the score at a position (0..1) among ascending scores, or the position itself when there are none.

    The lowest score is served first. With such scores, photos without masks are served neither sooner nor later than
    the photos with masks that join the queue at the same time.
    """
    if not scores:
        return position
    below, fraction = divmod(position * (len(scores) - 1), 1)
    above = scores[min(int(below) + 1, len(scores) - 1)]
    return scores[int(below)] * (1 - fraction) + above * fraction


def _publish(
    labels: LabelStudioClient, project: int, version: str, tasks: Sequence[Task], results: Mapping[int, PredictionJson]
) -> set[int]:
    """Import the predictions of tasks that did not change while predicting: people, ingest and other runs went on.

    Returns the ids of the tasks that have their prediction now.
    """
    before = {task.id: _state(task) for task in tasks if task.id in results}
    current = _unassigned(labels, project, only=list(before)) if before else []
    unchanged = [task for task in current if _state(task) == before.get(task.id)]
    predicted = [task.id for task in unchanged if task.prediction_versions]
    done = {task_id for task_id in predicted if replace_predictions(labels, task_id, results[task_id])}
    new = {task.id: results[task.id] for task in unchanged if not task.prediction_versions}
    push_predictions(labels, project, new)
    done |= set(new)
    if done:
        show_predictions_of(labels, project, version)
    return done


def _state(task: Task) -> tuple[ImageRef, tuple[str, ...]]:
    return task.image, task.prediction_versions


def _is_done(task: Task, version: str) -> bool:
    """Return whether a task holds the version's prediction, and no other."""
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


def _unassigned(labels: LabelStudioClient, project: int, only: Sequence[int]) -> list[Task]:
    """Return those of the tasks `only` that have no annotation and no draft, and that were served to nobody."""
    locked = locked_tasks(labels, project)
    return [task for task in list_tasks(labels, project, only=only) if not task.opened and task.id not in locked]


def _score_pool(
    settings: Settings, params: Params, version: str, unopened: Sequence[Task], blind: Collection[int]
) -> ScoreCache:
    """Score the photos that the queue chooses from, unless all are served anyway; scores are stored part by part."""
    file = ScoreCacheFile(gcs.connect(settings), settings.target_bucket, version)
    cache = file.read()
    if len(unopened) <= params.prelabel.ahead:
        return cache
    missing = to_score(unopened, cache, params.prelabel, blind)
    for start in range(0, len(missing), _SCORES_PER_REQUEST):
        part = missing[start : start + _SCORES_PER_REQUEST]
        for task, score in zip(part, _ask(settings, "/score", part)["scores"], strict=True):
            if score is None:
                cache.record_failure(task)
            else:
                cache.scores[task.image.sha256] = score
        file.write(cache)
        logger.info("scored %d of %d photos", start + len(part), len(missing))
    return cache


def _record_failures(settings: Settings, version: str, tasks: Sequence[Task]) -> None:
    if tasks:
        file = ScoreCacheFile(gcs.connect(settings), settings.target_bucket, version)
        cache = file.read()
        for task in tasks:
            cache.record_failure(task)
        file.write(cache)


def _ask(settings: Settings, path: str, tasks: Sequence[Task]) -> Any:
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks]}
    answer = ask_service(settings, SEGMENTATION, path, body, timeout_s=_PREDICT_TIMEOUT_S)
    answered = len(answer["results" if "results" in answer else "scores"])
    if answered != len(tasks):
        raise ServiceError(f"the segmentation service answered {answered} results for {len(tasks)} tasks")
    return answer
