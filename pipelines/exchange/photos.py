"""The photos and masks of a dataset version as other tools shall see them."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.errors import DatasetError, ImageError
from pipelines.exchange.file_names import file_stems
from pipelines.exchange.instances import Instances, find_annotation, find_instances, parts_as_instances
from pipelines.exchange.plain import plain_photo, reduced_labels, reduced_size
from pipelines.exchange.selection import Selection
from pipelines.params import IGNORE, Params
from pipelines.photos.decode import sha256_hex

PHOTOS_TABLE = "photos.csv"
IDENTITY = ("split", "group", "uri", "generation", "sha256", "source_sha256", "prediction_version")


@dataclass(frozen=True)
class ExportedPhoto:
    """One photo as other tools shall see it: upright, in 8 bits, under a file name of its own.

    `data` are its bytes, `mask` is (height, width) uint8 with ids of params.yaml, `row` its row of the manifest.
    `instances` are its regions, where these were asked for.
    """

    name: str
    data: bytes
    mask: np.ndarray
    row: dict[str, Any]
    instances: Instances | None = None

    @property
    def split(self) -> str:
        """Return the split: train, val, test or excluded."""
        return str(self.row["split"])

    @property
    def stem(self) -> str:
        """Return the file name without suffix."""
        return Path(self.name).stem

    @property
    def identity(self) -> dict[str, str | int]:
        """Return split, group, object, hashes, and the model version that the mask started from, if there is one.

        `sha256` is that of the exported file, `source_sha256` that of the object.
        """
        values = (
            self.split, str(self.row.get("group", "")), str(self.row["uri"]), int(self.row["generation"]),
            sha256_hex(self.data), str(self.row["sha256"]), str(self.row.get("prediction_version") or ""),
        )  # fmt: skip
        return dict(zip(IDENTITY, values, strict=True))

    def objects(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield label id and (height, width) bool mask of each instance, or of each label without instances."""
        if self.instances:
            yield from self.instances
        else:
            yield from ((label_id, self.mask == label_id) for label_id in garment_ids(self.mask))


class ExportedPhotos:
    """The selected photos of a dataset that is checked out at `tag`, in order of their addresses; one is in memory.

    `written` counts those that were read, and `notes` says what users of the export should know. A photo that cannot be
    read is left out with a note. Raise DataError when nothing is selected.
    """

    def __init__(self, dataset: Dataset, tag: str, params: Params, selection: Selection) -> None:
        self.tag, self._dataset, self._params, self._selection = tag, dataset, params, selection
        table = dataset.manifest()
        stems = file_stems(table["uri"].tolist(), table["sha256"].tolist())  # the same whatever is selected
        self.total = len(table)
        self.table = selection.rows(dataset, table.assign(stem=stems), params)
        self.written = 0
        self.notes: list[str] = []
        self._without_regions = 0

    def __len__(self) -> int:
        """Count the selected photos."""
        return len(self.table)

    @property
    def title(self) -> str:
        """Return the version's tag, and what of it was selected."""
        return f"{self.tag} ({self._selection})" if str(self._selection) else self.tag

    @property
    def splits(self) -> list[str]:
        """Return the splits that have photos, sorted."""
        return sorted(set(self.table["split"]))

    def __iter__(self) -> Iterator[ExportedPhoto]:
        """Read each photo, with a progress bar in a terminal."""
        return self.of(*self.splits)

    def of(self, *splits: str) -> Iterator[ExportedPhoto]:
        """Read the photos of some splits."""
        rows = self.table[self.table["split"].isin(splits)].to_dict("records")
        for fields in track(rows, f"writing {self.tag}", transient=True):
            row = {str(key): value for key, value in fields.items()}
            try:
                photo = self._read(row)
            except ImageError as error:
                self.notes.append(f"left out: {row['uri']}: {error}")
                continue
            self.written += 1
            yield photo

    def all_notes(self) -> tuple[str, ...]:
        """Return `notes`, and how many photos have no regions that could be read."""
        if not self._without_regions:
            return tuple(self.notes)
        counted = f"of {self._without_regions} photos no regions can be read; each connected part is an instance there"
        return (*self.notes, counted)

    def _read(self, row: dict[str, Any]) -> ExportedPhoto:
        mask = self._dataset.read_mask(str(row["sha256"]))
        data, suffix, size = plain_photo(self._bytes(row), self._selection.longest_edge)
        wanted = reduced_size(mask.shape[0], mask.shape[1], self._selection.longest_edge)
        if size != wanted:
            raise ImageError("size", f"the photo has {size[1]}×{size[0]} pixels, its mask {wanted[1]}×{wanted[0]}")
        instances = self._instances(mask, row) if self._selection.instances else None
        if size != mask.shape:
            mask = reduced_labels(mask, *size)
            instances = instances and Instances(reduced_labels(instances.numbers, *size), instances.label_ids)
        return ExportedPhoto(f"{row['stem']}{suffix}", data, mask, row, instances)

    def _bytes(self, row: dict[str, Any]) -> bytes:
        """Read a photo's bytes; raise DatasetError when they are missing or not those of the version."""
        path = self._dataset.image_path(str(row["sha256"]))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"the photo {row['uri']} is missing in {self.tag}: {error}; run the export again"
            ) from error
        if sha256_hex(data) != row["sha256"]:
            raise DatasetError(
                f"the copy of {row['uri']} in DVC's cache is damaged: it is not {row['sha256']} of {self.tag}; remove "
                "it from the cache, and the export fetches it again"
            )
        return data

    def _instances(self, mask: np.ndarray, row: dict[str, Any]) -> Instances:
        instances = find_instances(mask, find_annotation(self._dataset, row), self._params)
        if instances is None:
            self._without_regions += 1
            return parts_as_instances(mask)
        return instances


def write_photo(photo: ExportedPhoto, folder: Path) -> None:
    """Write a photo's file into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / photo.name).write_bytes(photo.data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON; equal values give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV; equal values give equal bytes."""
    file = io.StringIO()
    csv.writer(file).writerows([header, *rows])
    path.write_bytes(file.getvalue().encode())


def write_photos_table(folder: Path, identities: dict[str, dict[str, str | int]]) -> None:
    """Write photos.csv: for each exported file what it was in the dataset (see `ExportedPhoto.identity`)."""
    rows = [[name, *identity.values()] for name, identity in identities.items()]
    write_csv(folder / PHOTOS_TABLE, ["file", *IDENTITY], rows)


def garment_ids(mask: np.ndarray) -> list[int]:
    """Return the label ids in a (H, W) uint8 index mask, sorted: neither background nor what is ignored."""
    return np.unique(mask[(mask > 0) & (mask != IGNORE)]).tolist()
