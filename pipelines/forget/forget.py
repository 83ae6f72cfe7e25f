"""Remove photos and people from every store, in an order that a kill at any point leaves safe to run again.

First the list of what is to be removed is written, here and for ingest and sync, so that nothing comes back. Then each
store is searched and emptied. In the end all are searched again, and whatever is left is named.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.cloud.storage import Client

from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import MaskloopError
from pipelines.forget.buckets import SourceBucket, TargetBucket
from pipelines.forget.find import with_aliases
from pipelines.forget.ledger import Forgotten, change_forgotten
from pipelines.forget.local import LocalFiles
from pipelines.forget.models import ModelsStore, acquainted_models, runs_with_example
from pipelines.forget.objects import ObjectsStore
from pipelines.forget.studio import LabelStudioStore
from pipelines.forget.subjects import PENDING, Subjects
from pipelines.forget.traces import Store, Trace
from pipelines.forget.versions import VersionsStore, WorkspaceStore
from pipelines.fs import held
from pipelines.gcs.generations import soft_delete_period
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)
_ROUNDS = 3  # of search and removal: what a rewritten version no longer needs can be removed only then


@dataclass(frozen=True)
class Stores:
    """The stores with their clients, for one search after the other of the same subjects.

    `registry` is made only when it is asked, because MLflow may be down. `known` caches what objects of DVC hold.
    """

    bucket: Client
    labels: LabelStudioClient
    settings: Settings
    params: Params
    registry: "Callable[[], Registry]"
    known: dict[str, bool] = field(default_factory=dict)

    @property
    def workspace(self) -> Workspace:
        """Return the workspace of the settings."""
        return Workspace(self.settings.workspace_path, self.settings)

    def of(self, subjects: Subjects) -> list[Store]:
        """Return the stores in the order in which they are emptied: what makes tasks and datasets comes first."""
        return [
            LabelStudioStore(self.labels, self.settings, subjects),
            SourceBucket(self.bucket, self.settings, self.params, subjects),
            TargetBucket(self.bucket, self.settings, subjects),
            WorkspaceStore(self.workspace, self.bucket, subjects, self.known),
            VersionsStore(self.workspace, self.bucket, subjects, self.known),
            ObjectsStore(self.workspace, self.bucket, subjects, self.known),
            _Models(self.registry, subjects),
            LocalFiles(self.settings, subjects),
        ]


class _Models:
    """MLflow, asked only when it is searched."""

    name = ModelsStore.name

    def __init__(self, registry: "Callable[[], Registry]", subjects: Subjects) -> None:
        self._registry, self._subjects = registry, subjects

    def traces(self) -> Iterator[Trace]:
        """Yield what MLflow holds."""
        return ModelsStore(self._registry(), self._subjects).traces()


@dataclass(frozen=True)
class Search:
    """What all stores hold, and a message for each store that could not be searched."""

    traces: tuple[Trace, ...]
    problems: tuple[str, ...] = ()

    @property
    def removable(self) -> tuple[Trace, ...]:
        """Return what can be removed."""
        return tuple(trace for trace in self.traces if trace.remove)


@dataclass(frozen=True)
class Result:
    """What is left, what could not be done, and until when buckets keep what was deleted."""

    left: tuple[Trace, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Return whether everything that can be removed was, and every store was searched."""
        return not self.problems and not any(trace.remove for trace in self.left)


def search(stores: Stores, subjects: Subjects) -> Search:
    """Search every store; nothing is changed. A store that cannot be searched is a problem and stops no other one."""
    traces: list[Trace] = []
    problems = []
    for store in stores.of(subjects):
        of_store, problem = _search(store)
        traces += of_store
        problems += problem
    return Search(tuple(traces), tuple(problems))


