"""How a catalogue's ids are compared with the object names of photos, and which other names come close."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Literal

from pipelines.records import Metadata

# Of files that an archive's catalogue may name; the object itself may have been converted since.
_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif", ".bmp",
    ".jp2", ".psd", ".dng", ".nef", ".cr2", ".arw", ".raw",
))  # fmt: skip
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_BUCKET = re.compile(r"gs://[^/]*/")
_WORDS = re.compile(r"[0-9]+|[^\W0-9_]+")
_DECIMALS = re.compile(r"([0-9]{1,40})[.,]0+")
_SCIENTIFIC = re.compile(r"([0-9](?:[.,][0-9]{1,17})?)E\+?([0-9]{1,2})", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,40}")

HintKind = Literal["number", "folder", "spelling"]


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """One row: its line in the file (from 1), its id as it stands there, and its cells that are not empty."""

    line: int
    id_file: str
    values: Metadata


@dataclass(frozen=True, slots=True)
class Match:
    """The rows (indices) of a photo.

    `loose`: they write its name in another case or with another suffix. `ambiguous`: rows that do so with different
    ids, of which none counts.
    """

    rows: tuple[int, ...] = ()
    loose: bool = False
    ambiguous: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PhotoName:
    """A path without empty parts, in Unicode's composed form (NFC): `stem` without suffix, `suffix` in lower case."""

    stem: str
    suffix: str

    @property
    def depth(self) -> int:
        """Return the number of folders and names of the path."""
        return self.stem.count("/") + 1

    @property
    def last(self) -> str:
        """Return the file's name without folders and suffix."""
        return self.stem.rpartition("/")[2]

    def endings(self, depths: Set[int]) -> Iterator[str]:
        """Yield the ends of the stem that have as many parts as one of `depths` says, the longest first."""
        parts = self.stem.split("/")
        for depth in range(len(parts), 0, -1):
            if depth in depths:
                yield "/".join(parts[-depth:])


def name_of_id(id_file: str) -> PhotoName | None:
    """Return what a catalogue's id names, or None when it names nothing; only suffixes of photos are taken off."""
    path = _path(_BUCKET.sub("", id_file, count=1) if id_file.startswith("gs://") else id_file)
    stem, suffix = _split(path)
    if not path:
        return None
    return PhotoName(stem, suffix) if suffix in _SUFFIXES else PhotoName(path, "")


def name_of_photo(object_name: str) -> PhotoName:
    """Return the name of a photo by its object name (without `gs://bucket/`)."""
    return PhotoName(*_split(_path(object_name)))


def _path(text: str) -> str:
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\\", "/")
    parts = (part.strip() for part in text.split("/"))
    return "/".join(part for part in parts if part not in ("", "."))


def _split(path: str) -> tuple[str, str]:
    stem, dot, suffix = path.rpartition(".")
    if not dot or not stem or stem.endswith("/") or "/" in suffix:
        return path, ""
    return stem.rstrip(), f".{suffix.lower()}"


class Hints:
    """Rows that fit no photo, by what spreadsheets and people make of a photo's name."""

    def __init__(self, names: Iterable[tuple[int, PhotoName]]) -> None:
        """Take indices of rows with what their ids name."""
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._digits: set[int] = set()  # behind the point of ids such as 1.20E+11
        for row, name in names:
            self._rows.setdefault(self._key(name.last), []).append(row)
            if name.depth > 1:
                self._rows.setdefault(("folder", name.last), []).append(row)

    def for_photo(self, name: PhotoName) -> tuple[HintKind, list[int]] | None:
        """Return in what the name of a photo differs from the ids of rows that may be its own, and these rows."""
        is_number = _NUMBER.fullmatch(name.last) is not None
        keys: list[tuple[HintKind, tuple[str, str]]] = [
            ("folder", ("folder", name.last)),
            ("number" if is_number else "spelling", ("plain", _plain(name.last))),
        ]
        if is_number:
            forms = (f"{float(name.last):.{digits}E}" for digits in sorted(self._digits))
            keys += [("number", ("scientific", form)) for form in forms]
        return next(((kind, self._rows[key]) for kind, key in keys if key in self._rows), None)

    def _key(self, last: str) -> tuple[str, str]:
        if scientific := _SCIENTIFIC.fullmatch(last):
            mantissa = scientific[1].replace(",", ".")
            self._digits.add(max(len(mantissa) - 2, 0))
            return "scientific", f"{mantissa}E+{int(scientific[2]):02d}"
        decimals = _DECIMALS.fullmatch(last)
        return "plain", _plain(decimals[1] if decimals else last)


def _plain(last: str) -> str:
    """Return the words and numbers of a name, without accents, case, leading zeros, and what separates them."""
    letters = "".join(c for c in unicodedata.normalize("NFD", last) if not unicodedata.combining(c)).lower()
    return "-".join(word.lstrip("0") or word[:1] for word in _WORDS.findall(letters)) or last
