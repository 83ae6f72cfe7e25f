"""A training's metrics in MLflow while it runs: best effort, in a thread of its own, for which no training waits."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from types import TracebackType

logger = logging.getLogger(__name__)
_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_CLOSE_TIMEOUT_S = 15  # for metrics that are not sent yet when a training ends


class LiveLog:
    """Sends metrics to the run that MLFLOW_RUN_ID names, if it names one, at MLFLOW_TRACKING_URI.

    What cannot be sent is dropped, and the log says so once.
    """

    def __init__(self) -> None:
        self._run_id = os.environ.get("MLFLOW_RUN_ID", "")
        self._queue: SimpleQueue[tuple[int, int, Mapping[str, float]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, daemon=True)

    def __enter__(self) -> "LiveLog":
        if self._run_id:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run_id:
            self._queue.put(None)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send metrics of an optimizer step with the current time; NaN is left out."""
        if self._run_id:
            known = {name: float(value) for name, value in metrics.items() if value == value}  # NaN equals nothing
            self._queue.put((int(time.time() * 1000), step, known))

    def _send_all(self) -> None:
        warned = False
        while (metrics := self._queue.get()) is not None:
            try:
                self._send(*metrics)
            except Exception as error:  # whatever MLflow, its client or the network raise: the training goes on
                if not warned:
                    logger.warning("metrics of this training cannot be logged in MLflow: %s", error)
                warned = True

    def _send(self, time_ms: int, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in _LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        entities = [Metric(name, value, time_ms, step) for name, value in metrics.items()]
        MlflowClient(os.environ.get("MLFLOW_TRACKING_URI")).log_batch(self._run_id, metrics=entities)
