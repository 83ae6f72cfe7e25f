"""How Label Studio serves tasks: each to one person, with the masks it has. Runs in Label Studio's environment.

Label Studio 1.23 by itself gets three things wrong. On SQLite, two people who ask within the same milliseconds get the
same task (PostgreSQL locks its row). Whoever labels "as displayed", from a tab that is filtered or ordered, gets the
first task even when somebody else holds its lock. And after a promotion, a task that somebody has open is shown without
masks, because only predictions of the project's model version are searched.
"""

import threading
from collections.abc import Callable
from typing import Any

# A task without masks waits for a model before it is served; other requests need not wait that long.
_MAX_WAIT_S = 5


class SerializeNextTask:
    """Django middleware: serve one request for the next task at a time.

    Django creates it once, when all of Label Studio is loaded; then it also patches the other two faults.
    """

    _lock = threading.Lock()

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        _leave_out_locked_tasks()
        _show_older_masks()

    def __call__(self, request: Any) -> Any:
        """Answer a request; requests for the next task wait for each other."""
        if request.path.rstrip("/") != "/api/dm/actions" or request.GET.get("id") != "next_task":
            return self._get_response(request)
        is_locked = self._lock.acquire(timeout=_MAX_WAIT_S)
        try:
            return self._get_response(request)
        finally:
            if is_locked:
                self._lock.release()


def _leave_out_locked_tasks() -> None:
    from data_manager.actions import next_task as action
    from django.utils.timezone import now
    from tasks.models import TaskLock

    original = action.get_next_task

    def get_next_task(user: Any, tasks: Any, project: Any, as_displayed: Any, *rest: Any) -> Any:
        if as_displayed:
            locks = TaskLock.objects.filter(task__project=project, expire_at__gt=now()).exclude(user=user)
            tasks = tasks.exclude(pk__in=locks.values("task"))
        return original(user, tasks, project, as_displayed, *rest)

    action.get_next_task = get_next_task


def _show_older_masks() -> None:
    from tasks.models import Task

    original = Task.get_predictions_for_prelabeling

    def get_predictions_for_prelabeling(task: Any) -> Any:
        predictions = original(task)
        if predictions or not task.project.show_collab_predictions:
            return predictions
        return task.predictions.order_by("-id")[:1]

    Task.get_predictions_for_prelabeling = get_predictions_for_prelabeling
