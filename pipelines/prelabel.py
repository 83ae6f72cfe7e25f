"""Station 2: the next tasks of the queue get the champion's masks; older predictions give way to newer ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.errors import ContractError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import push_predictions, replace_predictions
from pipelines.labelstudio.project import find_project, require_same_labels, show_predictions_of
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, task_data
from pipelines.params import Params
from pipelines.queue import ScoreLedger, next_tasks, to_score
from pipelines.records import NO_MODEL, Task
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
    chosen = {task.id for task in next_tasks(unopened, _scores(settings, params, version, unopened), params.prelabel)}
    waiting = [
        task.id
        for task in unopened
        if task.prediction_versions != (version,) and (task.id in chosen or task.prediction_versions)
    ]
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
    tasks = [task for task in _nobodys(labels, project, only=task_ids) if task.prediction_versions != (version,)]
    if not tasks or version == NO_MODEL:
        return PrelabelReport(len(task_ids), 0, {})
    answer = _ask(settings, "/predict", tasks)
    results = {task.id: result for task, result in zip(tasks, answer["results"], strict=True) if "result" in result}
    problems = {tasks[int(position)].id: text for position, text in answer.get("problems", {}).items()}
    old = [task.id for task in tasks if task.prediction_versions and task.id in results]
    updated = sum(replace_predictions(labels, task_id, results[task_id]) for task_id in old)
    created = push_predictions(labels, project, {task_id: r for task_id, r in results.items() if task_id not in old})
    if created or updated:
        show_predictions_of(labels, project, answer["model_version"])
    for task_id, text in problems.items():
        logger.warning("task %d gets no prediction: %s", task_id, text)
    return PrelabelReport(len(task_ids), created + updated, problems)


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


def _scores(settings: Settings, params: Params, version: str, unopened: Sequence[Task]) -> dict[str, float]:
    """Score what the queue chooses from, unless all of it is served anyway; scores are kept as they come."""
    if len(unopened) <= params.prelabel.ahead:
        return {}
    ledger = ScoreLedger(storage.connect(settings), settings.target_bucket, version)
    scores = ledger.read()
    missing = to_score(unopened, scores, params.prelabel)
    for start in range(0, len(missing), _SCORED_AT_ONCE):
        part = missing[start : start + _SCORED_AT_ONCE]
        found = _ask(settings, "/score", part)["scores"]
        scores |= {t.image.sha256: score for t, score in zip(part, found, strict=True) if score is not None}
        ledger.write(scores)
        logger.info("scored %d of %d photos", start + len(part), len(missing))
    return scores


def _ask(settings: Settings, path: str, tasks: Sequence[Task]) -> Any:
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks]}
    answer = ask_service(settings, "segmentation", path, body, timeout_s=_PREDICT_TIMEOUT_S)
    answered = len(answer["results" if "results" in answer else "scores"])
    if answered != len(tasks):
        raise ServiceError(f"the segmentation service answered {answered} results for {len(tasks)} tasks")
    return answer
