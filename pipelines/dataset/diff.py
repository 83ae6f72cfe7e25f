"""Compare two dataset versions photo by photo and label by label, from their manifests and the masks that differ.

Photos are identified by their bytes. Labels are identified by their id, because a label keeps it when it is renamed.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from rich.progress import track

from pipelines.dataset.files import IMAGES, MASKS
from pipelines.dataset.published import Published
from pipelines.dataset.records import decode_mask
from pipelines.dataset.shards import shard_of
from pipelines.errors import DataError, MaskloopError
from pipelines.params import IGNORE
from pipelines.photos.decode import decode_image

_GREY = "#808080"
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
Row = Mapping[str, Any]  # of a manifest


@dataclass(frozen=True)
class LabelName:
    """A label's name and color (#rrggbb), as params.yaml had it when a version was made."""

    name: str
    color: str


@dataclass(frozen=True)
class LabelChange:
    """How one label differs on a photo: its pixels before and after, those that differ, and the IoU of both."""

    label_id: int
    before: int
    after: int
    changed: int
    iou: float

    @property
    def kind(self) -> str:
        """Return added, removed or changed."""
        return "changed" if self.before and self.after else "added" if self.after else "removed"


@dataclass(frozen=True)
class PhotoChange:
    """A photo that came, went, or has another mask.

    `kind` is added, removed or relabelled. `pixels` of the photo's `area` have another label; of a photo that came or
    went, those that have a label at all. `problem` says why its masks could not be compared; empty when they were.
    """

    sha256: str
    uri: str
    kind: str
    labels: tuple[LabelChange, ...]
    pixels: int
    area: int
    note: str = ""
    problem: str = ""

    @property
    def share(self) -> float:
        """Return the share of the photo's pixels that have another label, 0..1."""
        return self.pixels / self.area if self.area else 0.0


class Version:
    """A published version as it is compared: its manifest, labels, masks and photos; nothing is checked out."""

    def __init__(self, published: Published, tag: str) -> None:
        self.tag, self._published = tag, published
        rows = published.manifest(tag).to_dict("records")
        self.rows: dict[str, Row] = {str(row["sha256"]): {str(name): row[name] for name in row} for row in rows}
        self._shard: tuple[str, dict[str, bytes]] = ("", {})

    @cached_property
    def labels(self) -> dict[int, LabelName]:
        """Return the labels by id, with the one of ignored pixels."""
        document = yaml.safe_load(self._published.text(self.tag, "params.yaml")) or {}
        labels = {
            int(label["id"]): LabelName(str(label["name"]), _color(label.get("color")))
            for label in document.get("labels", [])
        }
        ignore = document.get("ignore") or {}
        return labels | {IGNORE: LabelName(str(ignore.get("name", "ignored")), _color(ignore.get("color")))}

    @cached_property
    def _files(self) -> Mapping[str, str]:
        return self._published.files(self.tag)

    def mask(self, sha256: str) -> np.ndarray:
        """Return a photo's (H, W) uint8 index mask; raise DatasetError when it is missing or damaged everywhere."""
        older = f"{MASKS}/{sha256}.png"  # versions of an older layout have a file per mask
        if older in self._files:
            return decode_mask(self._published.read_file(self.tag, self._files, older), older)
        shard = shard_of(sha256)
        if self._shard[0] != shard:  # photos are compared in the order of their hashes
            data = self._published.read_file(self.tag, self._files, f"{MASKS}/{shard}.parquet")
            rows = pq.read_table(io.BytesIO(data), columns=["sha256", "mask"]).to_pylist()
            self._shard = shard, {row["sha256"]: row["mask"]["bytes"] for row in rows}
        return decode_mask(self._shard[1].get(sha256, b""), f"the mask of {sha256} in {self.tag}")

    def image(self, sha256: str) -> np.ndarray:
        """Return a photo, (H, W, 3) uint8 RGB upright; raise DatasetError when it is missing or damaged everywhere."""
        data = self._published.read_file(self.tag, self._files, f"{IMAGES}/{sha256}")
        return decode_image(data, max_megapixels=float("inf"))


@dataclass(frozen=True)
class VersionDiff:
    """Two versions and the photos that differ: those with the largest change first, then what came, then what went."""

    before: Version
    after: Version
    photos: tuple[PhotoChange, ...]

    @property
    def counts(self) -> Counter[str]:
        """Return how many photos came, went, have another mask, or could not be compared."""
        counts = Counter(photo.kind for photo in self.photos)
        counts["not compared"] = sum(bool(photo.problem) for photo in self.photos)
        return counts

    @property
    def unchanged(self) -> int:
        """Return how many photos are in both versions with the same mask."""
        counts = self.counts
        return len(self.after.rows) - counts["added"] - counts["relabelled"]

    def label(self, label_id: int) -> LabelName:
        """Return a label as the later version names it, or else the earlier one."""
        number = LabelName(f"label {label_id}", _GREY)
        return self.after.labels.get(label_id) or self.before.labels.get(label_id) or number

    def of_labels(self) -> list[tuple[int, int, int, int]]:
        """Return id, photos before, photos after, and changed pixels of each label that differs, the most first."""
        before, after = _photos_per_label(self.before), _photos_per_label(self.after)
        pixels: Counter[int] = Counter()
        for photo in self.photos:
            for change in photo.labels:
                pixels[change.label_id] += change.changed
        ids = {name for name in before | after if before[name] != after[name]} | set(pixels)
        rows = [(label_id, before[label_id], after[label_id], pixels[label_id]) for label_id in ids]
        return sorted(rows, key=lambda row: (-row[3], row[0]))


