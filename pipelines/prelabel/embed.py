"""Embeddings ahead of the click: photos that come next are encoded, so that their first click is answered at once."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.contract import SEGMENT_ANYTHING
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks, task_data
from pipelines.params import Params
from pipelines.records import Task
from pipelines.services import ask_service
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_TIMEOUT_S = 120  # one photo through ViT-H on two busy cores
_MAX_RUN_S = 420  # of the ten minutes between two runs


@dataclass(frozen=True)
class EmbedReport:
    """How many of the next photos are ready for clicks, and problems as text by task id."""

    queued: int
    ready: int
    problems: dict[int, str]


def embed_ahead(labels: LabelStudioClient, settings: Settings, params: Params) -> EmbedReport:
    """Let the Segment Anything service encode the next photos of the queue; photos that are ready cost nothing.

    A photo that cannot be encoded is reported and the others go on. After some minutes the others are left to the next
    run, because new masks wait for the end of this one.
    """
    queue, started = _queue(labels, params), time.monotonic()
    answers = []
    for task in queue:  # one per request, because each may take many seconds
        answers.append(_ask(settings, [task], compute=time.monotonic() - started < _MAX_RUN_S))
    return _report(queue, answers)


def count_ready(labels: LabelStudioClient, settings: Settings, params: Params) -> EmbedReport:
    """Count the next photos that are ready for clicks, encoding none."""
    queue = _queue(labels, params)
    return _report(queue, [_ask(settings, queue, compute=False)]) if queue else EmbedReport(0, 0, {})


def _queue(labels: LabelStudioClient, params: Params) -> list[Task]:
    waiting = [task for task in list_tasks(labels, find_project(labels, params)) if not task.opened]
    waiting.sort(key=lambda task: not task.prediction_versions)  # what the label stream serves comes first
    return waiting[: params.embed.ahead]


def _ask(settings: Settings, tasks: Sequence[Task], *, compute: bool) -> dict[int, str]:
    """Return, by task id, why a photo is not ready: a problem, or an empty text when it is not encoded yet."""
    body = {"tasks": [{"id": task.id, "data": task_data(task.image, {})} for task in tasks], "compute": compute}
    answer = ask_service(settings, SEGMENT_ANYTHING, "/embed", body, timeout_s=_TIMEOUT_S)
    return {
        task.id: str(answer["problems"].get(str(position), ""))
        for position, (task, ready) in enumerate(zip(tasks, answer["ready"], strict=True))
        if not ready
    }


def _report(queue: Sequence[Task], answers: Sequence[dict[int, str]]) -> EmbedReport:
    waiting = {task_id: why for answer in answers for task_id, why in answer.items()}
    problems = {task_id: why for task_id, why in waiting.items() if why}
    for task_id, why in problems.items():
        logger.warning("task %d cannot be made ready for clicks: %s", task_id, why)
    return EmbedReport(len(queue), len(queue) - len(waiting), problems)
