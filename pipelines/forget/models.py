"""Which models knew a photo or a person, and which files of their runs show them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.dataset.published import Published
from pipelines.forget.content import LARGEST, names_subject
from pipelines.forget.subjects import Subjects
from pipelines.forget.traces import Trace
from pipelines.models.reader import RegistryReader

if TYPE_CHECKING:
    from mlflow.entities import FileInfo

    from pipelines.models.registry import Registry

_TEXTS = (".json", ".csv", ".md", ".html", ".txt", ".yaml", ".yml", ".parquet")
_EXAMPLES = ("input_example.json", "serving_input_example.json")
_REASON = "files of runs are changed with --published only"


@dataclass(frozen=True)
class Acquainted:
    """A model version whose dataset held a photo: in which splits, and the alias that points to it, if any."""

    served_as: str
    run_id: str
    dataset: str
    splits: tuple[str, ...]
    alias: str = ""

    def __str__(self) -> str:
        """Return one line, with what to do."""
        alias = f", {self.alias}" if self.alias else ""
        learned = "learned from it" if "train" in self.splits else "was judged by it"
        return (
            f"{self.served_as}{alias} (run {self.run_id}) {learned}: {', '.join(self.splits)} of {self.dataset}; run "
            "`maskloop sync` and `maskloop retrain`, then archive this version"
        )


def acquainted_models(published: Published, registry: "Registry", subjects: Subjects) -> list[Acquainted]:
    """Return the model versions whose dataset held one of the photos.

    This must be asked before versions are rewritten: afterwards nothing says any more what they held.
    """
    champion = registry.champion()
    models = []
    for tag in published.tags():
        manifest = published.manifest(tag)
        splits = tuple(sorted(set(manifest.loc[manifest["sha256"].isin(subjects.hashes), "split"])))
        for version in registry.versions_trained_on(tag) if splits else ():
            alias = "champion" if champion and champion.version == version.version else ""
            models.append(Acquainted(version.served_as, version.run_id, tag, splits, alias))
    return models


def runs_with_example(published: Published, registry: "Registry", subjects: Subjects) -> tuple[str, ...]:
    """Return the runs whose model carries a photo, reduced, as its example: the first test photo of its dataset.

    This must be asked before versions are rewritten as well.
    """
    runs: set[str] = set()
    for tag in published.tags():
        manifest = published.manifest(tag)
        tested = sorted(manifest.loc[manifest["split"] == "test", "sha256"])
        if tested and tested[0] in subjects.hashes:
            runs |= {version.run_id for version in registry.versions_trained_on(tag)}
    return tuple(sorted(runs))


class ModelsStore:
    """Files of MLflow's runs and logged models: pictures of the photos, and texts that name them."""

    name = "MLflow"

    def __init__(self, registry: "Registry", subjects: Subjects) -> None:
        self._registry, self._subjects = registry, subjects

    def traces(self) -> Iterator[Trace]:
        """Yield the files of runs and of logged models that name the photos or people, or show a photo."""
        shown = set(self._subjects.example_runs)
        with RegistryReader(self._registry.name, self._registry.url).explained():
            for run in _all_runs(self._registry):
                yield from self._files(run.info.artifact_uri, f"run {run.info.run_id}", examples=False)
                for output in run.outputs.model_outputs if run.outputs else ():
                    model = self._registry.client.get_logged_model(output.model_id)
                    is_shown = run.info.run_id in shown
                    place = f"model {model.model_id} of run {run.info.run_id}"
                    yield from self._files(model.artifact_location, place, examples=is_shown)

    def _files(self, location: str, place: str, *, examples: bool) -> Iterator[Trace]:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(location)
        for file in _walk(repository):
            name = file.path.rpartition("/")[2]
            size = int(file.file_size or 0)
            if self._subjects.name_pattern.search(name):
                yield self._trace("picture", place, file, partial(repository.delete_artifacts, file.path))
            elif examples and name in _EXAMPLES:
                yield self._trace("reduced example photo", place, file, partial(repository.delete_artifacts, file.path))
            elif name.endswith(_TEXTS) and size <= LARGEST:
                data = _download(repository, file.path)
                if names_subject(data, self._subjects.pattern):
                    if name.endswith((".html", ".parquet")):  # pages hold the pictures themselves
                        remove = partial(repository.delete_artifacts, file.path)
                    else:
                        remove = partial(self._rewrite, repository, file.path, data)
                    yield self._trace("text", place, file, remove)

    def _trace(self, what: str, place: str, file: "FileInfo", remove: Any) -> Trace:
        size, name = int(file.file_size or 0), f"{file.path} of {place}"
        if self._subjects.published:
            return Trace(self.name, what, name, size, remove)
        return Trace(self.name, what, name, size, None, _REASON)

    def _rewrite(self, repository: Any, path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_text(self._subjects.redacted(data.decode()), encoding="utf-8")
            repository.log_artifact(str(file), folder or None)


def _all_runs(registry: "Registry") -> Iterator[Any]:
    from mlflow.entities import ViewType

    experiments = [experiment.experiment_id for experiment in registry.client.search_experiments(ViewType.ALL)]
    token = None
    while True:
        page = registry.client.search_runs(experiments, run_view_type=ViewType.ALL, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _walk(repository: Any, folder: str | None = None) -> Iterator["FileInfo"]:
    for file in repository.list_artifacts(folder):
        if file.is_dir:
            yield from _walk(repository, file.path)
        else:
            yield file


def _download(repository: Any, path: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        return Path(repository.download_artifacts(path, scratch)).read_bytes()