def compare_versions(published: Published, before: str, after: str) -> VersionDiff:
    """Compare two versions, given by their tags.

    A photo whose mask cannot be read is among the result with its problem. Raise DatasetError for a version that does
    not exist or whose manifest has no good copy, and DataError when both are the same.
    """
    if before == after:
        raise DataError(f"{before} is compared with itself; give two versions, such as dataset-0006 dataset-0007")
    old, new = Version(published, before), Version(published, after)
    common = sorted(old.rows.keys() & new.rows.keys())
    photos = [
        *_relabelled(old, new, [sha for sha in common if old.rows[sha]["mask_sha256"] != new.rows[sha]["mask_sha256"]]),
        *_only_in(new, sorted(new.rows.keys() - old.rows.keys()), "added", old),
        *_only_in(old, sorted(old.rows.keys() - new.rows.keys()), "removed", new),
    ]
    order = {"relabelled": 0, "added": 1, "removed": 2}
    photos.sort(key=lambda photo: (order[photo.kind], -photo.share, photo.uri))
    return VersionDiff(old, new, tuple(photos))


def compare_masks(before: np.ndarray, after: np.ndarray) -> tuple[list[LabelChange], int]:
    """Return the labels that differ between two (H, W) uint8 index masks, and how many pixels have another label.

    Masks of different shapes have no pixel in common. Background is no label.
    """
    if before.shape != after.shape:
        counts = np.zeros((256, 256), np.int64)
        old, new = np.bincount(before.ravel(), minlength=256), np.bincount(after.ravel(), minlength=256)
        pixels = max(before.size, after.size)
    else:
        pairs = before.astype(np.int32).ravel() * 256 + after.ravel()
        counts = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
        old, new = counts.sum(1), counts.sum(0)
        pixels = before.size - int(counts.trace())
    changes = []
    for label_id in range(1, 256):
        common = int(counts[label_id, label_id])
        union = int(old[label_id] + new[label_id]) - common
        if union > common:
            sizes = int(old[label_id]), int(new[label_id])
            changes.append(LabelChange(label_id, *sizes, union - common, common / union))
    return sorted(changes, key=lambda change: -change.changed), pixels


def _color(value: object) -> str:
    """Return a color as #rrggbb, grey for anything else: it goes into pages as it is."""
    return value if isinstance(value, str) and _COLOR.fullmatch(value) else _GREY


def _relabelled(before: Version, after: Version, hashes: Sequence[str]) -> Iterator[PhotoChange]:
    for sha256 in track(hashes, "comparing masks", transient=True, disable=len(hashes) < 2):
        row = after.rows[sha256]
        area, uri = int(row.get("height", 0)) * int(row.get("width", 0)), str(row["uri"])
        note = _moved(before.rows[sha256], row)
        try:
            changes, pixels = compare_masks(before.mask(sha256), after.mask(sha256))
        except (MaskloopError, OSError) as error:
            yield PhotoChange(sha256, uri, "relabelled", (), 0, area, note, str(error))
            continue
        yield PhotoChange(sha256, uri, "relabelled", tuple(changes), pixels, area, note)


def _only_in(version: Version, hashes: Collection[str], kind: str, other: Version) -> Iterator[PhotoChange]:
    """Yield photos that only one of two versions has; the sizes of their labels are those of its manifest."""
    ids = {label.name: label_id for label_id, label in version.labels.items()}
    others = {row["uri"] for row in other.rows.values()}
    for sha256 in hashes:
        row = version.rows[sha256]
        sizes = {ids.get(name, 0): int(size) for name, size in json.loads(row.get("label_pixels", "{}")).items()}
        ordered = sorted(sizes.items(), key=lambda pair: -pair[1])
        labels = tuple(
            LabelChange(label_id, *((0, size) if kind == "added" else (size, 0)), size, 0.0)
            for label_id, size in ordered
            if label_id and size
        )
        note = f"other bytes at the same address than in {other.tag}" if row["uri"] in others else ""
        area = int(row.get("height", 0)) * int(row.get("width", 0))
        yield PhotoChange(sha256, str(row["uri"]), kind, labels, sum(sizes.values()), area, note)


def _moved(before: Row, after: Row) -> str:
    """Return what else differs of a photo: its address and its split."""
    parts = [f"was {before['uri']}"] if before["uri"] != after["uri"] else []
    if "split" in before and "split" in after and before["split"] != after["split"]:
        parts.append(f"split {before['split']} → {after['split']}")
    return "; ".join(parts)


def _photos_per_label(version: Version) -> Counter[int]:
    ids = {label.name: label_id for label_id, label in version.labels.items()}
    return Counter(
        ids[name] for row in version.rows.values() for name in json.loads(row.get("label_pixels", "{}")) if name in ids
    )
