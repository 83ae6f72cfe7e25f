"""What Label Studio hands out: each task to one person, with the masks it has. Runs in Label Studio's environment.

Three things go wrong in Label Studio 1.23 by itself. On SQLite, two people who ask within the same milliseconds get the
same task (PostgreSQL locks its row). Whoever labels «as displayed», from a tab that is filtered or ordered, gets the
first task even when somebody else holds it. And after a promotion, a task in somebody's hands comes back without masks,
because only those of the project's model version are looked for.
"""

import threading
from collections.abc import Callable
from typing import Any

_LONGEST_TURN_S = 5  # who is handed a task without masks waits for a model; others need not wait as long


class TakeTurns:
    """Django middleware: one request for the next task at a time. Made once, when all of Label Studio is loaded."""

    _turn = threading.Lock()

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        _leave_out_what_others_hold()
        _show_older_masks()

    def __call__(self, request: Any) -> Any:
        """Answer a request, in turn when it asks for the next task."""
        if request.path.rstrip("/") != "/api/dm/actions" or request.GET.get("id") != "next_task":
            return self._answer(request)
        has_turn = self._turn.acquire(timeout=_LONGEST_TURN_S)
        try:
            return self._answer(request)
        finally:
            if has_turn:
                self._turn.release()


def _leave_out_what_others_hold() -> None:
    from data_manager.actions import next_task as action
    from django.utils.timezone import now
    from tasks.models import TaskLock

    ask = action.get_next_task

    def get_next_task(user: Any, tasks: Any, project: Any, as_displayed: Any, *rest: Any) -> Any:
        if as_displayed:
            held = TaskLock.objects.filter(task__project=project, expire_at__gt=now()).exclude(user=user)
            tasks = tasks.exclude(pk__in=held.values("task"))
        return ask(user, tasks, project, as_displayed, *rest)

    action.get_next_task = get_next_task


def _show_older_masks() -> None:
    from tasks.models import Task

    ask = Task.get_predictions_for_prelabeling

    def get_predictions_for_prelabeling(task: Any) -> Any:
        found = ask(task)
        if found or not task.project.show_collab_predictions:
            return found
        return task.predictions.order_by("-id")[:1]

    Task.get_predictions_for_prelabeling = get_predictions_for_prelabeling
