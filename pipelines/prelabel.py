"""Station 2: tasks that nobody opened get the champion's masks; older predictions give way to newer ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import ContractError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import delete_predictions, push_predictions
from pipelines.labelstudio.project import find_project, require_same_labels, show_predictions_of
from pipelines.labelstudio.tasks import list_tasks, task_data
from pipelines.params import Params
from pipelines.records import NO_MODEL, Task
from pipelines.serving import ask_service
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_PREDICT_TIMEOUT_S = 300


@dataclass(frozen=True)
class PrelabelReport:
    """What one batch did: tasks asked for, predictions created, and problems as text by task id."""

    asked: int
    created: int
    problems: dict[int, str]


def plan_batches(labels: LabelStudioClient, settings: Settings, params: Params) -> list[list[int]]:
    """Give the ids of unopened tasks that lack the serving model's prediction, in batches.

    There are none while no model serves. Raises ContractError when the labels of project, params.yaml and model
    disagree in a way that would lose masks.
    """
    version, known = serving_model(settings)
    if version == NO_MODEL:
        logger.info("no champion yet: tasks stay without predictions until the first model is promoted")
        return []
    project = find_project(labels, params)
    require_same_labels(labels, project, params)
    _require_known_labels(version, known, params)
    waiting = [t.id for t in list_tasks(labels, project) if not t.opened and t.prediction_versions != (version,)]
    size = params.prelabel.batch_size
    logger.info("%d tasks wait for %s", len(waiting), version)
    return [waiting[start : start + size] for start in range(0, len(waiting), size)]


def prelabel_batch(
    labels: LabelStudioClient, settings: Settings, params: Params, task_ids: Sequence[int]
) -> PrelabelReport:
    """Predict and import one batch; tasks that were opened or predicted meanwhile are left as they are.

    A photo that cannot be predicted is reported and the rest goes on.
    """
    project = find_project(labels, params)
    version, _ = serving_model(settings)
    tasks = [
        task
        for task in list_tasks(labels, project, only=task_ids)
        if not task.opened and task.prediction_versions != (version,)
    ]
    if not tasks or version == NO_MODEL:
        return PrelabelReport(len(task_ids), 0, {})
    answer = _ask(settings, tasks)
    results = {task.id: result for task, result in zip(tasks, answer["results"], strict=True) if "result" in result}
    problems = {tasks[int(position)].id: text for position, text in answer.get("problems", {}).items()}
    delete_predictions(labels, project, [task.id for task in tasks if task.prediction_versions and task.id in results])
    created = push_predictions(labels, project, results)
    if created:
        show_predictions_of(labels, project, answer["model_version"])
    for task_id, text in problems.items():
        logger.warning("task %d gets no prediction: %s", task_id, text)
    return PrelabelReport(len(task_ids), created, problems)


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


def _ask(settings: Settings, tasks: Sequence[Task]) -> Any:
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks]}
    answer = ask_service(settings, "segmentation", "/predict", body, timeout_s=_PREDICT_TIMEOUT_S)
    if len(answer["results"]) != len(tasks):
        raise ServiceError(f"the segmentation service answered {len(answer['results'])} results for {len(tasks)} tasks")
    return answer
