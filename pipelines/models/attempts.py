"""The runs of trainings in an MLflow experiment: opened before the first step and completed once.

MLflow's client repeats requests whose answers were lost, so a run is found by a unique tag after it was created.
Trainings of one model name run one after another under the lock of their clone; a run that is still open when the next
one starts was left by a killed process.
"""

import time
from uuid import uuid4

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipelines.models.overview import experiment_tags
from pipelines.models.run import FINGERPRINT, REVISION, Training, log_beginning, log_result, tags_of
from pipelines.params import Params

_ATTEMPT = "maskloop.attempt"  # of a run: made once for each attempt to train
_LONGEST_REGISTRATION_S = 3600  # of runs without an attempt, which were opened when a training was done


class Attempts:
    """The runs of one experiment; all methods raise MlflowException when MLflow fails."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._name = client, experiment

    def experiment(self) -> str:
        """Return the experiment's id; creates the experiment, with the layout of its page, when there is none."""
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            try:
                self._client.create_experiment(self._name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = self._client.get_experiment_by_name(self._name)
            assert experiment is not None, f"MLflow created no experiment {self._name}"
        wanted = experiment_tags(int(time.time() * 1000))
        for name in wanted.keys() - experiment.tags.keys():
            self._client.set_experiment_tag(experiment.experiment_id, name, wanted[name])
        return str(experiment.experiment_id)

    def newest(self, count: int) -> list[Run]:
        """Return the newest `count` runs, the newest first."""
        newest_first = ["attributes.start_time DESC"]
        return list(self._client.search_runs([self.experiment()], max_results=count, order_by=newest_first))

    def begin(self, training: Training, params: Params) -> str:
        """Open the run of a training that is about to start, and return its id.

        When the folder holds the result of an earlier attempt that is not registered yet, that attempt's run is used
        again. Runs of killed attempts are marked KILLED.
        """
        experiment, fingerprint = self.experiment(), training.fingerprint if training.is_finished else ""
        for run in self._open():
            if run.data.tags.get(FINGERPRINT) == fingerprint:
                return str(run.info.run_id)
        self._end_killed(fingerprint)
        attempt = uuid4().hex
        tags = tags_of(training) | {_ATTEMPT: attempt}
        self._client.create_run(experiment, tags=tags, run_name=f"training on {training.dataset}")
        created, *duplicates = self._search(f"tags.`{_ATTEMPT}` = '{attempt}'")
        for duplicate in duplicates:  # a repeated request created it
            self._client.delete_run(duplicate.info.run_id)
        log_beginning(self._client, created.info.run_id, training, params)
        return str(created.info.run_id)

    def finished(self, training: Training) -> str | None:
        """Return the id of the run that holds a training's result; None when there is none yet."""
        runs = self._search(f"tags.`{FINGERPRINT}` = '{training.fingerprint}' and attributes.status = 'FINISHED'")
        return str(runs[-1].info.run_id) if runs else None

    def complete(self, training: Training, params: Params, photo: np.ndarray) -> str:
        """Log a training's result in the run that was opened for it, or in a new one, and return the run's id.

        An error marks the run FAILED, unless it is MLflow's own: then the run stays open and the next attempt continues
        it. `photo` is a (H, W, 3) uint8 RGB example.
        """
        opened = [run.info.run_id for run in self._open() if _belongs_to(run, training)]
        run_id = str(opened[-1]) if opened else self.begin(training, params)
        for name, value in (tags_of(training) | {FINGERPRINT: training.fingerprint}).items():
            self._client.set_tag(run_id, name, value)
        try:
            log_beginning(self._client, run_id, training, params)
            log_result(self._client, self._client.get_run(run_id), training, photo)
        except MlflowException:
            raise
        except Exception:  # whatever it is, the run must not look as if it went on; it is raised again
            self._client.set_terminated(run_id, "FAILED")
            raise
        return run_id

    def _open(self) -> list[Run]:
        """Return the runs that `begin` opened and that have not ended, oldest first."""
        return [run for run in self._search("attributes.status = 'RUNNING'") if _ATTEMPT in run.data.tags]

    def _end_killed(self, fingerprint: str) -> None:
        """Mark the runs whose process was killed."""
        long_ago = (time.time() - _LONGEST_REGISTRATION_S) * 1000
        for run in self._search("attributes.status = 'RUNNING'"):
            own = run.data.tags.get(FINGERPRINT)
            if _ATTEMPT in run.data.tags or (own and (own == fingerprint or run.info.start_time < long_ago)):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _search(self, criteria: str) -> list[Run]:
        """Return the runs that meet MLflow's search criteria, oldest first."""
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            return []
        return list(
            self._client.search_runs([experiment.experiment_id], criteria, order_by=["attributes.start_time ASC"])
        )


def _belongs_to(run: Run, training: Training) -> bool:
    tags = run.data.tags
    if FINGERPRINT in tags:
        return bool(tags[FINGERPRINT] == training.fingerprint)
    return bool(tags.get(REVISION) == training.revision)
