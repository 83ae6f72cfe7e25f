"""The photos and masks of a dataset version as other tools shall see them."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.params import IGNORE
from pipelines.photos.decode import decode_image, encode_png, image_kind, stored_upright

_SUFFIX = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}


@dataclass(frozen=True)
class ExportedPhoto:
    """One photo as other tools shall see it: upright, under a file name of its own.

    `data` are its bytes, `mask` is (height, width) uint8 with ids of params.yaml, `row` its row of the manifest.
    """

    name: str
    data: bytes
    mask: np.ndarray
    row: dict[str, Any]

    @property
    def split(self) -> str:
        """Return the split: train, val, test or excluded."""
        return str(self.row["split"])


class ExportedPhotos:
    """The photos of a dataset that is checked out at `tag`, in order of their addresses; one is in memory at a time."""

    def __init__(self, dataset: Dataset, tag: str) -> None:
        self.tag, self._dataset = tag, dataset
        self.table = dataset.manifest()
        self._names = _file_names(self.table["uri"].tolist(), self.table["sha256"].tolist())

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.table)

    @property
    def splits(self) -> list[str]:
        """Return the splits that have photos, sorted."""
        return sorted(set(self.table["split"]))

    def __iter__(self) -> Iterator[ExportedPhoto]:
        """Read each photo, with a progress bar in a terminal."""
        return self.of(*self.splits)

    def of(self, *splits: str) -> Iterator[ExportedPhoto]:
        """Read the photos of some splits."""
        rows = [
            pair for pair in zip(self._names, self.table.to_dict("records"), strict=True) if pair[1]["split"] in splits
        ]
        for name, row in track(rows, f"writing {self.tag}", transient=True):
            sha256 = str(row["sha256"])
            data, mask = self._dataset.image_path(sha256).read_bytes(), self._dataset.read_mask(sha256)
            if stored_upright(data):
                suffix = _SUFFIX[image_kind(data)[0]]
            else:  # few tools read EXIF
                data, suffix = encode_png(decode_image(data, max_megapixels=float("inf"))), ".png"
            yield ExportedPhoto(f"{name}{suffix}", data, mask, {str(key): value for key, value in row.items()})


def _file_names(uris: list[str], hashes: list[str]) -> list[str]:
    """Name each photo like its object, without suffix; objects of one name are told apart by their contents' hash."""
    stems = [PurePosixPath(uri).stem for uri in uris]
    counts = Counter(stem.lower() for stem in stems)
    named = zip(stems, hashes, strict=True)
    return [stem if counts[stem.lower()] == 1 else f"{stem}-{sha256[:12]}" for stem, sha256 in named]


def write_photo(photo: ExportedPhoto, folder: Path) -> None:
    """Write a photo's file into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / photo.name).write_bytes(photo.data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON; equal values give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def garment_ids(mask: np.ndarray) -> list[int]:
    """Return the label ids in a (H, W) uint8 index mask, sorted: neither background nor what is ignored."""
    return np.unique(mask[(mask > 0) & (mask != IGNORE)]).tolist()


def components(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the 4-connected parts of a (H, W) bool mask, each (H, W) bool."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    for part in range(1, count):
        yield parts == part
