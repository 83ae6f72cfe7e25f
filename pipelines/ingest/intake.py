"""What the source bucket offers: each photo read, checked and named, in bounded memory; or why it is set aside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.cloud.storage import Client

from pipelines.errors import ImageError, ObjectChangedError, ObjectUnusableError
from pipelines.gcs.client import read
from pipelines.photos.decode import examine_image, image_kind, image_megapixels, sha256_hex
from pipelines.photos.memory_budget import Budget
from pipelines.records import ImageRef, ObjectRef

_MOST_MB = 256.0  # of files that are in memory at once
_MOST_BYTES = 256 << 20  # of one file; before it is read, nobody knows what it is
_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",)}


@dataclass(frozen=True)
class Problem:
    """What somebody should look at: its address, a stable reason code, and what to do.

    A photo that is `set_aside` did not become a task; with any other problem it did.
    """

    uri: str
    reason: str
    message: str
    generation: int = 0
    set_aside: bool = True


class PhotoIntake:
    """Reads and checks photos, from any number of threads; files in memory have at most 256 MB together.

    Decoded photos in memory have at most `max_megapixels` together, so a photo of that size is decoded alone.
    """

    def __init__(self, bucket: Client, max_megapixels: float) -> None:
        self._bucket, self._most = bucket, max_megapixels
        self._files, self._pixels = Budget(_MOST_MB), Budget(max_megapixels)

    def read(self, ref: ObjectRef) -> tuple[ImageRef | Problem, Problem | None]:
        """Give the photo or why it is set aside, and a remark about it if there is one."""
        with self._files.held(max(ref.size, 0) / 1e6):
            try:
                data = read(self._bucket, ref, most_bytes=_MOST_BYTES)
                kind, animated = image_kind(data)
                if animated:
                    raise ImageError("animated", "the file moves, and nobody could tell which picture was labelled")
                with self._pixels.held(image_megapixels(data, max_megapixels=self._most)):
                    height, width, phash = examine_image(data, max_megapixels=self._most)
            except ImageError as error:
                return Problem(ref.uri, error.reason, str(error), ref.generation), None
            except ObjectChangedError as error:
                return Problem(ref.uri, "gone", str(error), ref.generation), None
            except ObjectUnusableError as error:
                return Problem(ref.uri, "unreadable", str(error), ref.generation), None
            note = None
            if not ref.name.lower().endswith(_SUFFIXES[kind]):
                note = Problem(
                    ref.uri, "mislabelled", f"the file is {kind}; rename it", ref.generation, set_aside=False
                )
            return ImageRef(ref.uri, ref.generation, sha256_hex(data), height, width, phash), note


def without_copies(
    fresh: Sequence[ObjectRef], objects: Iterable[ObjectRef], known: set[tuple[str, int]]
) -> tuple[list[ObjectRef], dict[ObjectRef, str]]:
    """Leave out what the listing's MD5 shows to be a copy: nobody need read it, now or on any later run.

    Gives what is to be read, and for each copy the address of the original: one that has a task, or the first by name.
    """
    first: dict[str, ObjectRef] = {}
    for ref in sorted(objects, key=lambda ref: ((ref.uri, ref.generation) not in known, ref.name)):
        if ref.md5:
            first.setdefault(ref.md5, ref)
    copies = {ref: first[ref.md5].uri for ref in fresh if ref.md5 and first[ref.md5].uri != ref.uri}
    return [ref for ref in fresh if ref not in copies], copies


def problem_of_copy(copy: ObjectRef, original: str, set_aside: Mapping[str, Problem]) -> Problem:
    """Set a copy aside: as a duplicate, or for the reason that its original was."""
    problem = set_aside.get(original)
    if problem is None:
        return _duplicate(copy.uri, copy.generation, original)
    return Problem(copy.uri, problem.reason, f"same bytes as {original}: {problem.message}", copy.generation)


def without_doubles(photos: list[ImageRef], owner: dict[str, str]) -> tuple[list[ImageRef], list[Problem]]:
    """Keep one photo per content; the others are reported as `duplicate`. `owner` maps sha256 to address and grows."""
    kept, doubles = [], []
    for photo in photos:
        first = owner.setdefault(photo.sha256, photo.uri)
        if first == photo.uri:
            kept.append(photo)
        else:
            doubles.append(_duplicate(photo.uri, photo.generation, first))
    return kept, doubles


def _duplicate(uri: str, generation: int, first: str) -> Problem:
    return Problem(uri, "duplicate", f"same bytes as {first}, which has the task", generation)
