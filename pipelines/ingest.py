"""Station 1: objects of the source bucket become labeling tasks, each photo at each generation exactly once.

Desired state (what the bucket holds) is compared with actual state (what Label Studio holds) on every run; there is no
ledger of our own that could disagree.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from google.cloud.storage import Client

from pipelines.catalog import COLUMNS, read_catalog
from pipelines.errors import CatalogError, ImageError, ObjectChangedError
from pipelines.images import decode_image, sha256_hex
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import delete_predictions
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import create_tasks, list_tasks, update_task
from pipelines.params import Params
from pipelines.records import ImageRef, Metadata, ObjectRef, Task
from pipelines.settings import Settings
from pipelines.storage import list_objects, read, require_bucket, stat

logger = logging.getLogger(__name__)
_READERS = 8
_CHUNK = 500  # photos read between two imports


@dataclass(frozen=True)
class Problem:
    """A photo that did not become a task: its address, a stable reason code, and what to do."""

    uri: str
    reason: str
    message: str


@dataclass(frozen=True)
class IngestReport:
    """What one run found and did; every listed object is counted exactly once."""

    listed: int
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    ignored: int = 0
    problems: tuple[Problem, ...] = field(default=())

    def __str__(self) -> str:
        """Give the conservation sum in one line, then a line per problem."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(p.reason for p in self.problems).items())
        total = (
            f"{self.listed} listed = {self.created} new + {self.updated} changed + {self.unchanged} unchanged + "
            f"{len(self.problems)} set aside{f' ({reasons})' if reasons else ''} + {self.ignored} not photos"
        )
        return "\n".join([total, *(f"  {p.reason}: {p.uri}: {p.message}" for p in self.problems)])


def ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> IngestReport:
    """Bring the tasks in line with the source bucket.

    A photo that cannot be used is reported and stops nothing. Raises StorageError when the bucket is missing and
    CatalogError when the catalogue breaks its contract, both before anything is changed.
    """
    require_bucket(bucket, settings.source_bucket)
    catalog = _read_catalog(bucket, settings)
    project = find_project(labels, params)
    everything = list(list_objects(bucket, settings.source_bucket, settings.source_prefix))
    objects = [o for o in everything if o.name.lower().endswith(params.ingest.suffixes)]
    tasks = list(list_tasks(labels, project))
    known = {(task.image.uri, task.image.generation) for task in tasks}
    fresh = [o for o in objects if (o.uri, o.generation) not in known]
    logger.info("%d objects, %d of them not seen at this generation", len(everything), len(fresh))

    problems: list[Problem] = []
    photos: list[ImageRef] = []
    created = updated = 0
    owner = {task.image.sha256: task.image.uri for task in tasks}
    for start in range(0, len(fresh), _CHUNK):  # published chunk by chunk: a killed first run has not worked in vain
        read_now, bad = _read_photos(bucket, fresh[start : start + _CHUNK], params)
        usable, doubles = _without_doubles(read_now, owner)
        new, changed = _publish(labels, project, usable, tasks, catalog)
        created, updated = created + new, updated + changed
        problems += [*bad, *doubles]
        photos += usable
        logger.info("%d of %d read", min(start + _CHUNK, len(fresh)), len(fresh))
    report = IngestReport(
        listed=len(everything),
        created=created,
        updated=updated,
        unchanged=len(objects) - len(fresh),
        ignored=len(everything) - len(objects),
        problems=tuple(problems),
    )
    missing = [photo.uri for photo in photos if _catalog_key(photo.uri) not in catalog]
    if missing:
        logger.warning("%d new photos have no row in %s, such as %s", len(missing), settings.catalog, missing[0])
    return report


def _read_catalog(bucket: Client, settings: Settings) -> Mapping[str, Metadata]:
    found = stat(bucket, settings.source_bucket, settings.catalog)
    source = f"gs://{settings.source_bucket}/{settings.catalog}"
    if found is None:
        raise CatalogError(f"there is no catalogue {source}; upload it, or set MASKLOOP_CATALOG to its object name")
    return read_catalog(read(bucket, found), source)


def _read_photos(bucket: Client, objects: Iterable[ObjectRef], params: Params) -> tuple[list[ImageRef], list[Problem]]:
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda ref: _read_photo(bucket, ref, params), objects))
    return [one for one in found if isinstance(one, ImageRef)], [one for one in found if isinstance(one, Problem)]


def _read_photo(bucket: Client, ref: ObjectRef, params: Params) -> ImageRef | Problem:
    try:
        data = read(bucket, ref)
        height, width = decode_image(data, max_megapixels=params.ingest.max_megapixels).shape[:2]
    except ImageError as error:
        return Problem(ref.uri, error.reason, str(error))
    except ObjectChangedError as error:
        return Problem(ref.uri, "gone", str(error))
    return ImageRef(ref.uri, ref.generation, sha256_hex(data), height, width)


def _without_doubles(photos: list[ImageRef], owner: dict[str, str]) -> tuple[list[ImageRef], list[Problem]]:
    """Keep one photo per content; the others are reported as `duplicate`. `owner` maps sha256 to address and grows."""
    kept, doubles = [], []
    for photo in photos:
        first = owner.setdefault(photo.sha256, photo.uri)
        if first == photo.uri:
            kept.append(photo)
        else:
            doubles.append(Problem(photo.uri, "duplicate", f"same bytes as {first}, which has the task"))
    return kept, doubles


def _publish(
    labels: LabelStudioClient, project: int, photos: list[ImageRef], tasks: list[Task], catalog: Mapping[str, Metadata]
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
            update_task(labels, task.id, photo, metadata)
            updated += 1
        else:
            if task:
                logger.warning("%s was overwritten after somebody worked on it: it gets a new task", photo.uri)
            created.append((photo, metadata))
    return create_tasks(labels, project, created), updated


def _metadata(uri: str, catalog: Mapping[str, Metadata]) -> Metadata:
    """Give every catalogue column a value: the interface would show the name of a missing one."""
    return {**dict.fromkeys(COLUMNS[1:], "–"), **catalog.get(_catalog_key(uri), {})}


def _catalog_key(uri: str) -> str:
    return PurePosixPath(uri).stem
