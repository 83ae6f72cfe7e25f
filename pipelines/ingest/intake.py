"""Photos of the source bucket: each is read, checked and identified in bounded memory, or set aside with a reason."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.cloud.storage import Client

from pipelines.errors import (
    CredentialsError,
    ImageError,
    MaskloopError,
    ObjectChangedError,
    ObjectStalledError,
    ObjectUnusableError,
)
from pipelines.forget.ledger import EMPTY_LEDGER, Forgotten
from pipelines.gcs.client import COPIES, put, read
from pipelines.photos.copies import copy_size
from pipelines.photos.decode import (
    BROWSER_FORMATS,
    display_copy,
    examine_image,
    image_kind,
    image_megapixels,
    sha256_hex,
)
from pipelines.photos.memory_budget import Budget
from pipelines.records import ImageRef, ObjectRef

REMOVED_ON_REQUEST = "forgotten"  # the reason of photos that were removed on request
WHY_NO_TASK = (
    "a photo with these bytes was removed on request, so it becomes no task; delete it, or allow it again with "
    "`maskloop forget --undo` and its address"
)
_MAX_MB_IN_MEMORY = 256.0  # of all files that are read at a time
_MAX_BYTES = 256 << 20  # of one file; before it is read, its content is unknown
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"), "BMP": (".bmp", ".dib"), "AVIF": (".avif", ".avifs"), "HEIF": (".heic", ".heif"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
}  # fmt: skip
_REASONS: tuple[tuple[type[MaskloopError], str], ...] = (  # the first that fits counts
    (ObjectChangedError, "gone"), (ObjectUnusableError, "unreadable"), (ObjectStalledError, "stalled"),
    (CredentialsError, "refused"), (MaskloopError, "unavailable"),
)  # fmt: skip
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """What somebody should check: its address, a stable reason code, and what to do.

    A photo that is `set_aside` did not become a task; with any other problem it did.
    """

    uri: str
    reason: str
    message: str
    generation: int = 0
    set_aside: bool = True


class PhotoIntake:
    """Reads and checks photos, from any number of threads.

    Files in memory have at most 256 MB together. Decoded photos in memory have at most `max_megapixels` together, so
    that a photo of that size is decoded alone. Of photos that browsers do not show, copies are stored in `target`, and
    smaller ones of photos with more than `editor_megapixels` (0: of none), unless their SHA-256 is in `full_size`.
    """

    def __init__(
        self, bucket: Client, max_megapixels: float, target: str, forgotten: Forgotten = EMPTY_LEDGER, *,
        editor_megapixels: float = 0, full_size: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._bucket, self._max_megapixels, self._target = bucket, max_megapixels, target
        self._editor_megapixels, self._full_size = editor_megapixels, full_size
        self._forgotten = forgotten
        self._files, self._pixels = Budget(_MAX_MB_IN_MEMORY), Budget(max_megapixels)

    def read(self, ref: ObjectRef) -> tuple[ImageRef | Problem, Problem | None]:
        """Return the photo, or why it is set aside; and a remark about the photo if there is one. Raises nothing."""
        try:
            with self._files.reserve(max(ref.size, 0) / 1e6):
                return self._read(ref)
        except ImageError as error:
            encoded = f" (it is stored with the content encoding {ref.encoding})" if ref.encoding else ""
            return Problem(ref.uri, error.reason, f"{error}{encoded}", ref.generation), None
        except MaskloopError as error:
            reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
            return Problem(ref.uri, reason, str(error), ref.generation), None
        except Exception as error:  # a library's own bug must not cost the other photos their tasks
            logger.exception("%s", ref.uri)
            return Problem(ref.uri, "unreadable", f"it cannot be decoded: {error!r}", ref.generation), None

    def _read(self, ref: ObjectRef) -> tuple[ImageRef, Problem | None]:
        data = read(self._bucket, ref, max_bytes=_MAX_BYTES)
        sha256 = sha256_hex(data)
        if sha256 in self._forgotten:
            raise ImageError(REMOVED_ON_REQUEST, WHY_NO_TASK)
        kind, animated = image_kind(data)
        if animated:
            raise ImageError("animated", "the file is an animation; nobody could tell which frame was labelled")
        with self._pixels.reserve(image_megapixels(data, max_megapixels=self._max_megapixels)):
            height, width, phash = examine_image(data, max_megapixels=self._max_megapixels)
            size = copy_size(height, width, 0 if sha256 in self._full_size else self._editor_megapixels)
            smaller = size if size != (height, width) else None
            shown = self._copy(data, sha256, kind, ref, smaller)
        remark = None
        if not ref.name.lower().endswith(_SUFFIXES[kind]):
            text = f"the file is {kind}; rename it to end with {_SUFFIXES[kind][0]} and its task follows"
            remark = Problem(ref.uri, "mislabelled", text, ref.generation, set_aside=False)
        return ImageRef(ref.uri, ref.generation, sha256, height, width, phash, shown, *(smaller or (0, 0))), remark

    def _copy(self, data: bytes, sha256: str, kind: str, ref: ObjectRef, smaller: tuple[int, int] | None) -> str:
        """Store what browsers show instead of the object; return its address, or an empty text if none is needed.

        An object with a content encoding is decoded by some programs and by others not, so it is copied as well. The
        name of a `smaller` copy holds its size, so that a task never sees its copy change.
        """
        if kind in BROWSER_FORMATS and not ref.encoding and not smaller:
            return ""
        suffix = ".jpg"
        if kind in BROWSER_FORMATS and not smaller:
            suffix = _SUFFIXES[kind][0]
        else:
            data = display_copy(data, max_megapixels=self._max_megapixels, size=smaller)
            sha256 += f".{smaller[1]}x{smaller[0]}" if smaller else ""
        name = f"{COPIES}{sha256}{suffix}"
        put(self._bucket, self._target, name, data, {".jpg": "image/jpeg"}.get(suffix, f"image/{suffix[1:]}"))
        return f"gs://{self._target}/{name}"


def drop_listed_duplicates(
    new: Sequence[ObjectRef], objects: Iterable[ObjectRef], known: set[tuple[str, int]]
) -> tuple[list[ObjectRef], dict[ObjectRef, str]]:
    """Drop the `new` objects that are duplicates by the listing's MD5: they need not be read, on this run or later.

    `objects` are all of the listing, `known` the addresses and generations that have a task. Returns the objects to
    read, and for each duplicate the address of its original: one that has a task, or the first by name.
    """
    originals: dict[str, ObjectRef] = {}
    for ref in sorted(objects, key=lambda ref: ((ref.uri, ref.generation) not in known, ref.name)):
        if ref.md5:
            originals.setdefault(ref.md5, ref)
    duplicates = {ref: originals[ref.md5].uri for ref in new if ref.md5 and originals[ref.md5].uri != ref.uri}
    return [ref for ref in new if ref not in duplicates], duplicates


def problem_of_duplicate(duplicate: ObjectRef, original: str, set_aside: Mapping[str, Problem]) -> Problem:
    """Return why a duplicate is set aside: as such, or for the reason for which its original was."""
    problem = set_aside.get(original)
    if problem is None:
        return _duplicate(duplicate.uri, duplicate.generation, original)
    message = f"same bytes as {original}: {problem.message}"
    return Problem(duplicate.uri, problem.reason, message, duplicate.generation)


def drop_duplicate_photos(photos: Iterable[ImageRef], owners: dict[str, str]) -> tuple[list[ImageRef], list[Problem]]:
    """Return one photo per content, and the others as problems with the reason `duplicate`.

    `owners` maps the sha256 of photos that have a task, or get one, to their address; new ones are added to it.
    """
    unique, problems = [], []
    for photo in photos:
        original = owners.setdefault(photo.sha256, photo.uri)
        if original == photo.uri:
            unique.append(photo)
        else:
            problems.append(_duplicate(photo.uri, photo.generation, original))
    return unique, problems


def _duplicate(uri: str, generation: int, original: str) -> Problem:
    return Problem(uri, "duplicate", f"same bytes as {original}, which has the task", generation)
