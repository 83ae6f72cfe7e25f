"""Externally labelled photos: a folder of photos, one of index masks named like them, and a table of labels.

A mask value without a line in the table is an error, except 0, the background: what it means is never guessed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.progress import track

from pipelines.errors import ConfigurationError
from pipelines.exchange.label_names import NOT_IN_PARAMS, LabelNames, read_table
from pipelines.exchange.labelled_photos import NO_MASK, NO_PHOTO, PHOTO_ERRORS, DrawnMask, Origin
from pipelines.exchange.masks import open_mask
from pipelines.exchange.photo_files import PHOTO_SUFFIXES, file_key, read_origins, stem_key
from pipelines.exchange.source_photos import catalog_of
from pipelines.params import Params

MASK_SUFFIX = ".png"
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")
_NO_LINE = -1


@dataclass(frozen=True)
class MaskedPhotos:
    """A folder of real photos, a folder of index masks named like them, and what the mask values mean.

    Photos and masks are paired by name without suffix; suffixes may be in capitals, and Unicode forms do not matter.
    """

    photos: Path
    masks: Path
    label_of_value: np.ndarray  # (256,) int16: mask value → id of params.yaml, `IGNORE`, or -1 without a line
    origins: Mapping[str, Origin] = field(default_factory=dict)  # by file name, see `photo_files.read_origins`

    @cached_property
    def _photo_names(self) -> Mapping[str, list[str]]:
        """Return the names of photos by name without suffix."""
        names: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.photos.iterdir()):
            if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
                names[stem_key(path.name)].append(path.name)
        return names

    @cached_property
    def _mask_paths(self) -> Mapping[str, list[Path]]:
        """Return the masks by name without suffix."""
        paths: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.masks.iterdir()):
            if path.suffix.lower() == MASK_SUFFIX and not path.name.startswith("."):
                paths[stem_key(path.name)].append(path)
        return paths

    @cached_property
    def _pairs(self) -> Mapping[str, Path]:
        """Return the mask of each photo that has one; several photos or masks of one name are no pair."""
        pairs = {}
        for stem, names in self._photo_names.items():
            masks = self._mask_paths.get(stem, [])
            if len(names) == len(masks) == 1:
                pairs[names[0]] = masks[0]
        return dict(sorted(pairs.items()))

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of photos that have a mask, sorted: `count` of them from position `first` on."""
        return list(self._pairs)[first : first + count]

    def without_mask(self) -> list[str]:
        """Return the photos that have no mask."""
        return [name for stem, names in self._photo_names.items() for name in names if stem not in self._mask_paths]

    def without_photo(self) -> list[str]:
        """Return the masks that have no photo."""
        return [
            path.name for stem, paths in self._mask_paths.items() for path in paths if stem not in self._photo_names
        ]

    def left_out(self) -> Mapping[str, Sequence[str]]:
        """Return the files of both folders that are no pair, by what they are."""
        several = [
            name
            for stem, names in self._photo_names.items()
            for name in (*names, *(path.name for path in self._mask_paths.get(stem, [])))
            if stem in self._mask_paths and (len(names) > 1 or len(self._mask_paths[stem]) > 1)
        ]
        left_out = {
            NO_MASK: self.without_mask(),
            NO_PHOTO: self.without_photo(),
            "photos or masks of one name": several,
            "files that are no photos": _others(self.photos, PHOTO_SUFFIXES),
            "files that are no PNG masks": _others(self.masks, (MASK_SUFFIX,)),
        }
        return {what: names for what, names in left_out.items() if names}

    def photo(self, name: str) -> bytes:
        """Return the photo's file as it is."""
        return (self.photos / name).read_bytes()

    def origin(self, name: str) -> Origin:
        """Return the photo's split and group, as photos.csv beside the folder of photos names them."""
        return self.origins.get(file_key(name), Origin())

    def truth(self, name: str) -> np.ndarray:
        """Read the mask, palette or grey, as (H, W) uint8 with the ids of params.yaml and `IGNORE`.

        Raise ConfigurationError naming the mask when it is no index mask, or holds values without a line in the table.
        """
        values = self._values(name)
        if unlisted := self._unlisted(values):
            raise _without_line({value: [self._pairs[name].name] for value in unlisted})
        return self.label_of_value[values].astype(np.uint8)

    def drawn(self, name: str) -> DrawnMask:
        """Read the mask like `truth`; labels never overlap in it."""
        return DrawnMask(self.truth(name))

    def require_labels(self) -> None:
        """Read all masks; raise ConfigurationError naming every value that has no line in the table, with examples.

        Masks that cannot be read are skipped here: whoever imports them reports them one by one.
        """
        masks_of_value: dict[int, list[str]] = {}
        for name in track(self.take(0, 1_000_000), "reading masks", transient=True):
            try:
                values = self._values(name)
            except PHOTO_ERRORS:
                continue
            for value in self._unlisted(values):
                masks_of_value.setdefault(value, []).append(self._pairs[name].name)
        if masks_of_value:
            raise _without_line(masks_of_value)

    def _values(self, name: str) -> np.ndarray:
        """Read the values in the mask's file: (H, W) uint8."""
        path = self._pairs[name]
        with open_mask(path) as mask:
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
        return catalog_of(self.take(0, 1_000_000))


