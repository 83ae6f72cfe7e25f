"""Photo files below a folder, found by the names that annotation files give them; and photos.csv beside them."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipelines.dataset.split import EXCLUDED, TEST, TRAIN, VAL
from pipelines.errors import DataError
from pipelines.exchange.label_names import read_table
from pipelines.exchange.labelled_photos import Origin

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".bmp", ".gif", ".jp2",
)  # fmt: skip
PHOTOS_TABLE = "photos.csv"
_NO_PHOTOS = ("masks", "labels", "annotations", "segmentationclass", "segmentationobject")  # folders of other pictures
_SPLITS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
    "excluded": EXCLUDED,
}  # fmt: skip


class PhotoFiles:
    """The photos below a folder. A name only ever leads to a file below it, whatever an annotation file says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _by_file_name(self) -> Mapping[str, list[PurePosixPath]]:
        names: dict[str, list[PurePosixPath]] = defaultdict(list)
        for name in sorted(_walk(self.folder)):
            names[file_key(name)].append(PurePosixPath(name))
        return names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the photos' paths below the folder."""
        return (str(path) for paths in self._by_file_name.values() for path in paths)

    def find(self, name: str, prefer: str = "") -> str:
        """Return the path below the folder of the photo that an annotation file calls `name`.

        That is the only file whose path ends with it, of several the one in a folder called `prefer`. Absolute paths
        and addresses are of another machine: the longest end of them counts that fits. Unicode forms (NFC, NFD) and
        suffixes in capitals are the same. Raise DataError when no file fits, or several do.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        foreign = name.startswith(("/", "\\")) or ".." in parts or ":" in name
        for start in range(len(parts) if foreign else min(len(parts), 1)):
            if ".." in (wanted := parts[start:]):
                continue
            key = tuple(file_key(part) for part in wanted)
            paths = [path for path in self._by_file_name.get(key[-1], ()) if _keys(path)[-len(key) :] == key]
            if len(paths) > 1:  # the same file in the folder itself, or in the folder that is preferred
                near = [path for path in paths if len(path.parts) == len(key)]
                paths = near or [path for path in paths if prefer and prefer in path.parts] or paths
            if len(paths) > 1:
                raise DataError(
                    f"the photo {name!r} may be {' or '.join(map(str, paths[:3]))}; name its folder as well"
                )
            if paths:
                return str(paths[0])
        raise DataError(f"there is no photo {name!r} below {self.folder}; put it there")

    def read(self, name: str) -> bytes:
        """Return a photo's file by its path below the folder."""
        return (self.folder / name).read_bytes()


def file_key(name: str) -> str:
    """Return a file's name without folders so that equal names are equal: NFC, suffix in small letters."""
    stem, dot, suffix = unicodedata.normalize("NFC", PurePosixPath(name).name).rpartition(".")
    return f"{stem}{dot}{suffix.lower()}" if dot else suffix


def stem_key(name: str) -> str:
    """Return a file's name without folders and suffix, in NFC."""
    return unicodedata.normalize("NFC", PurePosixPath(name).stem)


def split_named(text: str) -> str:
    """Return the split that a folder or file is named after, such as `instances_val2017`; empty unless it is one."""
    splits = {_SPLITS[word] for word in re.findall("[a-z]+", text.lower()) if word in _SPLITS}
    return splits.pop() if len(splits) == 1 else ""


def read_origins(folder: Path) -> dict[str, Origin]:
    """Read split and group by file name from photos.csv, which exports write; return nothing when there is none.

    Raise ConfigurationError when it is no table with a column `file`.
    """
    path = folder / PHOTOS_TABLE
    if not path.is_file():
        return {}
    table = read_table(path, "file")
    columns = [table[name] if name in table.columns else [""] * len(table) for name in ("file", "split", "group")]
    return {
        file_key(file): Origin(split_named(split), group.strip()) for file, split, group in zip(*columns, strict=True)
    }


def read_text(path: Path) -> str:
    """Read a text in UTF-8; raise DataError for other bytes and for a file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check the file") from error


def without(names: Collection[str], used: Collection[str]) -> list[str]:
    """Return the names that are not used, sorted."""
    return sorted(set(names) - set(used))


def _walk(folder: Path) -> Iterator[str]:
    """Yield the photos below a folder as paths with `/`; linked folders are followed, each folder once."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name.lower() not in _NO_PHOTOS and real not in seen
        )
        if real in seen:
            continue
        seen.add(real)
        below = Path(root).relative_to(folder)
        yield from (
            (below / file).as_posix()
            for file in files
            if file.lower().endswith(PHOTO_SUFFIXES) and not file.startswith(".")
        )


def _keys(path: PurePosixPath) -> tuple[str, ...]:
    return tuple(file_key(part) for part in path.parts)
