"""Model versions that go: their files, their entry in the registry, and their run.

What stays of a removed version is small: its run, marked as deleted, with its metrics and what the gate compared. The
gate counts that comparison as before (`Versions.looks_at`), as its error rate depends on how often a test split was
used. A run is tagged before anything is removed, so that a removal that was killed is completed by the next one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.errors import ServiceError
from pipelines.models.reader import RegistryReader
from pipelines.retention.plan import MLFLOW, Plan, first_of
from pipelines.retention.rule import Choice, Item, Rule, choose, describe

if TYPE_CHECKING:
    from mlflow.entities import FileInfo, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)
Users = Callable[[], Mapping[str, str]]


class Models:
    """The kind "models".

    `shown` returns, by the name that predictions carry (`clothing:v3`), why people still see or compare what a version
    predicted: tasks with its predictions, and the report on the newest dataset.
    """

    name = "models"

    def __init__(self, registry: "Registry", rule: Rule, shown: Users, now: datetime) -> None:
        self._registry, self._rule, self._shown, self._now = registry, rule, shown, now
        self._reader = RegistryReader(registry.name, registry.url)
        self._choice: Choice | None = None

    def choice(self) -> Choice:
        """Return which versions stay and go; uses are looked up only when the rule would let some go."""
        if self._choice is None:
            entries = self._entries()
            items = [Item(name, _date(entry.creation_timestamp)) for name, entry in entries.items()]
            choice = choose(items, self._rule, {}, self._now)
            if choice.go:
                in_use = {**self._shown(), **self._in_use(entries)}
                choice = choose(items, self._rule, in_use, self._now)
                while ancestors := self._ancestors(choice, entries):  # of those that stay now
                    in_use |= ancestors
                    choice = choose(items, self._rule, in_use, self._now)
            self._choice = choice
        return self._choice

    def plan(self) -> Plan:
        """Return which versions go, and the bytes of their files.

        Raise ServiceError when MLflow or Label Studio does not answer.
        """
        choice, entries = self.choice(), self._entries()
        runs = {name: entries[name].run_id for name in choice.go}
        interrupted = self._interrupted()
        with self._reader.explained():
            freed = sum(self._size(run_id) for run_id in {*runs.values(), *interrupted.values()})
        left = tuple(sorted(interrupted.keys() - runs.keys()))
        lost = {name: self._describe(entries[name]) for name in choice.go}
        return Plan(
            self.name, describe(self._rule), len(choice.stay), lost, {MLFLOW: freed}, choice.spared, interrupted=left
        )

    def remove(self, shown: Plan) -> Plan:
        """Remove the versions that were shown, unless something uses them by now; a failure stops no other version."""
        self._choice = None
        choice, entries = self.choice(), self._entries()
        runs = {name: entries[name].run_id for name in choice.go if name in shown.go}
        freed, problems = 0, {}
        for name, run_id in {**self._interrupted(), **runs}.items():
            try:
                with self._reader.explained():
                    freed += self._remove(name, run_id, entries.get(name))
            except (ServiceError, OSError) as error:
                problems[name] = str(error)
        self._choice = None
        stay = len(entries) - len(runs)
        lost = {name: shown.go[name] for name in runs if name not in problems}
        return replace(
            shown, stay=stay, go=lost, freed={MLFLOW: freed}, spared=choice.spared,
            problem=first_of(problems, "model versions"),
        )  # fmt: skip

    def planned_datasets(self) -> dict[str, str]:
        """Return, by dataset version, the model that was trained on it and stays, or the training that is at work."""
        return self._datasets(self.choice().stay)

    def datasets(self) -> dict[str, str]:
        """Return what `planned_datasets` does for all models that there are now."""
        return self._datasets(tuple(self._entries()))

    def _datasets(self, names: tuple[str, ...]) -> dict[str, str]:
        from pipelines.models.run import DATASET

        entries = self._entries()
        trained = {
            str(tag): f"{name} was trained on it"
            for name in names if name in entries and (tag := entries[name].tags.get(DATASET))
        }  # fmt: skip
        with self._reader.explained():
            experiment = self._reader.client.get_experiment_by_name(self._registry.name)
            running = (
                self._reader.client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
                if experiment else []
            )  # fmt: skip
        tags = filter(None, (run.data.tags.get(DATASET) for run in running))
        return {str(tag): "a training on it is at work" for tag in tags} | trained

    def _entries(self) -> dict[str, Any]:
        """Return the registry's versions, oldest first, by the names that predictions carry."""
        with self._reader.explained():
            versions = self._reader.client.search_model_versions(f"name = '{self._registry.name}'")
        ordered = sorted(versions, key=lambda entry: int(entry.version))
        return {f"{self._registry.name}:v{entry.version}": entry for entry in ordered}

    def _in_use(self, entries: Mapping[str, Any]) -> dict[str, str]:
        """Return why versions must stay that the registry or the gate needs."""
        from pipelines.models.versions import DECISION, DETECTABLE

        reasons = {
            name: "the gate has not judged it yet" for name, entry in entries.items() if not entry.tags.get(DECISION)
        }
        decided = [name for name, entry in entries.items() if entry.tags.get(DETECTABLE)]
        if decided:
            reasons[decided[-1]] = "the gain that the gate can detect is noted with it"
        if before := self._registry.version_before():
            reasons[before.served_as] = "a rollback makes it champion again"
        with self._reader.explained():
            model = self._reader.client.get_registered_model(self._registry.name)
        aliased = {f"{self._registry.name}:v{number}": alias for alias, number in model.aliases.items()}
        return reasons | {name: f"it is {alias}" for name, alias in aliased.items()}

    def _ancestors(self, choice: Choice, entries: Mapping[str, Any]) -> dict[str, str]:
        """Return the versions that would go although one that stays started from their weights."""
        from pipelines.models.run import STARTED_FROM

        started = {str(entries[name].tags.get(STARTED_FROM)): name for name in choice.stay}
        return {name: f"{started[name]} started from its weights" for name in choice.go if name in started}

    def _describe(self, entry: Any) -> str:
        from pipelines.models.run import DATASET

        return f"trained on {entry.tags.get(DATASET, 'an unknown dataset')}; its metrics stay in run {entry.run_id}"

    def _interrupted(self) -> dict[str, str]:
        """Return the runs, by version, whose removal was interrupted after their entry in the registry was gone."""
        from pipelines.models.versions import REMOVED

        entries = self._entries()
        with self._reader.explained():
            experiment = self._reader.client.get_experiment_by_name(self._registry.name)
            if experiment is None:
                return {}
            runs = self._reader.client.search_runs([experiment.experiment_id], f"tags.`{REMOVED}` != ''")
        named = {f"{self._registry.name}:v{run.data.tags[REMOVED]}": str(run.info.run_id) for run in runs}
        return {name: run_id for name, run_id in named.items() if name not in entries}

    def _remove(self, name: str, run_id: str, entry: Any) -> int:
        """Remove a version; return the bytes of its files."""
        from pipelines.models.versions import REMOVED

        client = self._reader.client
        run = self._run(run_id)
        active = run is not None and run.info.lifecycle_stage == "active"
        if active:
            client.set_tag(run_id, REMOVED, name.rpartition(":v")[2])
        if entry is not None:
            client.delete_model_version(self._registry.name, str(entry.version))
        if run is None:
            return 0
        freed = 0
        for repository, path, size in self._large(run):
            repository.delete_artifacts(path)
            freed += size
        for model in _models_of(run):
            if self._logged_model(model) is not None:
                client.delete_logged_model(model)
        if active:
            client.delete_run(run_id)
        logger.info("%s is removed; its run %s stays, marked as deleted", name, run_id)
        return freed

    def _size(self, run_id: str) -> int:
        run = self._run(run_id)
        if run is None:
            return 0
        return sum(size for _, _, size in self._large(run))

    def _large(self, run: "Run") -> Iterator[tuple["ArtifactRepository", str, int]]:
        """Yield the files and folders that go with a run, and their bytes: all but what the gate compared."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        from pipelines.models.versions import GATE_FILE

        logged = [model for name in _models_of(run) if (model := self._logged_model(name)) is not None]
        for uri in [run.info.artifact_uri, *(model.artifact_location for model in logged)]:
            repository = get_artifact_repository(uri, tracking_uri=self._registry.url)
            for file in repository.list_artifacts():
                if file.path != GATE_FILE:
                    yield repository, file.path, _bytes(repository, file)

    def _run(self, run_id: str) -> "Run | None":
        return self._existing(lambda: self._reader.client.get_run(run_id))

    def _logged_model(self, model: str) -> Any:
        return self._existing(lambda: self._reader.client.get_logged_model(model))

    @staticmethod
    def _existing(ask: Callable[[], Any]) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return ask()
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None


def _models_of(run: "Run") -> list[str]:
    return [output.model_id for output in (run.outputs.model_outputs if run.outputs else ())]


def _bytes(repository: "ArtifactRepository", file: "FileInfo") -> int:
    """Return the bytes of a file, or of all files of a folder."""
    if not file.is_dir:
        return int(file.file_size or 0)
    return sum(_bytes(repository, entry) for entry in repository.list_artifacts(file.path))


def _date(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
