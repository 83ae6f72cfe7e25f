"""The ingest pipeline: objects of the source bucket become labeling tasks, each photo at each generation exactly once.

Every run compares what bucket and catalogue hold with the tasks in Label Studio. The tasks themselves are the record of
what was ingested; a cache of them saves reading again what did not change.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import cast

from google.cloud.storage import Client
from rich.progress import track

from pipelines.errors import CatalogError, MaskloopError, StorageError
from pipelines.forget.ledger import load_forgotten
from pipelines.fs import held
from pipelines.gcs.client import list_objects, put, read, require_bucket, set_pool_size, stat
from pipelines.ingest.catalog import Catalog, read_catalog
from pipelines.ingest.intake import PhotoIntake, Problem, drop_listed_duplicates, problem_of_duplicate
from pipelines.ingest.large_photos import LargePhotos
from pipelines.ingest.publish import PhotoTasks
from pipelines.ingest.report import REPORT, IngestReport
from pipelines.ingest.task_cache import load_tasks
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import connect_copies, find_project
from pipelines.labelstudio.tasks import delete_task, list_tasks
from pipelines.params import Params
from pipelines.records import ImageRef, Metadata, ObjectRef, PhotoTask
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_TASK_CACHE = "ingest.json"  # in the folder for state
_READERS = 16  # threads; most of a small photo's time is spent on the network
_CHUNK = 500  # photos read between two imports
_STOP_AFTER = 50  # photos in a row that the bucket server does not deliver
_SERVER_FAULTS = ("unavailable", "stalled")


def ingest(
    bucket: Client,
    labels: LabelStudioClient,
    settings: Settings,
    params: Params,
    more: Mapping[str, Metadata] | None = None,
    full_size: Collection[str] = (),
) -> IngestReport:
    """Reconcile the tasks with source bucket and catalogue, and write the report's CSV to the target bucket.

    By the SHA-256 of a photo, `more` holds what a new task carries from the start beside the catalogue's metadata. New
    tasks of the photos whose SHA-256 is in `full_size` show them at their own size, however large they are.

    A photo that cannot be used is reported and stops nothing. When 50 photos in a row are not delivered, or Label
    Studio fails, what was read until then is kept, and the error is raised after the report was written. A second run
    waits until the first is done. Raises StorageError when a bucket is missing or cannot be listed, and CatalogError
    when the catalogue breaks its contract, before anything is changed.
    """
    for name in (settings.source_bucket, settings.target_bucket):
        require_bucket(bucket, name)
    set_pool_size(bucket, _READERS)
    with held(settings.var / "ingest.lock"):
        report = _ingest(bucket, labels, settings, params, more, full_size)
    put(bucket, settings.target_bucket, REPORT, report.as_csv(), "text/csv; charset=utf-8")
    if report.stopped:
        logger.error("the run ends early: %s", report.total)
        raise report.stopped
    return report


def _ingest(
    bucket: Client,
    labels: LabelStudioClient,
    settings: Settings,
    params: Params,
    more: Mapping[str, Metadata] | None,
    full_size: Collection[str],
) -> IngestReport:
    everything = list(list_objects(bucket, settings.source_bucket, settings.source_prefix))
    if not everything and stat(bucket, settings.source_bucket, settings.catalog) is None:
        return IngestReport(listed=0)  # a new archive, whose catalogue is uploaded later
    forgotten = load_forgotten(bucket, settings.target_bucket)
    file, catalog, notes = _read_catalog(bucket, settings, params)  # up to here nothing was changed
    project, cache = find_project(labels, params), settings.var / _TASK_CACHE
    objects = [ref for ref in everything if ref.name.lower().endswith(params.ingest.suffixes)]
    all_tasks = load_tasks(labels, project, cache)
    known = {(task.image.uri, task.image.generation) for task in all_tasks}
    listed = {(ref.uri, ref.generation) for ref in objects}
    unknown = [ref for ref in objects if (ref.uri, ref.generation) not in known]
    new, duplicates = drop_listed_duplicates(unknown, objects, known)
    logger.info("%d objects, %d of them not seen at this generation", len(everything), len(unknown))
    tasks = PhotoTasks(labels, project, _delete_duplicate_tasks(labels, project, all_tasks), listed, catalog, more)
    intake = PhotoIntake(
        bucket, params.ingest.max_megapixels, settings.target_bucket, forgotten,
        editor_megapixels=params.ingest.editor_megapixels, full_size=full_size,
    )  # fmt: skip
    imported = _import_photos(intake, labels, project, settings, new, tasks)
    if imported.created:  # the import of an earlier run that was killed may have ended after our listing
        _delete_duplicate_tasks(labels, project, load_tasks(labels, project, cache))
    if not imported.stopped:
        limit = params.ingest.editor_megapixels
        large = LargePhotos(labels, project, limit, full_size, lambda: connect_copies(labels, project, settings))
        _show_copies(large, tasks, objects, intake, imported)
    problems = imported.problems
    set_aside = {problem.uri: problem for problem in problems}
    problems += [problem_of_duplicate(ref, original, set_aside) for ref, original in duplicates.items()]
    described = 0 if imported.stopped else tasks.describe()
    notes += imported.notes
    if not imported.stopped:
        set_aside = {problem.uri: problem for problem in problems}
        described_photos = [ref for ref in objects if ref.uri not in set_aside]
        notes += _notes_on_catalog(described_photos, catalog, file)
        notes += tasks.gone(f"gs://{settings.source_bucket}/{settings.source_prefix}", {uri for uri, _ in listed})
    return IngestReport(
        listed=len(everything),
        created=imported.created,
        updated=imported.updated,
        moved=imported.moved,
        unchanged=len(listed & known),
        described=described,
        copied=imported.copied,
        ignored=Counter(PurePosixPath(ref.name).suffix.lower() for ref in set(everything) - set(objects)),
        problems=tuple(problems),
        notes=tuple(notes),
        unread=len(new) - imported.read,
        stopped=imported.stopped,
    )


@dataclass
class _Imported:
    """What `_import_photos` did so far."""

    read: int = 0
    created: int = 0
    updated: int = 0
    moved: int = 0
    copied: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    stopped: MaskloopError | None = None


Result = tuple[ImageRef | Problem, Problem | None]


def _import_photos(
    intake: PhotoIntake,
    labels: LabelStudioClient,
    project: int,
    settings: Settings,
    refs: Sequence[ObjectRef],
    tasks: PhotoTasks,
) -> _Imported:
    """Read and check photos and publish their tasks, part by part, so that a killed run has not worked in vain."""
    imported = _Imported()
    pool = ThreadPoolExecutor(_READERS, "ingest")
    try:
        results = iter(track(pool.map(intake.read, refs), "reading photos", total=len(refs), transient=True))
        delivered = _until_server_fails(results, imported)
        while part := list(islice(delivered, _CHUNK)):
            images = [image for image, _ in part if isinstance(image, ImageRef)]
            if any(image.shown for image in images):
                connect_copies(labels, project, settings)
            outcome = tasks.publish(images)
            imported.read += len(part)
            imported.created += outcome.created
            imported.updated += outcome.updated
            imported.moved += outcome.moved
            problems = [problem for problem, _ in part if isinstance(problem, Problem)]
            imported.problems += [*problems, *outcome.duplicates]
            imported.notes += [note for _, note in part if note]
            logger.info("%d tasks created, %d updated", imported.created, imported.updated + imported.moved)
    except MaskloopError as error:  # Label Studio's; the report still says what was done
        imported.stopped = error
    finally:
        pool.shutdown(cancel_futures=True)
    return imported


def _show_copies(
    large: LargePhotos, tasks: PhotoTasks, objects: Sequence[ObjectRef], intake: PhotoIntake, imported: _Imported
) -> None:
    """Make tasks of large photos show smaller copies; what cannot be read stays as it is."""
    pool = ThreadPoolExecutor(_READERS, "ingest")
    try:
        for moved, problems in large.show_copies(tasks.unchanged, objects, intake, pool):
            tasks.show(moved)
            imported.copied += len(moved)
            imported.notes += problems
    except MaskloopError as error:  # Label Studio's; the report still says what was done
        imported.stopped = error
    finally:
        pool.shutdown(cancel_futures=True)


def _until_server_fails(results: Iterator[Result], imported: _Imported) -> Iterator[Result]:
    """Yield results until `_STOP_AFTER` of them in a row were not delivered; then set `imported.stopped`."""
    in_a_row = 0
    for result in results:
        yield result
        failed = isinstance(result[0], Problem) and result[0].reason in _SERVER_FAULTS
        in_a_row = in_a_row + 1 if failed else 0
        if in_a_row == _STOP_AFTER:
            problem = cast(Problem, result[0])
            imported.stopped = StorageError(
                f"{_STOP_AFTER} photos in a row could not be read, the last one because: {problem.message} "
                f"What was read before is kept; {REPORT} in the target bucket names every photo"
            )
            return


def _read_catalog(bucket: Client, settings: Settings, params: Params) -> tuple[ObjectRef, Catalog, list[Problem]]:
    ref = stat(bucket, settings.source_bucket, settings.catalog)
    source = f"gs://{settings.source_bucket}/{settings.catalog}"
    if ref is None:
        raise CatalogError(f"there is no catalogue {source}; upload it, or set MASKLOOP_CATALOG to its object name")
    catalog, remarks = read_catalog(read(bucket, ref), source, params.ingest.severity, params.ingest.columns)
    return ref, catalog, [Problem(source, "catalogue", remark, ref.generation, set_aside=False) for remark in remarks]


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


def _notes_on_catalog(photos: Sequence[ObjectRef], catalog: Catalog, file: ObjectRef) -> list[Problem]:
    """Return a note for each photo without a row, and what the catalogue in `file` says about all photos together."""
    refs = {ref.name: ref for ref in photos}
    notes = [
        Problem(
            ref.uri, "no-row", f"no row of {file.name} fits the photo {ref.name}; the task shows no details",
            ref.generation, set_aside=False,
        )
        for ref in photos
        if catalog.find(ref.name) is None
    ]  # fmt: skip
    for name, message in catalog.remarks_for([ref.name for ref in photos]):
        ref = refs.get(name, file)
        notes.append(Problem(ref.uri, "catalogue", message, ref.generation, set_aside=False))
    return notes
