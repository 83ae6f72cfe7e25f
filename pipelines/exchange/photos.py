"""The photos and masks of a dataset version, read from the DVC cache or the remote without a checkout."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from pipelines.dataset.files import IMAGES, MASKS, decode_mask
from pipelines.dataset.published import Published
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
    def side(self) -> str:
        """Give the side: train, val, test or excluded."""
        return str(self.row["split"])


class ExportedPhotos:
    """The photos of a version, in order of their addresses; one is in memory at a time."""

    def __init__(self, published: Published, tag: str) -> None:
        self.tag, self._published = tag, published
        self.table = published.manifest(tag)
        self._names = _file_names(self.table["uri"].tolist(), self.table["sha256"].tolist())
        self._images, self._masks = published.folder(tag, IMAGES), published.folder(tag, MASKS)

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.table)

    @property
    def sides(self) -> list[str]:
        """Give the sides that have photos, sorted."""
        return sorted(set(self.table["split"]))

    def __iter__(self) -> Iterator[ExportedPhoto]:
        """Read each photo, with a progress bar in a terminal."""
        return self.on(*self.sides)

    def on(self, *sides: str) -> Iterator[ExportedPhoto]:
        """Read the photos of some sides."""
        rows = [
            pair for pair in zip(self._names, self.table.to_dict("records"), strict=True) if pair[1]["split"] in sides
        ]
        for name, row in track(rows, f"writing {self.tag}", transient=True):
            sha256 = str(row["sha256"])
            data = self._published.file(self._images[sha256], f"{row['uri']} of {self.tag}")
            mask = decode_mask(self._published.file(self._masks[f"{sha256}.png"], f"the mask of {row['uri']}"))
            if stored_upright(data):
                suffix = _SUFFIX[image_kind(data)[0]]
            else:  # few tools read EXIF
                data, suffix = encode_png(decode_image(data, max_megapixels=float("inf"))), ".png"
            yield ExportedPhoto(f"{name}{suffix}", data, mask, {str(key): value for key, value in row.items()})


def _file_names(uris: list[str], hashes: list[str]) -> list[str]:
    """Give each photo its object's name without suffix; where several have the same, their contents tell them apart."""
    stems = [PurePosixPath(uri).stem for uri in uris]
    often = Counter(stem.lower() for stem in stems)
    told = zip(stems, hashes, strict=True)
    return [stem if often[stem.lower()] == 1 else f"{stem}-{sha256[:12]}" for stem, sha256 in told]


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
    """Give the 4-connected parts of a (H, W) bool mask, each (H, W) bool."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    for part in range(1, count):
        yield parts == part
