"""Store annotations and masks in a bounded number of Parquet files, so that DVC has few files to check.

A row's shard is named by the first two hex digits of the SHA-256 of its photo's bytes: 256 shards at most. Few changes
touch few shards, all rows of a photo are in one shard, and equal rows give equal bytes.
`datasets.load_dataset("parquet", data_files="data/masks/*.parquet")` reads them; `mask` is an image feature there.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset.records import annotation_json, parse_annotation_json
from pipelines.errors import DatasetError
from pipelines.fs import write_atomically
from pipelines.records import Annotation

_SUFFIX = ".parquet"
_ANNOTATIONS = pa.schema(
    [
        pa.field("uuid", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("annotator", pa.string()),
        pa.field("updated_at", pa.string()),
        pa.field("json", pa.string()),
    ]
)
_FEATURES = {"info": {"features": {
    "sha256": {"dtype": "string", "_type": "Value"},
    "mask_sha256": {"dtype": "string", "_type": "Value"},
    "mask": {"_type": "Image"},
}}}  # fmt: skip
# Fields may be null: Hugging Face takes its features from the metadata only where they equal those of the schema.
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_MASKS = pa.schema(
    [
        pa.field("sha256", pa.string()),
        pa.field("mask_sha256", pa.string()),
        pa.field("mask", _IMAGE),
    ],
    metadata={"huggingface": json.dumps(_FEATURES)},
)


class AnnotationShards:
    """The annotations of a dataset. Those of one photo are in one shard; a shard is sorted by UUID."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shards(self) -> list[str]:
        """Return the names of the shards that exist, sorted."""
        return [path.stem for path in _paths(self.folder)]

    def path(self, shard: str) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{shard}{_SUFFIX}"

    def read_shard(self, shard: str) -> list[Annotation]:
        """Return the annotations of a shard; raise DatasetError when the file is missing or damaged."""
        path = self.path(shard)
        return [
            parse_annotation_json(row["json"].encode(), f"annotation {row['uuid']} in {path}")
            for row in _read(path, ["uuid", "json"])
        ]

    def read(self) -> Iterator[Annotation]:
        """Yield every annotation, shard by shard; versions of an older layout have a file per annotation."""
        for path in sorted(self.folder.glob("*.json")):
            yield parse_annotation_json(path.read_bytes(), str(path))
        for shard in self.shards():
            yield from self.read_shard(shard)

    def of_photos(self, photos: Collection[str]) -> Iterator[Annotation]:
        """Yield the annotations of some photos, given by their SHA-256."""
        for shard in sorted({shard_of(photo) for photo in photos} & set(self.shards())):
            path = self.path(shard)
            for row in _read(path, ["uuid", "sha256", "json"]):
                if row["sha256"] in photos:  # brush strokes are long, and parsing those of all photos takes its time
                    yield parse_annotation_json(row["json"].encode(), f"annotation {row['uuid']} in {path}")

    def photos(self) -> dict[str, str]:
        """Return the SHA-256 of its photo for each annotation's UUID."""
        return {row["uuid"]: row["sha256"] for path in _paths(self.folder) for row in _read(path, ["uuid", "sha256"])}

    def update(self, annotations: Iterable[Annotation], gone: Iterable[tuple[str, str]]) -> bool:
        """Drop annotations that are `gone`, each given as UUID and photo, then write `annotations` by UUID.

        Return whether any shard changed. A shard is replaced as a whole or not at all.
        """
        dropped: dict[str, set[str]] = defaultdict(set)
        written: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for uuid, photo in gone:
            dropped[shard_of(photo)].add(uuid)
        for annotation in annotations:
            written[shard_of(annotation.image.sha256)][annotation.uuid] = _annotation_row(annotation)
        differs = False
        for shard in sorted(dropped.keys() | written.keys()):
            path = self.path(shard)
            before = _read(path, _ANNOTATIONS.names) if path.exists() else []
            rows = {row["uuid"]: row for row in before if row["uuid"] not in dropped[shard]} | written[shard]
            differs |= _write(path, [rows[uuid] for uuid in sorted(rows)], _ANNOTATIONS)
        return differs

    def replace(self, annotations: Iterable[Annotation]) -> bool:
        """Write exactly these annotations, and remove all others; return whether any file changed."""
        written: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for annotation in annotations:
            written[shard_of(annotation.image.sha256)][annotation.uuid] = _annotation_row(annotation)
        differs = False
        for shard, rows in sorted(written.items()):
            differs |= _write(self.path(shard), [rows[uuid] for uuid in sorted(rows)], _ANNOTATIONS)
        return _drop_others(self.folder, {self.path(shard).name for shard in written}) or differs


class MaskShards:
    """The index masks of a dataset as PNG, sharded by their photos' SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_shard(self, shard: str) -> dict[str, bytes]:
        """Return the PNG of each mask in a shard by its photo's SHA-256; none when there is no such shard.

        Raise DatasetError when the file is damaged.
        """
        path = self.folder / f"{shard}{_SUFFIX}"
        if not path.exists():
            return {}
        return {row["sha256"]: row["mask"]["bytes"] for row in _read(path, ["sha256", "mask"])}

    def state_of(self, shard: str) -> object:
        """Return a value that changes with the content of a shard; None when there is no such shard."""
        try:
            stat = (self.folder / f"{shard}{_SUFFIX}").stat()
        except FileNotFoundError:
            return None
        return shard, stat.st_ino, stat.st_mtime_ns, stat.st_size

    def digest(self, shard: str) -> str:
        """Return the SHA-256 of a shard's file; an empty text when there is no such shard."""
        path = self.folder / f"{shard}{_SUFFIX}"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

    def write_shard(self, shard: str, masks: Mapping[str, bytes]) -> bool:
        """Write exactly these masks (PNG by photo) to a shard; return whether it changed."""
        rows = [
            {"sha256": photo, "mask_sha256": hashlib.sha256(png).hexdigest(), "mask": {"bytes": png, "path": None}}
            for photo, png in sorted(masks.items())
        ]
        return _write(self.folder / f"{shard}{_SUFFIX}", rows, _MASKS)

    def drop_others(self, shards: Collection[str]) -> None:
        """Remove all files but these shards; an older layout had a file per mask."""
        _drop_others(self.folder, {f"{shard}{_SUFFIX}" for shard in shards})


def shard_of(sha256: str) -> str:
    """Return the name of a photo's shard: the first two hex digits of the SHA-256 of its bytes."""
    return sha256[:2]


def _annotation_row(annotation: Annotation) -> dict[str, Any]:
    return {
        "uuid": annotation.uuid,
        "sha256": annotation.image.sha256,
        "uri": annotation.image.uri,
        "annotator": annotation.annotator,
        "updated_at": annotation.updated_at.isoformat(),
        "json": annotation_json(annotation).decode(),
    }


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"[!.]*{_SUFFIX}"))


def _drop_others(folder: Path, names: Collection[str]) -> bool:
    """Remove all files with other names; return whether there were any."""
    others = [path for path in folder.iterdir() if path.name not in names] if folder.exists() else []
    for path in others:
        path.unlink()
    return bool(others)


def _read(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is missing or damaged ({error}); run `dvc checkout` or `dvc pull`") from error


def _write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bool:
    """Write these rows to a file, or remove it when there are none; return whether anything changed.

    The file is replaced, not overwritten: DVC may have linked it with its cache.
    """
    if not rows:
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(rows), schema)
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    data = sink.getvalue().to_pybytes()
    if path.exists() and path.read_bytes() == data:
        return False
    write_atomically(path, data)
    return True
