"""Hugging Face `datasets`: Parquet per split, photo and mask inside, and a card; `load_dataset(FOLDER)` reads it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from pipelines.exchange.photos import IDENTITY, ExportedPhoto, ExportedPhotos, garment_ids
from pipelines.params import IGNORE, Params

_TOGETHER = 50  # photos in memory, and in a row group, …
_MAX_BYTES = 200_000_000  # … and no more once they have so many bytes: a column's limit is 2 GB
_TEXTS = ("updated_at",)
_LISTS = ("annotations", "annotators")


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write data/SPLIT-00000-of-00001.parquet and README.md, the dataset's card."""
    import datasets

    text = datasets.Value("string")
    features = datasets.Features({
        "image": datasets.Image(), "mask": datasets.Image(), "labels": datasets.List(text),
        **dict.fromkeys(IDENTITY, text), "generation": datasets.Value("int64"), **dict.fromkeys(_TEXTS, text),
        **{name: datasets.List(text) for name in _LISTS},
    })  # fmt: skip
    schema = _readable_by_older(features.arrow_schema)
    (folder / "data").mkdir()
    for split in photos.splits:
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        with pq.ParquetWriter(path, schema) as file:
            for part in _parts(photos.of(split)):
                rows = [features.encode_example(_row(photo, params)) for photo in part]
                file.write_table(pa.Table.from_pylist(rows, schema=schema))
    (folder / "README.md").write_text(_card(photos, params), encoding="utf-8")


def _readable_by_older(schema: pa.Schema) -> pa.Schema:
    """Return the schema with lists named as all releases of `datasets` know them; `List` came with its fourth."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: "Sequence" if (key, kind) == ("_type", "List") else renamed(kind) for key, kind in value.items()
            }
        return value

    features = renamed(json.loads(schema.metadata[b"huggingface"]))
    return schema.with_metadata({"huggingface": json.dumps(features, sort_keys=True)})


def _parts(photos: Iterator[ExportedPhoto]) -> Iterator[list[ExportedPhoto]]:
    part: list[ExportedPhoto] = []
    for photo in photos:
        part.append(photo)
        if len(part) == _TOGETHER or sum(len(held.data) for held in part) > _MAX_BYTES:
            yield part
            part = []
    if part:
        yield part


def _row(photo: ExportedPhoto, params: Params) -> dict[str, Any]:
    mask = io.BytesIO()
    Image.fromarray(photo.mask).save(mask, "PNG")
    kept = {name: str(photo.row[name]) for name in _TEXTS} | {name: list(photo.row[name]) for name in _LISTS}
    return {
        "image": {"path": photo.name, "bytes": photo.data},
        "mask": {"path": f"{photo.stem}.png", "bytes": mask.getvalue()},
        "labels": [params.label_names.get(label_id, str(label_id)) for label_id in garment_ids(photo.mask)],
        **photo.identity,
        **kept,
    }


def _card(photos: ExportedPhotos, params: Params) -> str:
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in photos.splits]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    labels = "".join(f"| {label.id} | {label.name} |\n" for label in params.labels)
    labels += f"| {IGNORE} | {params.ignore.name} (ignored) |\n"
    return (
        f"---\n{head}---\n# {params.project.title}: {photos.title}\n\n{photos.written} photos. The pixels of `mask` "
        f'are label ids; 0 is background, and {IGNORE} ("{params.ignore.name}") marks what nobody can name: leave it '
        f"out of training and evaluation.\n\n| id | label |\n|---|---|\n{labels}"
    )
