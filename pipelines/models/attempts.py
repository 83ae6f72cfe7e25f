"""Runs of trainings in an experiment of MLflow: opened before the first step, completed once, ended when killed.

MLflow's client repeats requests whose answers were lost, so a run is searched by a tag of its own after it is made.
Trainings of one model name follow each other under the lock of the clone that they run in; a run that is still open
when the next one begins was left by a killed process.
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
_LONGEST_REGISTRATION_S = 3600  # of runs that have no attempt: those were opened when a training was done


class Attempts:
    """The runs of one experiment; raises MlflowException when MLflow fails."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._name = client, experiment

    def experiment(self) -> str:
        """Return the experiment's id; it is made when there is none, with what its page looks like."""
        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            try:
                self._client.create_experiment(self._name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(self._name)
            assert found is not None, f"MLflow made no experiment {self._name}"
        wanted = experiment_tags(int(time.time() * 1000))
        for name in wanted.keys() - found.tags.keys():
            self._client.set_experiment_tag(found.experiment_id, name, wanted[name])
        return str(found.experiment_id)

    def newest(self, count: int) -> list[Run]:
        """Return the runs that began last, the newest first."""
        newest_first = ["attributes.start_time DESC"]
        return list(self._client.search_runs([self.experiment()], max_results=count, order_by=newest_first))

    def begin(self, training: Training, params: Params) -> str:
        """Open the run of a training that is about to begin, and return its id.

        When the folder holds the result of an earlier attempt that is not registered yet, its run is taken up. Runs of
        attempts that were killed are marked so.
        """
        experiment, fingerprint = self.experiment(), training.fingerprint if training.is_finished else ""
        for run in self._open():
            if run.data.tags.get(FINGERPRINT) == fingerprint:
                return str(run.info.run_id)
        self._end_broken(fingerprint)
        attempt = uuid4().hex
        tags = tags_of(training) | {_ATTEMPT: attempt}
        self._client.create_run(experiment, tags=tags, run_name=f"training on {training.dataset}")
        made, *doubles = self._search(f"tags.`{_ATTEMPT}` = '{attempt}'")
        for double in doubles:
            self._client.delete_run(double.info.run_id)
        log_beginning(self._client, made.info.run_id, training, params)
        return str(made.info.run_id)

    def finished(self, training: Training) -> str | None:
        """Return the run that holds a training's result; None when there is none yet."""
        runs = self._search(f"tags.`{FINGERPRINT}` = '{training.fingerprint}' and attributes.status = 'FINISHED'")
        return str(runs[-1].info.run_id) if runs else None

    def complete(self, training: Training, params: Params, photo: np.ndarray) -> str:
        """Log a training's result in the run that it began with, or in a new one; return the run's id.

        An error marks the run FAILED, except of MLflow itself: then it stays open, and the next attempt goes on with
        it. `photo` is a (H, W, 3) uint8 RGB example.
        """
        begun = [run.info.run_id for run in self._open() if _belongs_to(run, training)]
        run_id = str(begun[-1]) if begun else self.begin(training, params)
        for name, value in (tags_of(training) | {FINGERPRINT: training.fingerprint}).items():
            self._client.set_tag(run_id, name, value)
        try:
            log_beginning(self._client, run_id, training, params)
            log_result(self._client, self._client.get_run(run_id), training, photo)
        except MlflowException:
            raise
        except Exception:
            self._client.set_terminated(run_id, "FAILED")
            raise
        return run_id

    def _open(self) -> list[Run]:
        """Return the runs that `begin` opened and nobody ended, oldest first."""
        return [run for run in self._search("attributes.status = 'RUNNING'") if _ATTEMPT in run.data.tags]

    def _end_broken(self, fingerprint: str) -> None:
        """Mark runs that nobody works on any more, because their process was killed."""
        long_ago = (time.time() - _LONGEST_REGISTRATION_S) * 1000
        for run in self._search("attributes.status = 'RUNNING'"):
            of = run.data.tags.get(FINGERPRINT)
            if _ATTEMPT in run.data.tags or (of and (of == fingerprint or run.info.start_time < long_ago)):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _search(self, wanted: str) -> list[Run]:
        """Return the runs that a search finds, oldest first."""
        experiment = self._client.get_experiment_by_name(self._name)
        oldest_first = ["attributes.start_time ASC"]
        return (
            list(self._client.search_runs([experiment.experiment_id], wanted, order_by=oldest_first))
            if experiment
            else []
        )


def _belongs_to(run: Run, training: Training) -> bool:
    tags = run.data.tags
    if FINGERPRINT in tags:
        return bool(tags[FINGERPRINT] == training.fingerprint)
    return bool(tags.get(REVISION) == training.revision)
