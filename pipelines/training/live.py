"""A training's figures in MLflow while it runs: best effort, in a thread of its own, never in the training's way."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from types import TracebackType

logger = logging.getLogger(__name__)
_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_FAREWELL_S = 15  # that the end of a training waits, at most, for figures that are on their way


class LiveLog:
    """Sends figures to the run that MLFLOW_RUN_ID names, if it names one; MLFLOW_TRACKING_URI says where it is.

    What cannot be sent is dropped, and the log says so once.
    """

    def __init__(self) -> None:
        self._run_id = os.environ.get("MLFLOW_RUN_ID", "")
        self._figures: SimpleQueue[tuple[int, int, Mapping[str, float]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, daemon=True)

    def __enter__(self) -> "LiveLog":
        if self._run_id:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run_id:
            self._figures.put(None)
            self._thread.join(_FAREWELL_S)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures of an optimizer step with the time of now; those that are not numbers are left out."""
        if self._run_id:
            known = {name: float(value) for name, value in figures.items() if value == value}  # NaN equals nothing
            self._figures.put((int(time.time() * 1000), step, known))

    def _send_all(self) -> None:
        complained = False
        while (figures := self._figures.get()) is not None:
            try:
                self._send(*figures)
            except Exception as error:  # whatever MLflow, its client or the network raise: the training goes on
                if not complained:
                    logger.warning("MLflow does not take the figures of this training: %s", error)
                complained = True

    def _send(self, time_ms: int, step: int, figures: Mapping[str, float]) -> None:
        for name, value in _LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        metrics = [Metric(name, value, time_ms, step) for name, value in figures.items()]
        MlflowClient(os.environ.get("MLFLOW_TRACKING_URI")).log_batch(self._run_id, metrics=metrics)
