"""The ingest pipeline: objects of the source bucket become labeling tasks, each photo at each generation exactly once.

Every run compares what bucket and catalogue hold with the tasks in Label Studio. The tasks themselves are the record of
what was ingested; a cache of them saves reading again what did not change.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath

from google.cloud.storage import Client
from rich.progress import track

from pipelines.errors import CatalogError
from pipelines.fs import held
from pipelines.gcs.client import list_objects, put, read, require_bucket, set_pool_size, stat
from pipelines.ingest.catalog import Catalog, read_catalog
from pipelines.ingest.intake import (
    PhotoIntake,
    Problem,
    drop_duplicate_photos,
    drop_listed_duplicates,
    problem_of_duplicate,
)
from pipelines.ingest.task_cache import load_tasks
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import delete_predictions
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import create_tasks, delete_task, list_tasks, update_task
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS, ImageRef, Metadata, ObjectRef, PhotoTask
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
REPORT = "reports/ingest.csv"  # in the target bucket
_TASK_CACHE = "ingest.json"  # in the folder for state
_READERS = 16  # threads; most of a small photo's time is spent on the network
_CHUNK = 500  # photos read between two imports


@dataclass(frozen=True)
class IngestReport:
    """What one run did; every listed object is counted exactly once.

    `described` of the `unchanged` photos got other catalogue data; `notes` are problems that set nothing aside.
    """

    listed: int
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    ignored: int = 0
    described: int = 0
    problems: tuple[Problem, ...] = field(default=())
    notes: tuple[Problem, ...] = field(default=())

    @property
    def total(self) -> str:
        """Return the sum of all objects by outcome, as one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(p.reason for p in self.problems).items())
        described = f" ({self.described} with new catalogue data)" if self.described else ""
        aside = f"{len(self.problems)} set aside{f' ({reasons})' if reasons else ''}"
        return (
            f"{self.listed} listed = {self.created} new + {self.updated} changed + {self.unchanged} unchanged"
            f"{described} + {aside} + {self.ignored} not photos"
        )

    def __str__(self) -> str:
        """Return the sum, then a line per problem."""
        return "\n".join([self.total, *(f"  {p.reason}: {p.uri}: {p.message}" for p in (*self.problems, *self.notes))])

    def as_csv(self) -> bytes:
        """Return a line per problem, in a fixed order; texts that a spreadsheet would take for formulas are quoted."""
        file = io.StringIO()
        lines = csv.writer(file)
        lines.writerow(["uri", "generation", "reason", "set aside", "message"])
        for p in sorted((*self.problems, *self.notes), key=lambda p: (p.uri, p.reason, p.message)):
            cells = (p.uri, p.generation or "", p.reason, "yes" if p.set_aside else "no", p.message)
            lines.writerow(f"'{cell}" if str(cell).startswith(("=", "+", "-", "@", "\t")) else cell for cell in cells)
        return file.getvalue().encode("utf-8-sig")


def ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> IngestReport:
    """Reconcile the tasks with source bucket and catalogue, and write the report's CSV to the target bucket.

    A photo that cannot be used is reported and stops nothing. A second run waits until the first is done. Raises
    StorageError when a bucket is missing and CatalogError when the catalogue breaks its contract, both before anything
    is changed.
    """
    for name in (settings.source_bucket, settings.target_bucket):
        require_bucket(bucket, name)
    set_pool_size(bucket, _READERS)
    with held(settings.var / "ingest.lock"):
        report = _ingest(bucket, labels, settings, params)
    put(bucket, settings.target_bucket, REPORT, report.as_csv(), "text/csv; charset=utf-8")
    return report


def _ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> IngestReport:
    everything = list(list_objects(bucket, settings.source_bucket, settings.source_prefix))
    if not everything and stat(bucket, settings.source_bucket, settings.catalog) is None:
        return IngestReport(listed=0)  # a new archive, whose catalogue is uploaded later
    catalog, notes = _read_catalog(bucket, settings, params)  # up to here nothing was changed
    project, cache = find_project(labels, params), settings.var / _TASK_CACHE
    objects = [ref for ref in everything if ref.name.lower().endswith(params.ingest.suffixes)]
    all_tasks = load_tasks(labels, project, cache)
    known = {(task.image.uri, task.image.generation) for task in all_tasks}
    unknown = [ref for ref in objects if (ref.uri, ref.generation) not in known]
    new, duplicates = drop_listed_duplicates(unknown, objects, known)
    logger.info("%d objects, %d of them not seen at this generation", len(everything), len(unknown))
    tasks = _delete_duplicate_tasks(labels, project, all_tasks)
    imported = _import_photos(PhotoIntake(bucket, params.ingest.max_megapixels), labels, project, new, tasks, catalog)
    if imported.created:  # the import of an earlier run that was killed may have ended after our listing
        _delete_duplicate_tasks(labels, project, load_tasks(labels, project, cache))
    problems = imported.problems
    set_aside = {problem.uri: problem for problem in problems}
    problems += [problem_of_duplicate(ref, original, set_aside) for ref, original in duplicates.items()]
    set_aside = {problem.uri: problem for problem in problems}
    without_row = [ref for ref in objects if ref.uri not in set_aside and catalog.find(_object_name(ref.uri)) is None]
    notes += [*imported.notes, *(_missing_row(ref, settings) for ref in without_row)]
    listed = {(ref.uri, ref.generation) for ref in objects}
    unchanged = [task for task in tasks if (task.image.uri, task.image.generation) in listed]
    return IngestReport(
        listed=len(everything),
        created=imported.created,
        updated=imported.updated,
        unchanged=len(listed & known),
        ignored=len(everything) - len(objects),
        described=_describe(labels, project, unchanged, catalog),
        problems=tuple(problems),
        notes=tuple(notes),
    )


