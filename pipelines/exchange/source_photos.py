"""The labelled photos of a folder in any format, from what its reader lists."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
from rich.progress import track

from pipelines.exchange.label_names import LabelNames, unknown_labels
from pipelines.exchange.labelled_photos import PHOTO_ERRORS, DrawnMask, Origin, SourcePhoto
from pipelines.photos.decode import examine_image
from pipelines.records import CATALOG_COLUMNS

_READERS = 8  # threads


class SourcePhotos:
    """Photos with masks as a reader lists them, under the labels of params.yaml."""

    def __init__(self, photos: Sequence[SourcePhoto], names: LabelNames, left_out: Mapping[str, Sequence[str]]) -> None:
        """Take photos with different names; `left_out` holds what belongs to no photo, by what it is."""
        self._photos = {photo.name: photo for photo in sorted(photos, key=lambda photo: photo.name)}
        self._names, self._left_out = names, {what: sorted(texts) for what, texts in left_out.items() if texts}

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of `count` photos from position `first` on, sorted."""
        return list(self._photos)[first : first + count]

    def photo(self, name: str) -> bytes:
        """Return the photo's file."""
        return self._photos[name].data()

    def truth(self, name: str) -> np.ndarray:
        """Return the (H, W) uint8 index mask with ids of params.yaml and `IGNORE`."""
        return self.drawn(name).mask

    def drawn(self, name: str) -> DrawnMask:
        """Return the mask, and how many of its pixels several labels claim."""
        return self._photos[name].drawing().paint(self._names)

    def origin(self, name: str) -> Origin:
        """Return the photo's split and group."""
        return self._photos[name].origin

    def left_out(self) -> Mapping[str, Sequence[str]]:
        """Return what belongs to no photo, by what it is."""
        return self._left_out

    def require_labels(self) -> None:
        """Read all annotations; raise ConfigurationError naming every label that params.yaml does not have.

        An annotation that cannot be read is skipped here: it is reported with its photo.
        """
        photos_of_label: dict[str, list[str]] = defaultdict(list)
        with ThreadPoolExecutor(_READERS) as pool:
            labels = pool.map(self._labels, self._photos)
            for name, shown in track(
                zip(self._photos, labels, strict=True), "reading labels", total=len(self._photos), transient=True
            ):
                for label in sorted(set(shown)):
                    if self._names.id_of(label) is None:
                        photos_of_label[label].append(name)
        if photos_of_label:
            raise unknown_labels(photos_of_label)

    def _labels(self, name: str) -> Sequence[str]:
        try:
            return self._photos[name].drawing().labels
        except PHOTO_ERRORS:
            return ()

    def catalog(self) -> bytes:
        """Return a catalogue with the photos' names only."""
        return catalog_of(self._photos)


def catalog_of(names: Iterator[str] | Mapping[str, object] | Sequence[str]) -> bytes:
    """Return a catalogue CSV with a row per photo that holds the stem of its name and nothing else."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CATALOG_COLUMNS)
    for stem in dict.fromkeys(PurePosixPath(name).stem for name in names):
        writer.writerow([stem, *[""] * (len(CATALOG_COLUMNS) - 1)])
    return text.getvalue().encode()


def upright_size(data: bytes) -> tuple[int, int]:
    """Return height and width of a photo as people see it, EXIF applied; raise ImageError."""
    height, width, _ = examine_image(data, max_megapixels=math.inf)
    return height, width
