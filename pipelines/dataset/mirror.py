"""The workspace's copy of what people drew: one file per annotation, and the bytes of the photos they drew on.

Beside the workspace lies a note of what the copy holds and of the last look at Label Studio, so that the next look
costs what changed. It is taken away while the copy is brought in line and until that is published, and it is only
believed while it fits the files. Without it everything is read again: a kill costs time and nothing else.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, IMAGES, annotation_json, image_path, make_hold
from pipelines.errors import ObjectChangedError, StorageError
from pipelines.fs import write_atomically
from pipelines.gcs.client import read, split_uri, widen
from pipelines.labelstudio.cursor import LOOK_AT_EVERYTHING, Changes, Look
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef, ObjectRef

logger = logging.getLogger(__name__)
_AT_ONCE = 16  # photos on their way


@dataclass(frozen=True)
class Note:
    """What the copy holds (task and photo by annotation uuid), of which project, and the last looks at that."""

    project: str
    known: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    look: Look | None = None
    full_look_at: datetime | None = None

    def write(self, path: Path) -> None:
        """Keep the note."""
        fields = {
            "project": self.project,
            "known": {uuid: list(one) for uuid, one in self.known.items()},
            **(self.look or Look(frozenset(), None)).as_fields(),
            "full_look_at": self.full_look_at.isoformat() if self.full_look_at else None,
        }
        write_atomically(path, json.dumps(fields).encode())


def read_note(path: Path, project: str, folder: Path) -> Note:
    """Give the note on the copy in `folder`; an empty one when there is none, or none that fits, or it is a day old."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        known = {str(uuid): (int(task), str(photo)) for uuid, (task, photo) in fields["known"].items()}
        full_look_at = datetime.fromisoformat(fields["full_look_at"]) if fields["full_look_at"] else None
        look = Look.from_fields(fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Note(project)
    there = {entry.name for entry in os.scandir(folder / ANNOTATIONS)} if (folder / ANNOTATIONS).exists() else set()
    fits = fields["project"] == project and there == {f"{uuid}.json" for uuid in known}
    if not fits or full_look_at is None or datetime.now(UTC) - full_look_at > LOOK_AT_EVERYTHING:
        return Note(project)
    return Note(project, known, look, full_look_at)


@dataclass(frozen=True)
class Copied:
    """What `copy_changes` did: the files that stand for the annotations that were read, and names that are gone.

    `photos` are those that these annotations show or showed; `everything` tells that all annotations were read;
    `changed` that some file is another one than before.
    """

    note: Note
    files: Mapping[str, bytes]
    gone: frozenset[str]
    photos: frozenset[str]
    everything: bool
    changed: bool


def copy_changes(bucket: Client, folder: Path, note: Note, changes: Changes) -> Copied | None:
    """Bring the copy in line with what a look found; None, and nothing is touched, when no annotation would be left.

    An annotation whose photo is gone from the bucket is left out, and a line in the log says so.
    """
    everything = note.look is None
    kept = [annotation for annotation in changes.annotations if not annotation.cancelled]
    read_again = changes.read | changes.gone
    stay = {} if everything else {uuid: one for uuid, one in note.known.items() if one[0] not in read_again}
    if not stay and not kept:
        return None
    kept = _copy_photos(bucket, folder, kept)
    known = stay | {annotation.uuid: (annotation.task_id, annotation.image.sha256) for annotation in kept}
    files = {f"{annotation.uuid}.json": annotation_json(annotation) for annotation in kept}
    there = {entry.name for entry in os.scandir(folder / ANNOTATIONS)} if (folder / ANNOTATIONS).exists() else set()
    gone = there - {f"{uuid}.json" for uuid in known}
    changed = bool(gone)
    for name in gone:
        (folder / ANNOTATIONS / name).unlink()
    for name, data in files.items():
        changed |= make_hold(folder / ANNOTATIONS / name, data)
    _drop_photos(folder, {photo for _, photo in known.values()}, None if everything else note)
    full_look_at = datetime.now(UTC) if everything else note.full_look_at
    photos = {one[1] for one in note.known.values() if one[0] in read_again} | {one.image.sha256 for one in kept}
    copy = Note(note.project, known, changes.look, full_look_at)
    return Copied(copy, files, frozenset(gone), frozenset(photos), everything, changed)


def _copy_photos(bucket: Client, folder: Path, annotations: Sequence[Annotation]) -> list[Annotation]:
    """Keep each labelled photo's bytes at the generation that was labelled; gives the annotations that have them."""
    images = {annotation.image.sha256: annotation.image for annotation in annotations}
    missing = [image for image in images.values() if not (folder / image_path(image.sha256)).exists()]
    widen(bucket, _AT_ONCE)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copied = pool.map(partial(_copy_photo, bucket, folder), missing)
        gone = {image.sha256: error for image, error in zip(missing, copied, strict=True) if error}
    for annotation in annotations:
        if error := gone.get(annotation.image.sha256):
            logger.warning("annotation %s is left out: %s", annotation.uuid, error)
    return [annotation for annotation in annotations if annotation.image.sha256 not in gone]


def _copy_photo(bucket: Client, folder: Path, image: ImageRef) -> ObjectChangedError | None:
    """Copy a photo; gives the error when it is gone from the bucket."""
    try:
        data = read(bucket, ObjectRef(*split_uri(image.uri), image.generation))
    except ObjectChangedError as error:
        return error
    if sha256_hex(data) != image.sha256:
        raise StorageError(f"{image.uri}: the bytes are not those that were ingested; run `maskloop ingest`")
    write_atomically(folder / image_path(image.sha256), data)
    return None


def _drop_photos(folder: Path, wanted: set[str], before: Note | None) -> None:
    """Remove photos that nobody labels any more: of those known before, or of all that are there."""
    if before is None:
        there = {entry.name for entry in os.scandir(folder / IMAGES)} if (folder / IMAGES).exists() else set()
    else:
        there = {photo for _, photo in before.known.values()}
    for photo in there - wanted:
        with suppress(FileNotFoundError):  # a run that was killed here had removed it already
            (folder / IMAGES / photo).unlink()
