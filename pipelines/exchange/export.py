"""Dataset versions in formats that other tools read. A new format is one new file and one line below."""

import importlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipelines.dataset.files import IMAGES, MANIFEST, MASKS
from pipelines.dataset.published import Published
from pipelines.errors import DataError
from pipelines.exchange.photos import ExportedPhotos
from pipelines.params import Params

# By name the module whose `write(photos, params, folder)` writes a format; it is imported when it is needed.
FORMATS: Mapping[str, str] = {
    "coco": "pipelines.exchange.coco",
    "png": "pipelines.exchange.png",
    "yolo": "pipelines.exchange.yolo",
    "huggingface": "pipelines.exchange.huggingface",
}


def export(published: Published, tag: str, form: str, folder: Path, params: Params) -> int:
    """Write a dataset version to a folder that does not exist yet; return how many photos it holds.

    The folder appears with all its files or not at all. Raise DataError for an unknown version or format, or when the
    folder exists already, and DatasetError when a file of the version is neither in the cache nor on the remote.
    """
    if form not in FORMATS:
        raise DataError(f"there is no format {form!r}; give one of {', '.join(FORMATS)}")
    if tag not in published.tags():
        newest = ", ".join(published.tags()[-5:]) or "none yet"
        raise DataError(f"there is no dataset version {tag!r}; the newest: {newest}")
    if folder.exists():
        raise DataError(f"{folder} exists; give a folder that does not, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with published.checked_out(tag, IMAGES, MASKS, MANIFEST) as dataset:
        photos = ExportedPhotos(dataset, tag)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            importlib.import_module(FORMATS[form]).write(photos, params, part)
            part.chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)  # it does not exist any more when all went well
    return len(photos)