def masked_photos(
    photos: Path, masks: Path, labels: Path, params: Params, renames: Mapping[str, str] | None = None
) -> MaskedPhotos:
    """Check folders and label table of real photos.

    `labels` is a CSV with columns `index` (mask value) and `label`: a label of params.yaml, the ignore label's name or
    one of "ignore", "void" and "unclear", and for the background "background" or nothing. `renames` maps other names in
    it to these. Raise ConfigurationError naming what is missing or unknown.
    """
    return masked_photos_of(photos, masks, labels, LabelNames(params, renames))


def masked_photos_of(photos: Path, masks: Path, labels: Path, names: LabelNames) -> MaskedPhotos:
    """Check folders and label table like `masked_photos`, with names that are joined already."""
    for what, path, exists in (
        ("PHOTOS", photos, photos.is_dir()), ("MASKS", masks, masks.is_dir()), ("LABELS", labels, labels.is_file())
    ):  # fmt: skip
        if not exists:
            raise ConfigurationError(
                f"{what}={path} does not exist; give a folder of photos, one of index masks, and a CSV"
            )
    source = MaskedPhotos(photos, masks, _read_labels(labels, names), read_origins(photos.parent))
    if not source.take(0, 1):
        raise ConfigurationError(f"no photo of {photos} has a mask in {masks}; masks are PNG and named like the photos")
    return source


def _others(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    return [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix.lower() not in suffixes
        and not path.name.startswith(".")
        and path.name.lower() not in _OF_SYSTEMS
    ]


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


def _read_labels(labels: Path, label_names: LabelNames) -> np.ndarray:
    """Read what mask values mean; return `MaskedPhotos.label_of_value`."""
    table = read_table(labels, "index", "label")
    bad = [text for text in table["index"] if not (text.strip().isdecimal() and int(text) <= 255)]
    if bad:
        raise ConfigurationError(f"{labels} has an index that is no mask value from 0 to 255: {', '.join(bad)}")
    values, names = table["index"].astype(int), table["label"].str.strip()
    if twice := sorted(set(values[values.duplicated()])):
        raise ConfigurationError(
            f"{labels} has several lines for the index {', '.join(map(str, twice))}; keep one each"
        )
    meanings = [label_names.id_of(name) if name else 0 for name in names]
    known = [meaning for meaning in meanings if meaning is not None]
    if unknown := sorted({name for name, meaning in zip(names, meanings, strict=True) if meaning is None}):
        raise ConfigurationError(f"{labels} names labels that {NOT_IN_PARAMS} {', '.join(unknown)}")
    lookup = np.full(256, _NO_LINE, np.int16)
    lookup[0] = 0
    lookup[values] = known
    return lookup
