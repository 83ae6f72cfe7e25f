"""Externally labelled photos: a folder of photos, one of index masks named like them, and a table of labels.

A mask value without a line in the table is an error, except 0, the background: what it means is never guessed.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.errors import ConfigurationError
from pipelines.params import IGNORE, Params
from pipelines.records import CATALOG_COLUMNS

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MASK_SUFFIX = ".png"
# What other tools call what we call background, and what we ignore; a label of params.yaml by such a name comes first.
_BACKGROUND, _IGNORED = ("background",), ("ignore", "void", "unclear")
_NO_LINE = -1


@dataclass(frozen=True)
class MaskedPhotos:
    """A folder of real photos, a folder of index masks named like them, and what the mask values mean."""

    photos: Path
    masks: Path
    label_of_value: np.ndarray  # (256,) int16: mask value → id of params.yaml, `IGNORE`, or -1 without a line

    @cached_property
    def _mask_paths(self) -> dict[str, Path]:
        """Return the masks by name without suffix, which may be in capitals."""
        paths = sorted(self.masks.iterdir())
        return {path.stem: path for path in paths if path.suffix.lower() == MASK_SUFFIX}

    def _photo_names(self) -> list[str]:
        return [path.name for path in sorted(self.photos.iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES]

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of photos that have a mask, sorted: `count` of them from position `first` on."""
        names = [name for name in self._photo_names() if Path(name).stem in self._mask_paths]
        return names[first : first + count]

    def without_mask(self) -> list[str]:
        """Return the photos that have no mask."""
        return [name for name in self._photo_names() if Path(name).stem not in self._mask_paths]

    def without_photo(self) -> list[str]:
        """Return the masks that have no photo."""
        stems = {Path(name).stem for name in self._photo_names()}
        return [path.name for stem, path in self._mask_paths.items() if stem not in stems]

    def photo(self, name: str) -> bytes:
        """Return the photo's file as it is."""
        return (self.photos / name).read_bytes()

    def truth(self, name: str) -> np.ndarray:
        """Read the mask, palette or grey, as (H, W) uint8 with the ids of params.yaml and `IGNORE`.

        Raise ConfigurationError naming the mask when it is no index mask, or holds values without a line in the table.
        """
        values = self._values(name)
        if unlisted := self._unlisted(values):
            raise _without_line({value: [self._mask_paths[Path(name).stem].name] for value in unlisted})
        return self.label_of_value[values].astype(np.uint8)

    def require_lines(self) -> None:
        """Read all masks; raise ConfigurationError naming every value that has no line in the table, with examples.

        Masks that cannot be read are skipped here: whoever imports them reports them one by one.
        """
        masks_of_value: dict[int, list[str]] = {}
        for name in track(self.take(0, 1_000_000), "reading masks", transient=True):
            try:
                values = self._values(name)
            except (OSError, ConfigurationError):
                continue
            for value in self._unlisted(values):
                masks_of_value.setdefault(value, []).append(self._mask_paths[Path(name).stem].name)
        if masks_of_value:
            raise _without_line(masks_of_value)

    def _values(self, name: str) -> np.ndarray:
        """Read the values in the mask's file: (H, W) uint8."""
        from PIL import Image

        path = self._mask_paths[Path(name).stem]
        with Image.open(path) as mask:
            values = np.asarray(mask)
        if values.ndim != 2 or values.min() < 0 or values.max() > 255:
            raise ConfigurationError(
                f"{path} is no index mask with values from 0 to 255; save it as 8-bit palette or grey PNG"
            )
        return values.astype(np.uint8)

    def _unlisted(self, values: np.ndarray) -> list[int]:
        return np.unique(values[self.label_of_value[values] == _NO_LINE]).tolist()

    def catalog(self) -> bytes:
        """Return a catalogue with the photos' names only."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(CATALOG_COLUMNS)
        for name in self.take(0, 1_000_000):
            writer.writerow([Path(name).stem, *[""] * (len(CATALOG_COLUMNS) - 1)])
        return text.getvalue().encode()


def masked_photos(photos: Path, masks: Path, labels: Path, params: Params) -> MaskedPhotos:
    """Check folders and label table of real photos.

    `labels` is a CSV with columns `index` (mask value) and `label`: a label of params.yaml, the ignore label's name or
    one of "ignore", "void" and "unclear", and for the background "background" or nothing.
    Raise ConfigurationError naming what is missing or unknown.
    """
    for what, path, exists in (
        ("PHOTOS", photos, photos.is_dir()), ("MASKS", masks, masks.is_dir()), ("LABELS", labels, labels.is_file())
    ):  # fmt: skip
        if not exists:
            raise ConfigurationError(
                f"{what}={path} does not exist; give a folder of photos, one of index masks, and a CSV"
            )
    source = MaskedPhotos(photos, masks, _read_labels(labels, params))
    if not source.take(0, 1):
        raise ConfigurationError(f"no photo of {photos} has a mask in {masks}; masks are PNG and named like the photos")
    return source


def _without_line(masks_of_value: Mapping[int, list[str]]) -> ConfigurationError:
    """Return an error that names the mask values without a line in the table, each with the masks that hold it."""
    examples = [
        f"{value} in {masks[0]}{f' and {len(masks) - 1} more' if masks[1:] else ''}"
        for value, masks in sorted(masks_of_value.items())
    ]
    value = min(masks_of_value)
    return ConfigurationError(
        f"mask values without a line in LABELS: {'; '.join(examples)}. Add one for each: `{value},coat` for a label of "
        f"params.yaml, `{value},ignore` for what is neither learned nor evaluated, or `{value},background`"
    )


def _read_labels(labels: Path, params: Params) -> np.ndarray:
    """Read what mask values mean; return `MaskedPhotos.label_of_value`."""
    try:
        table = pd.read_csv(labels, dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # pandas' own errors are such, and so are bytes that are no text
        raise ConfigurationError(f"{labels} is no CSV table with a header row: {error}") from error
    if not {"index", "label"} <= set(table.columns):
        raise ConfigurationError(f"{labels} needs the columns index and label; it has {', '.join(table.columns)}")
    bad = [text for text in table["index"] if not (text.strip().isdecimal() and int(text) <= 255)]
    if bad:
        raise ConfigurationError(f"{labels} has an index that is no mask value from 0 to 255: {', '.join(bad)}")
    values, names = table["index"].astype(int), table["label"].str.strip()
    if twice := sorted(set(values[values.duplicated()])):
        raise ConfigurationError(
            f"{labels} has several lines for the index {', '.join(map(str, twice))}; keep one each"
        )
    ids = {"": 0, **dict.fromkeys(_BACKGROUND, 0), **dict.fromkeys(_IGNORED, IGNORE)}
    meanings = [params.region_ids.get(name, ids.get(name.lower(), _NO_LINE)) for name in names]
    if unknown := sorted({name for name, meaning in zip(names, meanings, strict=True) if meaning == _NO_LINE}):
        raise ConfigurationError(f"{labels} names labels that params.yaml does not have: {', '.join(unknown)}")
    lookup = np.full(256, _NO_LINE, np.int16)
    lookup[0] = 0
    lookup[values] = meanings
    return lookup