@dataclass
class _Imported:
    """What `_import_photos` did so far."""

    created: int = 0
    updated: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def _import_photos(
    intake: PhotoIntake,
    labels: LabelStudioClient,
    project: int,
    refs: Sequence[ObjectRef],
    tasks: Sequence[PhotoTask],
    catalog: Catalog,
) -> _Imported:
    """Read and check photos and publish their tasks, part by part, so that a killed run has not worked in vain."""
    imported = _Imported()
    owners = {task.image.sha256: task.image.uri for task in tasks}
    pool = ThreadPoolExecutor(_READERS, "ingest")
    try:
        results = iter(track(pool.map(intake.read, refs), "reading photos", total=len(refs), transient=True))
        while part := list(islice(results, _CHUNK)):
            images = [image for image, _ in part if isinstance(image, ImageRef)]
            usable, duplicates = drop_duplicate_photos(images, owners)
            created, updated = _publish(labels, project, usable, tasks, catalog)
            imported.created += created
            imported.updated += updated
            imported.problems += [*(problem for problem, _ in part if isinstance(problem, Problem)), *duplicates]
            imported.notes += [note for _, note in part if note]
            logger.info("%d tasks created, %d updated", imported.created, imported.updated)
    finally:
        pool.shutdown(cancel_futures=True)
    return imported


def _read_catalog(bucket: Client, settings: Settings, params: Params) -> tuple[Catalog, list[Problem]]:
    ref = stat(bucket, settings.source_bucket, settings.catalog)
    source = f"gs://{settings.source_bucket}/{settings.catalog}"
    if ref is None:
        raise CatalogError(f"there is no catalogue {source}; upload it, or set MASKLOOP_CATALOG to its object name")
    catalog, remarks = read_catalog(read(bucket, ref), source, params.ingest.severity, params.ingest.columns)
    return catalog, [Problem(source, "catalogue", remark, ref.generation, set_aside=False) for remark in remarks]


def _delete_duplicate_tasks(labels: LabelStudioClient, project: int, tasks: Sequence[PhotoTask]) -> list[PhotoTask]:
    """Delete all but one of the tasks that show the same bytes of one photo; returns the tasks that are left.

    Such tasks come from an import whose run did not wait for the answer. A task that somebody works on always stays,
    and who works on which is read at this moment.
    """
    ids: dict[tuple[str, str], list[int]] = {}
    for task in tasks:
        ids.setdefault((task.image.uri, task.image.sha256), []).append(task.id)
    suspects = sorted(task_id for of_photo in ids.values() if len(of_photo) > 1 for task_id in of_photo)
    current = list(list_tasks(labels, project, only=suspects)) if suspects else []
    deleted: set[int] = set()
    seen: set[tuple[str, str]] = set()
    for task in sorted(current, key=lambda task: (not task.opened, task.id)):
        photo = task.image.uri, task.image.sha256
        if photo in seen and not task.opened:
            logger.warning("task %d shows %s, which has a task already: it is deleted", task.id, task.image.uri)
            delete_task(labels, task.id)
            deleted.add(task.id)
        seen.add(photo)
    return [task for task in tasks if task.id not in deleted]


def _missing_row(photo: ObjectRef, settings: Settings) -> Problem:
    message = (
        f"no row of {settings.catalog} has the id_file {PurePosixPath(photo.name).stem}; the task shows no details"
    )
    return Problem(photo.uri, "no-row", message, photo.generation, set_aside=False)


def _publish(
    labels: LabelStudioClient,
    project: int,
    photos: list[ImageRef],
    tasks: Sequence[PhotoTask],
    catalog: Catalog,
) -> tuple[int, int]:
    """Create tasks for new photos and update those of overwritten ones; returns both counts.

    For the same bytes uploaded again, only the generation changes. Other bytes take over the photo's task unless
    somebody worked on it. That is read at this moment, because reading the photos may have taken hours.
    """
    uris = {photo.uri for photo in photos}
    ids = sorted({task.image.uri: task.id for task in tasks if task.image.uri in uris}.values())
    current = {task.image.uri: task for task in list_tasks(labels, project, only=ids)} if ids else {}
    created: list[tuple[ImageRef, Metadata]] = []
    updated = 0
    for photo in photos:
        task, metadata = current.get(photo.uri), _metadata(photo.uri, catalog)
        if task and (task.image.sha256 == photo.sha256 or not task.opened):
            if task.image.sha256 != photo.sha256:
                delete_predictions(labels, project, [task.id])
            update_task(labels, project, task.id, photo, metadata)
            updated += 1
        else:
            if task:
                logger.warning("%s was overwritten after somebody worked on it: it gets a new task", photo.uri)
            created.append((photo, metadata))
    return create_tasks(labels, project, created), updated


def _describe(labels: LabelStudioClient, project: int, tasks: Iterable[PhotoTask], catalog: Catalog) -> int:
    """Update tasks whose catalogue data changed; return how many. Photos without a row keep their metadata."""
    described = 0
    for task in tasks:
        metadata = _metadata(task.image.uri, catalog)
        if catalog.find(_object_name(task.image.uri)) is not None and not metadata.items() <= task.metadata.items():
            update_task(labels, project, task.id, task.image, metadata)
            described += 1
    return described


def _metadata(uri: str, catalog: Catalog) -> Metadata:
    """Return a value for every catalogue column; for a missing one the interface would show its name."""
    return {**dict.fromkeys(CATALOG_COLUMNS[1:], "–"), **(catalog.find(_object_name(uri)) or {})}


def _object_name(uri: str) -> str:
    return uri.removeprefix("gs://").partition("/")[2]
