"""Station 2: the next tasks of the queue get the champion's masks; older predictions give way to newer ones."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.errors import ContractError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import push_predictions, replace_predictions
from pipelines.labelstudio.project import find_project, require_same_labels, show_predictions_of
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, task_data
from pipelines.lock import held
from pipelines.params import Params
from pipelines.queue import Ledger, LedgerFile, next_tasks, to_score
from pipelines.records import NO_MODEL, ImageRef, Task
from pipelines.serving import ask_service
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_PREDICT_TIMEOUT_S = 300
_SCORED_AT_ONCE = 100


@dataclass(frozen=True)
class PrelabelReport:
    """What one batch did: tasks asked for, predictions created or brought up to date, problems as text by task id."""

    asked: int
    created: int
    problems: dict[int, str]


def plan_batches(labels: LabelStudioClient, settings: Settings, params: Params) -> list[list[int]]:
    """Give the ids of tasks that are to get the serving model's prediction now, in batches.

    These are the next tasks of the queue, and unopened ones that still hold an older model's. There are none while no
    model serves. Raises ContractError when the labels of project, params.yaml and model disagree in a way that would
    lose masks.
    """
    version, known = serving_model(settings)
    if version == NO_MODEL:
        logger.info("no champion yet: tasks stay without predictions until the first model is promoted")
        return []
    project = find_project(labels, params)
    require_same_labels(labels, project, params)
    _require_known_labels(version, known, params)
    unopened = _nobodys(labels, project)
    if any(version in task.prediction_versions for task in unopened):
        show_predictions_of(labels, project, version)  # in case the last run was killed just before
    fresh = next_tasks(unopened, _scored(settings, params, version, unopened), params.prelabel)
    outdated = [task for task in unopened if task.prediction_versions and not _is_done(task, version)]
    waiting = [task.id for task in (*outdated, *fresh)]
    size = params.prelabel.batch_size
    logger.info("%d tasks get masks of %s; %d wait for somebody", len(waiting), version, len(unopened))
    return [waiting[start : start + size] for start in range(0, len(waiting), size)]


def prelabel_batch(
    labels: LabelStudioClient, settings: Settings, params: Params, task_ids: Sequence[int]
) -> PrelabelReport:
    """Predict and import one batch; tasks that were opened, handed out or predicted meanwhile are left as they are.

    A photo that cannot be predicted is reported and the rest goes on. A prediction that is there already is brought up
    to date in its place: somebody may look at its photo without having been handed it, and Label Studio refuses work
    that started from a prediction that is gone.
    """
    project = find_project(labels, params)
    version, _ = serving_model(settings)
    tasks = [task for task in _nobodys(labels, project, only=task_ids) if not _is_done(task, version)]
    if not tasks or version == NO_MODEL:
        return PrelabelReport(len(task_ids), 0, {})
    answer = _ask(settings, "/predict", tasks)
    results = {task.id: result for task, result in zip(tasks, answer["results"], strict=True) if "result" in result}
    problems = {tasks[int(position)].id: text for position, text in answer.get("problems", {}).items()}
    with held(settings.var / "prelabel.lock"):  # another run may be at the same tasks
        created = _publish(labels, project, answer["model_version"], tasks, results)
        _note_failures(settings, version, [task for task in tasks if task.id in problems])
    for task_id, text in problems.items():
        logger.warning("task %d gets no prediction: %s", task_id, text)
    return PrelabelReport(len(task_ids), created, problems)


def _publish(
    labels: LabelStudioClient, project: int, version: str, tasks: Sequence[Task], results: Mapping[int, dict[str, Any]]
) -> int:
    """Import what still holds: predicting took a while, and people, ingest and other runs went on meanwhile."""
    before = {task.id: _state(task) for task in tasks if task.id in results}
    now = _nobodys(labels, project, only=list(before)) if before else []
    same = [task for task in now if _state(task) == before.get(task.id)]
    old = [task.id for task in same if task.prediction_versions]
    updated = sum(replace_predictions(labels, task_id, results[task_id]) for task_id in old)
    new = {task.id: results[task.id] for task in same if not task.prediction_versions}
    created = push_predictions(labels, project, new)
    if created or updated:
        show_predictions_of(labels, project, version)
    return created + updated


def _state(task: Task) -> tuple[ImageRef, tuple[str, ...]]:
    return task.image, task.prediction_versions


def _is_done(task: Task, version: str) -> bool:
    """Tell whether a task holds the version's prediction, once."""
    return task.prediction_versions == (version,) and task.prediction_count <= 1


def serving_model(settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Ask the segmentation service for its model version and that model's labels."""
    answer = ask_service(settings, "segmentation", "/setup", {}, timeout_s=10)
    return str(answer["model_version"]), tuple(answer["labels"])


def _require_known_labels(version: str, known: Sequence[str], params: Params) -> None:
    unknown = sorted(set(known) - set(params.label_ids))
    if unknown:
        raise ContractError(
            f"{version} predicts labels that params.yaml does not have: {', '.join(unknown)}. Put them back into "
            "`labels`, or retrain and promote a model for the labels as they are now"
        )
    missing = sorted(set(params.label_ids) - set(known))
    if missing:
        logger.warning(
            "%s does not know %s: these are drawn by hand until the next training", version, ", ".join(missing)
        )


def _nobodys(labels: LabelStudioClient, project: int, only: Sequence[int] | None = None) -> list[Task]:
    """Give the tasks that nobody annotated, drew a draft on, or was handed by the labeling stream."""
    held = locked_tasks(labels, project)
    return [task for task in list_tasks(labels, project, only=only) if not task.opened and task.id not in held]


def _scored(settings: Settings, params: Params, version: str, unopened: Sequence[Task]) -> Ledger:
    """Score what the queue chooses from, unless all of it is served anyway; scores are kept as they come."""
    file = LedgerFile(storage.connect(settings), settings.target_bucket, version)
    ledger = file.read()
    if len(unopened) <= params.prelabel.ahead:
        return ledger
    missing = to_score(unopened, ledger, params.prelabel)
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
        file = LedgerFile(storage.connect(settings), settings.target_bucket, version)
        ledger = file.read()
        for task in tasks:
            ledger.note_failure(task)
        file.write(ledger)


def _ask(settings: Settings, path: str, tasks: Sequence[Task]) -> Any:
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks]}
    answer = ask_service(settings, "segmentation", path, body, timeout_s=_PREDICT_TIMEOUT_S)
    answered = len(answer["results" if "results" in answer else "scores"])
    if answered != len(tasks):
        raise ServiceError(f"the segmentation service answered {answered} results for {len(tasks)} tasks")
    return answer
