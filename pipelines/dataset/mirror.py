"""Copy what people drew to the dataset: annotations in shards, and the bytes of the photos they drew on.

The state of the sync is a file beside the workspace: what the copy holds, the cursor in Label Studio, and what was
copied but not published yet. It is removed while the copy changes, and it is only used while it fits the files. Without
it everything is read again, so a kill costs nothing but time.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import IMAGES
from pipelines.errors import DatasetError, ObjectChangedError, StorageError
from pipelines.fs import write_atomically
from pipelines.gcs.client import read, set_pool_size, split_uri
from pipelines.labelstudio.cursor import FULL_SCAN_INTERVAL, Changes, TaskCursor
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef, ObjectRef

logger = logging.getLogger(__name__)
_DOWNLOADS = 16  # at once


@dataclass(frozen=True)
class SyncState:
    """What the copy of a `source` holds, and how much of it is published.

    `known` has task and photo by annotation UUID. `unpublished` names annotations written or dropped since the last
    version. With `scanned`, all were read since then, and the buckets are compared as a whole. `built_at` is the
    commit whose code and parameters made the last version.
    """

    source: str
    known: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    cursor: TaskCursor | None = None
    full_scan_at: datetime | None = None
    unpublished: frozenset[str] = frozenset()
    scanned: bool = True
    built_at: str = ""

    def write(self, path: Path) -> None:
        """Write the state to a file."""
        fields = {
            "source": self.source,
            "known": {uuid: list(place) for uuid, place in self.known.items()},
            **(self.cursor or TaskCursor(frozenset(), None)).as_fields(),
            "full_scan_at": self.full_scan_at.isoformat() if self.full_scan_at else None,
            "unpublished": sorted(self.unpublished),
            "scanned": self.scanned,
            "built_at": self.built_at,
        }
        write_atomically(path, json.dumps(fields).encode())

    def published(self, revision: str) -> "SyncState":
        """Return the state after all of it was published by the code of a commit."""
        return replace(self, unpublished=frozenset(), scanned=False, built_at=revision)


def load_state(path: Path, dataset: Dataset) -> SyncState | None:
    """Return the stored state of a dataset's copy; None when there is none, or it does not fit the files."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        known = {str(uuid): (int(task), str(photo)) for uuid, (task, photo) in fields["known"].items()}
        full_scan_at = datetime.fromisoformat(fields["full_scan_at"]) if fields["full_scan_at"] else None
        cursor = TaskCursor.from_fields(fields)
        unpublished, scanned = frozenset(map(str, fields["unpublished"])), bool(fields["scanned"])
        state = SyncState(fields["source"], known, cursor, full_scan_at, unpublished, scanned, str(fields["built_at"]))
        photos = {uuid: photo for uuid, (_, photo) in known.items()}
        return state if dataset.annotations.photos() == photos else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DatasetError):
        return None


def state_to_continue(path: Path, source: str, dataset: Dataset) -> SyncState:
    """Return the state that the next read continues from; once a day, and if need be, an empty one: read everything."""
    state = load_state(path, dataset)
    if state is None or state.source != source or state.full_scan_at is None:
        return SyncState(source)
    return SyncState(source) if datetime.now(UTC) - state.full_scan_at > FULL_SCAN_INTERVAL else state


def reconcile(bucket: Client, dataset: Dataset, state: SyncState, changes: Changes) -> SyncState | None:
    """Apply what was read from Label Studio to the copy; return the new state.

    Return None and change nothing when no annotation would be left. An annotation whose photo is gone from the bucket
    is left out with a warning.
    """
    everything = state.cursor is None
    wanted = [annotation for annotation in changes.annotations if not annotation.cancelled]
    read_again = changes.read | changes.gone
    stay = {} if everything else {uuid: place for uuid, place in state.known.items() if place[0] not in read_again}
    if not stay and not wanted:
        return None
    wanted = _copy_photos(bucket, dataset, wanted)
    known = stay | {annotation.uuid: (annotation.task_id, annotation.image.sha256) for annotation in wanted}
    if everything:
        differs = dataset.annotations.replace(wanted)
        touched = frozenset(known) if differs else frozenset()
    else:
        gone = {(uuid, photo) for uuid, (_, photo) in state.known.items() if known.get(uuid, (0, ""))[1] != photo}
        differs = dataset.annotations.update(wanted, gone)
        read_now = {annotation.uuid for annotation in wanted} | {uuid for uuid, _ in gone}
        touched = frozenset(read_now) if differs else frozenset()
    _drop_photos(dataset, {photo for _, photo in known.values()}, None if everything else state)
    return SyncState(
        state.source, known, changes.cursor, datetime.now(UTC) if everything else state.full_scan_at,
        state.unpublished | touched, state.scanned or everything, state.built_at,
    )  # fmt: skip


def _copy_photos(bucket: Client, dataset: Dataset, annotations: Sequence[Annotation]) -> list[Annotation]:
    """Copy each labelled photo's bytes at the generation that was labelled; return the annotations that have them."""
    images = {annotation.image.sha256: annotation.image for annotation in annotations}
    missing = [image for image in images.values() if not dataset.image_path(image.sha256).exists()]
    set_pool_size(bucket, _DOWNLOADS)
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        copied = pool.map(partial(_copy_photo, bucket, dataset), missing)
        gone = {image.sha256: error for image, error in zip(missing, copied, strict=True) if error}
    for annotation in annotations:
        if error := gone.get(annotation.image.sha256):
            logger.warning("annotation %s is left out: %s", annotation.uuid, error)
    return [annotation for annotation in annotations if annotation.image.sha256 not in gone]


def _copy_photo(bucket: Client, dataset: Dataset, image: ImageRef) -> ObjectChangedError | None:
    """Copy a photo; return the error when it is gone from the bucket."""
    try:
        data = read(bucket, ObjectRef(*split_uri(image.uri), image.generation))
    except ObjectChangedError as error:
        return error
    if sha256_hex(data) != image.sha256:
        raise StorageError(f"{image.uri}: the bytes are not those that were ingested; run `maskloop ingest`")
    dataset.write_photo(image.sha256, data)
    return None


def _drop_photos(dataset: Dataset, wanted: set[str], before: SyncState | None) -> None:
    """Remove photos that nobody labels any more: of those known before, or of all files when none are known."""
    folder = dataset.path(IMAGES)
    if before is None:
        present = {entry.name for entry in os.scandir(folder)} if folder.exists() else set()
    else:
        present = {photo for _, photo in before.known.values()}
    for photo in present - wanted:
        with suppress(FileNotFoundError):  # an earlier run removed it and was killed
            (folder / photo).unlink()
