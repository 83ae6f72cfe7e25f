"""Dataset versions in formats that other tools read. A new format is one new file and one line below."""

import fcntl
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, MASKS
from pipelines.dataset.published import Published
from pipelines.errors import DataError
from pipelines.exchange.labels import with_labels_of
from pipelines.exchange.photos import ExportedPhotos
from pipelines.exchange.selection import Selection
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex

# By name the module whose `write(photos, params, folder)` writes a format; it is imported when it is needed.
FORMATS: Mapping[str, str] = {
    "coco": "pipelines.exchange.coco",
    "png": "pipelines.exchange.png",
    "yolo": "pipelines.exchange.yolo",
    "huggingface": "pipelines.exchange.huggingface",
    "voc": "pipelines.exchange.voc",
}
WITH_INSTANCES = ("coco", "yolo", "voc")  # formats that can tell instances of a label apart
EVERYTHING = Selection()


@dataclass(frozen=True)
class ExportReport:
    """How many photos were written of how many in the version, and what its users should know."""

    written: int
    total: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the numbers."""
        return f"{self.written} of {self.total} photos"


def export(
    published: Published, tag: str, form: str, folder: Path, params: Params, selection: Selection = EVERYTHING
) -> ExportReport:
    """Write a dataset version, or the selected part of it, to a folder that does not exist yet.

    The folder appears with all its files or not at all. Raise DataError for an unknown version or format, when nothing
    is selected, or when the folder exists already or cannot be written, and DatasetError when a file of the version is
    neither in the cache nor on the remote.
    """
    if form not in FORMATS:
        raise DataError(f"there is no format {form!r}; give one of {', '.join(FORMATS)}")
    if selection.instances and form not in WITH_INSTANCES:
        raise DataError(f"{form} cannot tell instances apart; give one of {', '.join(WITH_INSTANCES)}")
    if tag not in published.tags():
        newest = ", ".join(published.tags()[-5:]) or "none yet"
        raise DataError(f"there is no dataset version {tag!r}; the newest: {newest}")
    targets = [IMAGES, MASKS, MANIFEST, *([ANNOTATIONS] if selection.instances or selection.reviewed else [])]
    with _appearing(folder) as part, published.checked_out(tag, *targets) as dataset:
        known = with_labels_of(dataset, params)
        photos = ExportedPhotos(dataset, tag, known, selection)
        photos.notes += [
            f"params.yaml has no label {label.id} any more; it is exported as {label.name!r}"
            for label in known.labels[len(params.labels) :]
        ]
        importlib.import_module(FORMATS[form]).write(photos, known, part)
        if not photos.written:
            raise DataError("\n".join(["no photo could be exported", *photos.all_notes()]))
        return ExportReport(photos.written, photos.total, photos.all_notes())


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends without an error.

    After an error nothing is left of it, and what a killed export to the same folder left behind is removed by the next
    one. Raise DataError when `folder` exists or cannot be written.
    """
    _require_free(folder)
    prefix = f".export-{sha256_hex(folder.name.encode())[:16]}-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for remains in folder.parent.glob(f"{prefix}*"):
            with suppress(OSError), _locked(remains):
                shutil.rmtree(remains, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}; give another folder") from error
    try:
        with _locked(part, needed=False):
            yield part
            with suppress(OSError):  # not every file system knows modes
                part.chmod(0o755)
            _require_free(folder)
            part.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}; free space there, or give another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # it does not exist any more when all went well


def _require_free(folder: Path) -> None:
    if os.path.lexists(folder):
        raise DataError(f"{folder} exists; give a folder that does not, or remove it")


@contextmanager
def _locked(folder: Path, *, needed: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process; raise OSError when it is held elsewhere.

    Not all network file systems lock folders: where the lock is not `needed`, go on without it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if needed:
                raise
        yield
    finally:
        os.close(descriptor)
