"""Photos that are labelled already, whatever format they come in: what the import asks of every reader."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import AnnotationError, ConfigurationError, DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.params import IGNORE

Mask = NDArray[np.bool_]
NO_MASK, NO_PHOTO = "photos without a mask", "masks without a photo"
UNUSABLE = "entries that cannot be used"
_MAX_PIXELS = 1 << 28  # of a mask; a few bytes may declare a huge one


@dataclass(frozen=True)
class DrawnMask:
    """A (H, W) uint8 index mask with ids of params.yaml and `IGNORE`.

    `overlap_pixels` counts pixels that regions with different labels claim; see each reader for which one gets them.
    """

    mask: NDArray[np.uint8]
    overlap_pixels: int = 0


@dataclass(frozen=True)
class Origin:
    """The split (train, val, test or excluded) and group of a photo in its own dataset; empty when there is none.

    `blind` is False where the dataset says that a model drew some of the mask.
    """

    split: str = ""
    group: str = ""
    blind: bool = True


class LabelledPhotos(Protocol):
    """Photos by name, with their masks. What one photo cannot give is an error of this photo alone."""

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of `count` photos with a mask from position `first` on: paths below the photos' folder."""

    def photo(self, name: str) -> bytes:
        """Return the photo's file; raise OSError or DataError."""

    def drawn(self, name: str) -> DrawnMask:
        """Return the mask; raise OSError, DataError or ConfigurationError."""

    def origin(self, name: str) -> Origin:
        """Return the photo's split and group."""

    def left_out(self) -> Mapping[str, Sequence[str]]:
        """Return what is no photo with a mask: names by what they are, such as `photos without a mask`."""

    def require_labels(self) -> None:
        """Raise ConfigurationError naming all labels that params.yaml does not have, with counts and examples."""

    def catalog(self) -> bytes:
        """Return a catalogue CSV with the photos' names."""


class Drawing(Protocol):
    """The annotation of one photo, before labels are joined with params.yaml."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width in pixels."""

    @property
    def labels(self) -> Sequence[str]:
        """Return the labels in it by their own names, without what is ignored anyway."""

    def paint(self, names: LabelNames) -> DrawnMask:
        """Return the index mask; raise DataError naming what cannot be drawn."""


@dataclass(frozen=True)
class Region:
    """One region; `pixels` returns (H, W) bool. A `label` of None is ignored pixels.

    Regions of a higher `layer` cover others. `where` names the place in the file for messages.
    """

    label: str | None
    pixels: Callable[[], Mask]
    where: str
    layer: int = 0


@dataclass(frozen=True)
class RegionDrawing:
    """Regions in drawing order: a later one covers an earlier one of the same layer.

    With `smaller_on_top`, for formats that have no order, a smaller region covers a larger one instead.
    """

    size: tuple[int, int]
    regions: Sequence[Region]
    smaller_on_top: bool = False

    @property
    def labels(self) -> list[str]:
        """Return the labels of the regions."""
        return [region.label for region in self.regions if region.label is not None]

    def paint(self, names: LabelNames) -> DrawnMask:
        """Paint the regions in order."""
        require_size(self.size)
        crops = [(region, *_cropped(region, self.size)) for region in self.regions]
        if self.smaller_on_top:
            crops.sort(key=lambda crop: -int(np.count_nonzero(crop[2])))
        crops.sort(key=lambda crop: crop[0].layer)  # stable
        mask, overlap = np.zeros(self.size, np.uint8), 0
        for region, (rows, columns), pixels in crops:
            value = IGNORE if region.label is None else names.require_id(region.label)
            below = mask[rows, columns]
            overlap += int(np.count_nonzero(pixels & (below != 0) & (below != value)))
            np.copyto(below, value, where=pixels)
        return DrawnMask(mask, overlap)


@dataclass(frozen=True)
class IndexDrawing:
    """A (H, W) array of values 0..255; `names` says which label a value is, None being ignored."""

    values: NDArray[np.uint8]
    names: Mapping[int, str | None]

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def labels(self) -> list[str]:
        """Return the labels of the values; a value without a name counts as a label named by its number."""
        labels = [self.names.get(value, str(value)) for value in np.unique(self.values).tolist()]
        return [label for label in labels if label is not None]

    def paint(self, names: LabelNames) -> DrawnMask:
        """Look each value up."""
        lookup = np.zeros(256, np.uint8)
        for value in np.unique(self.values).tolist():
            label = self.names.get(value, str(value))
            lookup[value] = IGNORE if label is None else names.require_id(label)
        return DrawnMask(lookup[self.values])


@dataclass(frozen=True)
class SourcePhoto:
    """One photo as a reader lists it; file and annotation are read when they are needed."""

    name: str
    data: Callable[[], bytes]
    drawing: Callable[[], Drawing]
    origin: Origin = field(default_factory=Origin)


def require_size(size: tuple[int, int]) -> None:
    """Raise DataError for a height or width below 1, or more pixels than any photo has."""
    height, width = size
    if height < 1 or width < 1 or height * width > _MAX_PIXELS:
        raise DataError(f"its mask would have {width}×{height} pixels; correct the size in the annotation file")


def _cropped(region: Region, size: tuple[int, int]) -> tuple[tuple[slice, slice], Mask]:
    """Return a region's bounding box as rows and columns, and its pixels in it."""
    try:
        pixels = region.pixels()
    except AnnotationError as error:
        raise DataError(f"{region.where}: {error}") from error
    if pixels.shape != size:
        raise DataError(
            f"{region.where} has {pixels.shape[1]}×{pixels.shape[0]} pixels, its photo {size[1]}×{size[0]}; correct it"
        )
    rows, columns = np.nonzero(pixels.any(axis=1))[0], np.nonzero(pixels.any(axis=0))[0]
    if not rows.size:
        return (slice(0), slice(0)), pixels[:0, :0]
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return box, pixels[box].copy()


# What a photo may raise when it or its annotation is read: a problem of this photo, which stops no other.
PHOTO_ERRORS = (OSError, DataError, ConfigurationError)
