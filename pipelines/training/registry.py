"""Model versions in MLflow: registered once per fingerprint, compared with the champion, promoted by alias.

MLflow's client repeats requests whose answers were lost, so a run is searched by its fingerprint before and after it
is made.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from pipelines.errors import ModelError, ServiceError
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.settings import Settings
from pipelines.training.run import DATASET, FINGERPRINT, NETWORK, TrainedModel, log_run

logger = logging.getLogger(__name__)
CHAMPION = "champion"
_LONGEST_REGISTRATION_S = 3600  # a run is opened when a training is done, and filled within minutes
_PREVIOUS = "maskloop.previous"  # the champion that a version took over from


class Registry:
    """MLflow's tracking and registry of one server, for one model name."""

    def __init__(self, settings: Settings) -> None:
        self.name, self.url = settings.model_name, settings.url("mlflow")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default keeps people waiting for minutes
        mlflow.set_tracking_uri(self.url)
        self.client = MlflowClient(self.url)

    def champion(self) -> ModelVersion | None:
        """Give the version that the alias points to; None while there is none."""
        try:
            version = self.client.get_model_version_by_alias(self.name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise self._unreachable(error) from error
        return self._describe(version)

    def version_trained_on(self, dataset: str) -> ModelVersion | None:
        """Give the newest version that was trained on this dataset tag."""
        return next(reversed(self.versions_trained_on(dataset)), None)

    def versions_trained_on(self, dataset: str) -> list[ModelVersion]:
        """Give all versions that were trained on this dataset tag, oldest first."""
        return [self._describe(version) for version in self._search(f"tags.`{DATASET}` = '{dataset}'")]

    def versions(self) -> list[ModelVersion]:
        """Give all versions whose run is still there, oldest first."""
        return [described for version in self._search() if (described := self._described_if_kept(version))]

    def trained_datasets(self) -> set[str]:
        """Give the tags of all datasets that a version was trained on."""
        return {str(version.tags.get(DATASET, "")) for version in self._search()} - {""}

    def version(self, number: str) -> ModelVersion | None:
        """Give the version of this number; None when there is none."""
        try:
            return self._describe(self.client.get_model_version(self.name, number))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise self._unreachable(error) from error

    def register(self, trained: TrainedModel, params: Params, example: np.ndarray) -> ModelVersion:
        """Log a training as one run and register its model; gives the existing version when both were done before.

        `example` is a (1, H, W, 3) uint8 RGB photo.
        """
        fingerprint = trained.fingerprint
        if found := self._search(f"tags.`{FINGERPRINT}` = '{fingerprint}'"):
            return self._describe(found[0])
        try:
            run = self._finished_run(fingerprint)
            if run is None:
                self._end_broken_runs(fingerprint)
                run = log_run(self.client, self.name, trained, params, example)
            self._ensure_name()
            if not (found := self._search(f"tags.`{FINGERPRINT}` = '{fingerprint}'")):
                tags = {FINGERPRINT: fingerprint, DATASET: trained.dataset}
                self._create_version(run.info.run_id, tags)
                found = self._search(f"tags.`{FINGERPRINT}` = '{fingerprint}'")
        except MlflowException as error:
            raise self._unreachable(error) from error
        for double in found[1:]:  # a repeated request made it; the lowest number stays
            with self._explained():
                self.client.delete_model_version(self.name, str(double.version))
        return self._describe(found[0])

    def promote(self, version: ModelVersion, reason: str, table: str = "") -> None:
        """Point the alias at this version and note what it pointed at before, and why."""
        before = self.champion()
        if before and before.version == version.version:
            return
        number = str(version.version)
        with self._explained():
            if before:
                self.client.set_model_version_tag(self.name, number, _PREVIOUS, str(before.version))
            self.client.set_registered_model_alias(self.name, CHAMPION, number)
        self.note_decision(version, reason, table)  # last: a version without a decision is compared once more

    def roll_back(self) -> tuple[ModelVersion, ModelVersion]:
        """Point the alias at what was champion before; gives the version that left and the one that serves now.

        Doing it again goes back further. Raises ModelError when there is nothing to go back to.
        """
        leaving = self.champion()
        if leaving is None:
            raise ModelError(f"{self.name} has no champion yet, so there is nothing to roll back")
        with self._explained():
            tags = self.client.get_model_version(self.name, str(leaving.version)).tags
        before = self.version(tags[_PREVIOUS]) if _PREVIOUS in tags else None
        if before is None:
            raise ModelError(
                f"{leaving.served_as} is the first champion, or the one before it was deleted; "
                f"choose a version of {self.url} with `maskloop promote NUMBER`"
            )
        with self._explained():
            self.client.set_registered_model_alias(self.name, CHAMPION, str(before.version))
        self.note_decision(leaving, f"rolled back to {before.served_as} by hand; before: {leaving.reason}")
        return leaving, before

    def note_decision(self, version: ModelVersion, reason: str, table: str = "") -> None:
        """Write why a challenger became champion or did not; `table` is Markdown that MLflow shows with the version."""
        number = str(version.version)
        with self._explained():
            if table:
                self.client.log_text(version.run_id, table, "gate.md")
                self.client.update_model_version(self.name, number, table[:5000])
            self.client.set_model_version_tag(self.name, number, "maskloop.decision", reason[:4000])

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Fetch a version's network into `folder`; gives the folder that holds weights and card."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return Path(self.client.download_artifacts(version.run_id, NETWORK, str(folder)))
        except (MlflowException, OSError) as error:
            raise ModelError(f"cannot download {version.served_as} from {self.url}: {error}") from error

    def add_metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Add figures to a run."""
        now = int(time.time() * 1000)
        with self._explained():
            self.client.log_batch(run_id, [Metric(name, value, now, step) for name, value in values.items()])

    def log_file(self, run_id: str, path: Path) -> None:
        """Add a file to a run's artifacts, in place of one of the same name."""
        with self._explained():
            self.client.log_artifact(run_id, str(path))

    def _create_version(self, run_id: str, tags: dict[str, str]) -> None:
        outputs = self.client.get_run(run_id).outputs
        if not outputs or not outputs.model_outputs:
            raise ModelError(f"run {run_id} in {self.url} holds no model; delete the run and register again")
        model = outputs.model_outputs[0].model_id
        self.client.create_model_version(self.name, f"models:/{model}", run_id, tags=tags, model_id=model)

    def _finished_run(self, fingerprint: str) -> Run | None:
        runs = self._runs(fingerprint, "FINISHED")
        return runs[-1] if runs else None

    def _end_broken_runs(self, fingerprint: str) -> None:
        """Mark runs that nobody works on any more, because their process was killed: of this training, and old ones."""
        running = self._experiment_runs("attributes.status = 'RUNNING'")
        long_ago = (time.time() - _LONGEST_REGISTRATION_S) * 1000
        for run in running:
            of = run.data.tags.get(FINGERPRINT)
            if of == fingerprint or (of and run.info.start_time < long_ago):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _runs(self, fingerprint: str, status: str) -> list[Run]:
        return self._experiment_runs(f"tags.`{FINGERPRINT}` = '{fingerprint}' and attributes.status = '{status}'")

    def _experiment_runs(self, wanted: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.name)
        return list(self.client.search_runs([experiment.experiment_id], wanted)) if experiment else []

    def _ensure_name(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _search(self, wanted: str = "") -> list[Any]:
        try:
            found = self.client.search_model_versions(f"name = '{self.name}'" + (f" and {wanted}" if wanted else ""))
        except MlflowException as error:
            raise self._unreachable(error) from error
        return sorted(found, key=lambda version: int(version.version))

    def _described_if_kept(self, version: Any) -> ModelVersion | None:
        """Describe a version; None when somebody deleted its run."""
        try:
            run = self.client.get_run(version.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise self._unreachable(error) from error
            return None
        return self._described(version, run) if run.info.lifecycle_stage == "active" else None

    def _describe(self, version: Any) -> ModelVersion:
        with self._explained():
            return self._described(version, self.client.get_run(version.run_id))

    def _described(self, version: Any, run: Run) -> ModelVersion:
        return ModelVersion(
            name=self.name,
            version=int(version.version),
            run_id=version.run_id,
            dataset=version.tags.get(DATASET, ""),
            miou=float(run.data.metrics.get("test_miou", float("nan"))),
            reason=version.tags.get("maskloop.decision", ""),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: MlflowException) -> ServiceError:
        return ServiceError(
            f"MLflow at {self.url} does not do as asked: {error.message}; is it up (`maskloop status`), and is "
            "MASKLOOP_MLFLOW_URL right?"
        )
