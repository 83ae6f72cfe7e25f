"""The model versions in MLflow's registry: which exist, what each of them is, and its files."""

import json
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, ViewType
from mlflow.exceptions import MlflowException

from pipelines.contract import MLFLOW
from pipelines.models.reader import RegistryReader
from pipelines.models.run import DATASET, STARTED_FROM, STEPS_DONE
from pipelines.records import ModelVersion
from pipelines.settings import Settings

# Tags of a version. People's registries hold them, so their names never change.
DECISION, PAUSED, ENDED_BY = "maskloop.decision", "maskloop.paused", "maskloop.ended_by"
SPLIT_CONFIG, DETECTABLE = "maskloop.division", "maskloop.detectable_gain"
GATE_FILE = "gate.json"  # artifact of a run: what the gate compared
REMOVED = "maskloop.removed"  # tag of a run: the number of its version, whose files and entry were removed


class Versions:
    """The versions of one model name in one server's registry.

    All methods raise ServiceError when MLflow does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.name, self.url = settings.model_name, settings.url(MLFLOW)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # with the default people wait for minutes
        mlflow.set_tracking_uri(self.url)
        self._reader = RegistryReader(self.name, self.url)
        self.client: MlflowClient = self._reader.client

    def champion(self) -> ModelVersion | None:
        """Return the version that the alias points to; None while there is none."""
        champion = self._reader.champion()
        return self._describe(champion) if champion else None

    def version(self, number: str) -> ModelVersion | None:
        """Return the version of this number; None when there is none."""
        version = self._reader.version(number)
        return self._describe(version) if version else None

    def newest(self) -> ModelVersion | None:
        """Return the newest version whose run was not deleted; None when there is none."""
        newest_first = (self._described_unless_deleted(version) for version in reversed(self._search()))
        return next((version for version in newest_first if version), None)

    def versions(self) -> list[ModelVersion]:
        """Return all versions whose run was not deleted, oldest first."""
        return [described for version in self._search() if (described := self._described_unless_deleted(version))]

    def version_trained_on(self, dataset: str) -> ModelVersion | None:
        """Return the newest version that was trained on this dataset tag."""
        return next(reversed(self.versions_trained_on(dataset)), None)

    def versions_trained_on(self, dataset: str) -> list[ModelVersion]:
        """Return all versions that were trained on this dataset tag, oldest first."""
        return [self._describe(version) for version in self._search(f"tags.`{DATASET}` = '{dataset}'")]

    def trained_datasets(self) -> set[str]:
        """Return the tags of all datasets that a version was trained on."""
        return {str(version.tags.get(DATASET, "")) for version in self._search()} - {""}

    def ancestors(self, version: ModelVersion) -> tuple[list[ModelVersion], str]:
        """Return the version whose weights a training started from, the one that this started from, and so on.

        The second value names a deleted version, whose own ancestors are not known; it is empty when all exist.
        """
        ancestors: list[ModelVersion] = []
        before = self._started_from(version)
        while before:
            name, _, number = before.rpartition(":v")
            earlier = self.version(number) if name == self.name else None
            if earlier is None:
                return ancestors, before
            ancestors.append(earlier)
            before = self._started_from(earlier)
        return ancestors, ""

    def looks_at(self, families: Collection[str], *, before: ModelVersion | None = None) -> int:
        """Count the versions whose gate compared them with a champion on at least half of these families' test photos.

        These are the interim analyses ("looks") of one test set. With `before`, only earlier versions count. Versions
        that `maskloop gc` removed count as well.
        """
        today, looks = set(families), 0
        for number, run_id in sorted(
            {**self._removed_runs(), **{v.version: v.run_id for v in self.versions()}}.items()
        ):
            if before and number >= before.version:
                break
            gate = json.loads(self._text(run_id, GATE_FILE) or "{}")
            shared = today & set(gate.get("test_families", ())) if gate.get("compared") else set()
            looks += bool(shared) and 2 * len(shared) >= len(today)
        return looks

    def _removed_runs(self) -> dict[int, str]:
        """Return the runs of removed versions by their numbers."""
        with self._reader.explained():
            experiment = self.client.get_experiment_by_name(self.name)
            if experiment is None:
                return {}
            runs = self.client.search_runs(
                [experiment.experiment_id], f"tags.`{REMOVED}` != ''", run_view_type=ViewType.ALL
            )
        return {int(run.data.tags[REMOVED]): str(run.info.run_id) for run in runs}

    def detectable_gain(self, split_config: str | None = None) -> float | None:
        """Return the gain of mIoU, 0..1, that the gate could detect when it last decided; None when that is not known.

        With the hash of a `split_config` (the manifest's `division`), a decision under another one does not count.
        """
        decided = [version for version in self._search() if version.tags.get(DETECTABLE)]
        if not decided or (split_config is not None and decided[-1].tags.get(SPLIT_CONFIG) != split_config):
            return None
        return float(decided[-1].tags[DETECTABLE])

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Download a version's network into `folder`; returns the folder below it that holds weights and card.

        Raises ModelError when the files cannot be had.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return self._reader.download_network(version.version, version.run_id, folder)

    def file(self, version: ModelVersion, name: str) -> str:
        """Return the text of an artifact of a version's run; empty when it has no such artifact."""
        return self._text(version.run_id, name)

    def add_metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Add metrics to a run."""
        now = int(time.time() * 1000)
        with self._reader.explained():
            self.client.log_batch(run_id, [Metric(name, value, now, step) for name, value in values.items()])

    def log_file(self, run_id: str, path: Path) -> None:
        """Add a file to a run's artifacts; it replaces one of the same name."""
        with self._reader.explained():
            self.client.log_artifact(run_id, str(path))

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._reader.explained():
            for name, value in tags.items():
                self.client.set_model_version_tag(self.name, str(version.version), name, value)

    def _started_from(self, version: ModelVersion) -> str:
        with self._reader.explained():
            return str(self.client.get_model_version(self.name, str(version.version)).tags.get(STARTED_FROM, ""))

    def _text(self, run_id: str, name: str) -> str:
        with self._reader.explained():
            if name not in [file.path for file in self.client.list_artifacts(run_id)]:
                return ""
            with tempfile.TemporaryDirectory() as scratch:
                return Path(self.client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")

    def _search(self, criteria: str = "") -> list[Any]:
        """Return MLflow's versions that meet its search criteria, oldest first."""
        condition = f"name = '{self.name}'" + (f" and {criteria}" if criteria else "")
        with self._reader.explained():
            return sorted(self.client.search_model_versions(condition), key=lambda version: int(version.version))

    def _described_unless_deleted(self, version: Any) -> ModelVersion | None:
        """Describe a version; None when somebody deleted its run."""
        with self._reader.explained():
            try:
                run = self.client.get_run(version.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return self._described(version, run) if run.info.lifecycle_stage == "active" else None

    def _describe(self, version: Any) -> ModelVersion:
        with self._reader.explained():
            return self._described(version, self.client.get_run(version.run_id))

    def _described(self, version: Any, run: Run) -> ModelVersion:
        done, _, planned = version.tags.get(STEPS_DONE, "").partition("/")
        return ModelVersion(
            name=self.name,
            version=int(version.version),
            run_id=version.run_id,
            dataset=version.tags.get(DATASET, ""),
            miou=float(run.data.metrics.get("test_miou", float("nan"))),
            reason=version.tags.get(DECISION, ""),
            done_steps=int(done or 0),
            planned_steps=int(planned or 0),
            ended_by=version.tags.get(ENDED_BY, ""),
            paused=version.tags.get(PAUSED, ""),
        )