def acquainted(stores: Stores, subjects: Subjects) -> Subjects:
    """Return the subjects with the versions that hold them and the models that knew them, as both are now.

    Raise ServiceError when MLflow does not answer, unless there is no photo that a version holds.
    """
    published = Published(stores.workspace)
    tags = tuple(VersionsStore(stores.workspace, stores.bucket, subjects, stores.known).tags())
    holds_photo = subjects.hashes and any(
        subjects.hashes & set(published.manifest(tag)["sha256"]) for tag in published.tags()
    )
    if not holds_photo:
        return replace(subjects, tags=tuple(sorted({*subjects.tags, *tags})))
    registry = stores.registry()
    models = [str(model) for model in acquainted_models(published, registry, subjects)]
    examples = runs_with_example(published, registry, subjects)
    return replace(
        subjects, tags=tuple(sorted({*subjects.tags, *tags})), models=tuple(dict.fromkeys([*subjects.models, *models])),
        example_runs=tuple(sorted({*subjects.example_runs, *examples})),
    )  # fmt: skip


def forget(stores: Stores, subjects: Subjects) -> Result:
    """Remove subjects from all stores, and return what is left after all were searched again.

    One place's failure stops nothing else. After a kill, or a failure, the same call removes what is left.
    """
    settings = stores.settings
    subjects = with_aliases(subjects, change_forgotten(stores.bucket, settings.target_bucket, _added(subjects)))
    subjects.write(settings.var / PENDING)
    problems: list[str] = []
    with ExitStack() as stack:
        for lock in ("ingest.lock", "prelabel.lock"):  # the writers of tasks and predictions
            stack.enter_context(held(settings.var / lock))
        for _ in range(_ROUNDS):
            problems = _empty(stores, subjects)
            if subjects.published:
                problems += _try(
                    VersionsStore(stores.workspace, stores.bucket, subjects, stores.known).push, "push of git tags"
                )
            left = search(stores, subjects)
            if problems or not left.removable:
                break
    result = Result(left.traces, tuple(dict.fromkeys([*problems, *left.problems])), _remarks(stores))
    if result.is_done:
        (settings.var / PENDING).unlink(missing_ok=True)
    return result


def allow_again(bucket: Client, settings: Settings, sha256: str) -> bool:
    """Let a forgotten photo become a task again; return whether it was on the list."""
    before: list[Forgotten] = []

    def change(forgotten: Forgotten) -> Forgotten:
        before[:] = [forgotten]
        return forgotten.without_photo(sha256)

    change_forgotten(bucket, settings.target_bucket, change)
    return sha256 in before[0]


def _added(subjects: Subjects) -> Callable[[Forgotten], Forgotten]:
    def change(forgotten: Forgotten) -> Forgotten:
        forgotten = forgotten.with_photos(subjects.hashes)
        for person in subjects.people:
            known = forgotten.pseudonym(person.email)
            pseudonym = person.pseudonym if known == person.email else known
            forgotten = forgotten.with_person(person.email, person.user, pseudonym)
        return forgotten

    return change


def _empty(stores: Stores, subjects: Subjects) -> list[str]:
    """Search and empty one store after the other; return what could not be done."""
    problems = []
    for store in stores.of(subjects):
        traces, problem = _search(store)
        problems += problem
        done: set[Callable[[], None]] = set()
        for trace in traces:
            if trace.remove is None or trace.remove in done:
                continue
            problems += _try(trace.remove, trace.place)
            done.add(trace.remove)
        logger.info("%s: %d places", store.name, len(traces))
    return problems


def _search(store: Store) -> tuple[list[Trace], list[str]]:
    traces: list[Trace] = []
    try:
        traces += store.traces()
    except (MaskloopError, OSError) as error:
        return traces, [f"{store.name} could not be searched: {error}"]
    return traces, []


def _try(action: Callable[[], None], place: str) -> list[str]:
    """Do something; return its error as a problem."""
    try:
        action()
    except (MaskloopError, OSError) as error:
        logger.warning("%s: %s", place, error)
        return [f"{place}: {error}"]
    return []


def _remarks(stores: Stores) -> tuple[str, ...]:
    """Return for how long each bucket keeps what was deleted."""
    settings, remarks = stores.settings, []
    for bucket in (settings.source_bucket, settings.target_bucket, settings.dvc_bucket):
        try:
            period = soft_delete_period(stores.bucket, bucket)
        except MaskloopError:
            continue  # the store's own problem says why
        if period:
            remarks.append(
                f"gs://{bucket} keeps deleted objects for {period.days} days (soft delete), from now on until "
                f"{datetime.now(UTC) + period:%Y-%m-%d}; nobody can delete them sooner"
            )
    return tuple(remarks)
