"""Station 1: objects of the source bucket become labeling tasks, each photo at each generation exactly once.

Desired state (what bucket and catalogue hold) is compared with actual state (what Label Studio holds) on every run. The
tasks are the ledger; a memory of them saves reading again what did not move.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath

from google.cloud.storage import Client
from rich.progress import track

from pipelines.errors import CatalogError
from pipelines.fs import held
from pipelines.gcs.client import list_objects, put, read, require_bucket, set_pool_size, stat
from pipelines.ingest.catalog import read_catalog
from pipelines.ingest.intake import PhotoIntake, Problem, problem_of_copy, without_copies, without_doubles
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
_MEMORY = "ingest.json"  # of tasks, in the folder for state
_READERS = 16  # threads; most of a small photo's time is the way to the bucket and back
_CHUNK = 500  # photos read between two imports


@dataclass(frozen=True)
class IngestReport:
    """What one run found and did; every listed object is counted exactly once.

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
        """Give the conservation sum in one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(p.reason for p in self.problems).items())
        described = f" ({self.described} with new catalogue data)" if self.described else ""
        aside = f"{len(self.problems)} set aside{f' ({reasons})' if reasons else ''}"
        return (
            f"{self.listed} listed = {self.created} new + {self.updated} changed + {self.unchanged} unchanged"
            f"{described} + {aside} + {self.ignored} not photos"
        )

    def __str__(self) -> str:
        """Give the conservation sum, then a line per problem."""
        return "\n".join([self.total, *(f"  {p.reason}: {p.uri}: {p.message}" for p in (*self.problems, *self.notes))])

    def as_csv(self) -> bytes:
        """Write a line per problem, in a fixed order; texts that a spreadsheet would take for formulas are quoted."""
        file = io.StringIO()
        lines = csv.writer(file)
        lines.writerow(["uri", "generation", "reason", "set aside", "message"])
        for p in sorted((*self.problems, *self.notes), key=lambda p: (p.uri, p.reason, p.message)):
            cells = (p.uri, p.generation or "", p.reason, "yes" if p.set_aside else "no", p.message)
            lines.writerow(f"'{cell}" if str(cell).startswith(("=", "+", "-", "@", "\t")) else cell for cell in cells)
        return file.getvalue().encode("utf-8-sig")


def ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> IngestReport:
    """Bring the tasks in line with source bucket and catalogue, and leave the report's CSV in the target bucket.

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
    pool = ThreadPoolExecutor(_READERS, "ingest")
    try:
        everything = list(list_objects(bucket, settings.source_bucket, settings.source_prefix))
        if not everything and stat(bucket, settings.source_bucket, settings.catalog) is None:
            return IngestReport(listed=0)  # a new archive: nothing was forgotten yet
        catalog, notes = _read_catalog(bucket, settings, params)  # up to here nothing was changed
        project = find_project(labels, params)
        objects = [o for o in everything if o.name.lower().endswith(params.ingest.suffixes)]
        there = load_tasks(labels, project, settings.var / _MEMORY)
        known = {(task.image.uri, task.image.generation) for task in there}
        fresh, copies = without_copies([o for o in objects if (o.uri, o.generation) not in known], objects, known)
        logger.info("%d objects, %d of them not seen at this generation", len(everything), len(fresh) + len(copies))
        intake = PhotoIntake(bucket, params.ingest.max_megapixels)
        reading = pool.map(intake.read, fresh)
        tasks = _without_double_tasks(labels, project, there)
        problems: list[Problem] = []
        created = updated = 0
        owner = {task.image.sha256: task.image.uri for task in tasks}
        found = iter(track(reading, "reading photos", total=len(fresh), transient=True))
        while part := list(islice(found, _CHUNK)):  # published part by part: a killed run has not worked in vain
            usable, doubles = without_doubles([one for one, _ in part if isinstance(one, ImageRef)], owner)
            new, changed = _publish(labels, project, usable, tasks, catalog)
            created, updated = created + new, updated + changed
            problems += [*(one for one, _ in part if isinstance(one, Problem)), *doubles]
            notes += [note for _, note in part if note]
            logger.info("%d tasks made, %d brought up to date", created, updated)
    finally:
        pool.shutdown(cancel_futures=True)
    set_aside = {problem.uri: problem for problem in problems}
    problems += [problem_of_copy(copy, original, set_aside) for copy, original in copies.items()]
    if created:  # an import of a run that was killed may have come to its end beside ours
        _without_double_tasks(labels, project, load_tasks(labels, project, settings.var / _MEMORY))
    set_aside = {problem.uri: problem for problem in problems}
    notes += [_rowless(o, settings) for o in objects if o.uri not in set_aside and _catalog_key(o.uri) not in catalog]
    listed = {(o.uri, o.generation) for o in objects}
    stayed = [task for task in tasks if (task.image.uri, task.image.generation) in listed]
    return IngestReport(
        listed=len(everything),
        created=created,
        updated=updated,
        unchanged=len(listed & known),
        ignored=len(everything) - len(objects),
        described=_describe(labels, project, stayed, catalog),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _read_catalog(bucket: Client, settings: Settings, params: Params) -> tuple[Mapping[str, Metadata], list[Problem]]:
    found = stat(bucket, settings.source_bucket, settings.catalog)
    source = f"gs://{settings.source_bucket}/{settings.catalog}"
    if found is None:
        raise CatalogError(f"there is no catalogue {source}; upload it, or set MASKLOOP_CATALOG to its object name")
    catalog, remarks = read_catalog(read(bucket, found), source, params.ingest.severity)
    return catalog, [Problem(source, "catalogue", remark, found.generation, set_aside=False) for remark in remarks]


def _without_double_tasks(labels: LabelStudioClient, project: int, tasks: Sequence[PhotoTask]) -> list[PhotoTask]:
    """Delete tasks of one photo's same bytes but one; what somebody works on always stays.

    They come from an import whose answer nobody waited for. Who works on them is looked up at this moment.
    """
    ids: dict[tuple[str, str], list[int]] = {}
    for task in tasks:
        ids.setdefault((task.image.uri, task.image.sha256), []).append(task.id)
    doubled = sorted(one for of_one in ids.values() if len(of_one) > 1 for one in of_one)
    now = list(list_tasks(labels, project, only=doubled)) if doubled else []
    gone: set[int] = set()
    seen: set[tuple[str, str]] = set()
    for task in sorted(now, key=lambda task: (not task.opened, task.id)):
        photo = task.image.uri, task.image.sha256
        if photo in seen and not task.opened:
            logger.warning("task %d shows %s, which has a task already: it is deleted", task.id, task.image.uri)
            delete_task(labels, task.id)
            gone.add(task.id)
        seen.add(photo)
    return [task for task in tasks if task.id not in gone]


def _rowless(photo: ObjectRef, settings: Settings) -> Problem:
    message = f"no row of {settings.catalog} has the id_file {_catalog_key(photo.uri)}; the task shows no details"
    return Problem(photo.uri, "no-row", message, photo.generation, set_aside=False)


def _publish(
    labels: LabelStudioClient,
    project: int,
    photos: list[ImageRef],
    tasks: Sequence[PhotoTask],
    catalog: Mapping[str, Metadata],
) -> tuple[int, int]:
    """Create tasks for new photos, and bring the tasks of overwritten ones in line; gives both counts.

    The same bytes uploaded again only get the new generation noted. Other bytes take over the photo's task unless
    somebody worked on it: that is looked up at this moment, because reading the photos may have taken hours.
    """
    wanted = {photo.uri for photo in photos}
    before = {task.image.uri: task.id for task in tasks if task.image.uri in wanted}
    now = {task.image.uri: task for task in list_tasks(labels, project, only=sorted(before.values()))} if before else {}
    created: list[tuple[ImageRef, Metadata]] = []
    updated = 0
    for photo in photos:
        task, metadata = now.get(photo.uri), _metadata(photo.uri, catalog)
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


def _describe(
    labels: LabelStudioClient, project: int, tasks: Iterable[PhotoTask], catalog: Mapping[str, Metadata]
) -> int:
    """Bring the catalogue's part of tasks in line; a photo whose row is gone keeps what is known of it."""
    described = 0
    for task in tasks:
        metadata = _metadata(task.image.uri, catalog)
        if _catalog_key(task.image.uri) in catalog and not metadata.items() <= task.metadata.items():
            update_task(labels, project, task.id, task.image, metadata)
            described += 1
    return described


def _metadata(uri: str, catalog: Mapping[str, Metadata]) -> Metadata:
    """Give every catalogue column a value: the interface would show the name of a missing one."""
    return {**dict.fromkeys(CATALOG_COLUMNS[1:], "–"), **catalog.get(_catalog_key(uri), {})}


def _catalog_key(uri: str) -> str:
    return PurePosixPath(uri).stem
