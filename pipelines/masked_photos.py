"""Labelled photos of other makers: a folder of photos, one of index masks named like them, and a table of labels."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.catalog import COLUMNS
from pipelines.errors import ConfigurationError
from pipelines.params import Params

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class MaskedPhotos:
    """A folder of real photos, a folder of index masks named like them, and what the mask values mean."""

    photos: Path
    masks: Path
    label_of_value: np.ndarray  # (256,) uint8: mask value → id of params.yaml

    def take(self, first: int, count: int) -> list[str]:
        """Give photos in name order that have a mask."""
        found = (path.name for path in sorted(self.photos.iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES)
        return [name for name in found if (self.masks / f"{Path(name).stem}.png").exists()][first : first + count]

    def photo(self, name: str) -> bytes:
        """Give the photo's file as it is."""
        return (self.photos / name).read_bytes()

    def truth(self, name: str) -> np.ndarray:
        """Read the mask's values, palette or grey, in the ids of params.yaml."""
        from PIL import Image

        path = self.masks / f"{Path(name).stem}.png"
        with Image.open(path) as mask:
            values = np.asarray(mask)
        if values.ndim != 2 or values.min() < 0 or values.max() > 255:
            raise ConfigurationError(
                f"{path} is no index mask with values from 0 to 255; save it as 8-bit palette or grey PNG"
            )
        return self.label_of_value[values.astype(np.uint8)]

    def catalog(self) -> bytes:
        """Give a catalogue with the photos' names only."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for name in self.take(0, 1_000_000):
            writer.writerow([Path(name).stem, *[""] * (len(COLUMNS) - 1)])
        return text.getvalue().encode()


def masked_photos(photos: Path, masks: Path, labels: Path, params: Params) -> MaskedPhotos:
    """Check folders and label table of real photos.

    `labels` is a CSV with columns `index` (mask value) and `label` (a label of params.yaml, empty for background).
    Raises ConfigurationError naming what is missing or unknown.
    """
    for what, path, there in (
        ("PHOTOS", photos, photos.is_dir()), ("MASKS", masks, masks.is_dir()), ("LABELS", labels, labels.is_file())
    ):  # fmt: skip
        if not there:
            raise ConfigurationError(
                f"{what}={path} does not exist; give a folder of photos, one of index masks, and a CSV"
            )
    found = MaskedPhotos(photos, masks, _read_labels(labels, params))
    if not found.take(0, 1):
        raise ConfigurationError(f"no photo of {photos} has a mask in {masks}; masks are PNG and named like the photos")
    return found


def _read_labels(labels: Path, params: Params) -> np.ndarray:
    """Read what mask values mean: (256,) uint8 ids of params.yaml."""
    try:
        table = pd.read_csv(labels, dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # pandas' own errors are such, and so are bytes that are no text
        raise ConfigurationError(f"{labels} is no CSV table with a header row: {error}") from error
    if not {"index", "label"} <= set(table.columns):
        raise ConfigurationError(f"{labels} needs the columns index and label; it has {', '.join(table.columns)}")
    bad = [text for text in table["index"] if not (text.strip().isdecimal() and int(text) <= 255)]
    if bad:
        raise ConfigurationError(f"{labels} has an index that is no mask value from 0 to 255: {', '.join(bad)}")
    unknown = sorted(set(table["label"]) - {""} - set(params.label_ids))
    if unknown:
        raise ConfigurationError(f"{labels} names labels that params.yaml does not have: {', '.join(unknown)}")
    lookup = np.zeros(256, np.uint8)
    for value, label in zip(table["index"], table["label"], strict=True):
        lookup[int(value)] = params.label_ids.get(label, 0)
    return lookup
