"""Model versions as MLflow's registry holds them: which there are, what each is, and its files."""

import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from pipelines.contract import MLFLOW
from pipelines.errors import ModelError, ServiceError
from pipelines.models.run import DATASET, NETWORK, STARTED_FROM, STEPS_DONE
from pipelines.records import ModelVersion
from pipelines.settings import Settings

CHAMPION = "champion"
# Tags of a version.
DECISION, PAUSED, ENDED_BY = "maskloop.decision", "maskloop.paused", "maskloop.ended_by"
DIVISION, DETECTABLE = "maskloop.division", "maskloop.detectable_gain"
GATE_FILE = "gate.json"  # of a run: what the gate looked at
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Versions:
    """The versions of one model name in one server's registry."""

    def __init__(self, settings: Settings) -> None:
        self.name, self.url = settings.model_name, settings.url(MLFLOW)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default keeps people waiting for minutes
        mlflow.set_tracking_uri(self.url)
        self.client = MlflowClient(self.url)

    def champion(self) -> ModelVersion | None:
        """Return the version that the alias points to; None while there is none."""
        try:
            version = self.client.get_model_version_by_alias(self.name, CHAMPION)
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise self._unreachable(error) from error
        return self._describe(version)

    def version(self, number: str) -> ModelVersion | None:
        """Return the version of this number; None when there is none."""
        try:
            return self._describe(self.client.get_model_version(self.name, number))
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise self._unreachable(error) from error

    def newest(self) -> ModelVersion | None:
        """Return the version that was registered last and whose run is still there; None when there is none."""
        found = (self._described_if_kept(version) for version in reversed(self._search()))
        return next((version for version in found if version), None)

    def versions(self) -> list[ModelVersion]:
        """Return all versions whose run is still there, oldest first."""
        return [described for version in self._search() if (described := self._described_if_kept(version))]

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
        """Return the version whose weights a training started from, the one that it started from, and so on.

        With them comes the name of one that is gone, behind which the others are not known; empty when all are there.
        """
        found: list[ModelVersion] = []
        before = self._started_from(version)
        while before:
            name, _, number = before.rpartition(":v")
            earlier = self.version(number) if name == self.name else None
            if earlier is None:
                return found, before
            found.append(earlier)
            before = self._started_from(earlier)
        return found, ""

    def looks_at(self, families: Collection[str], *, before: ModelVersion | None = None) -> int:
        """Count the earlier versions whose gate compared them with a champion on mostly these families of test photos.

        Mostly: on half of them at least. With `before`, versions from that one on do not count.
        """
        today, looks = set(families), 0
        for version in self.versions():
            if before and version.version >= before.version:
                break
            gate = json.loads(self.file(version, GATE_FILE) or "{}")
            looked = today & set(gate.get("test_families", ())) if gate.get("compared") else set()
            looks += bool(looked) and 2 * len(looked) >= len(today)
        return looks

    def detectable_gain(self, division: str | None = None) -> float | None:
        """Return the gain of mIoU that the gate could detect when it decided last, 0..1; None when that is not known.

        With a `division` of photos (`manifest`), what was decided under another one is not known either.
        """
        decided = [version for version in self._search() if version.tags.get(DETECTABLE)]
        if not decided or (division is not None and decided[-1].tags.get(DIVISION) != division):
            return None
        return float(decided[-1].tags[DETECTABLE])

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Fetch a version's network into `folder`; gives the folder that holds weights and card."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return Path(self.client.download_artifacts(version.run_id, NETWORK, str(folder)))
        except (MlflowException, OSError) as error:
            raise ModelError(f"cannot download {version.served_as} from {self.url}: {error}") from error

    def file(self, version: ModelVersion, name: str) -> str:
        """Return the text of an artifact of a version's run; empty when there is none."""
        return self._text(version.run_id, name)

    def add_metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Add figures to a run."""
        now = int(time.time() * 1000)
        with self._explained():
            self.client.log_batch(run_id, [Metric(name, value, now, step) for name, value in values.items()])

    def log_file(self, run_id: str, path: Path) -> None:
        """Add a file to a run's artifacts, in place of one of the same name."""
        with self._explained():
            self.client.log_artifact(run_id, str(path))

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._explained():
            for name, value in tags.items():
                self.client.set_model_version_tag(self.name, str(version.version), name, value)

    def _started_from(self, version: ModelVersion) -> str:
        with self._explained():
            return str(self.client.get_model_version(self.name, str(version.version)).tags.get(STARTED_FROM, ""))

    def _text(self, run_id: str, name: str) -> str:
        with self._explained():
            if name not in [file.path for file in self.client.list_artifacts(run_id)]:
                return ""
            with tempfile.TemporaryDirectory() as scratch:
                return Path(self.client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")

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
