"""Hugging Face `datasets`: Parquet per split, photo and mask inside, and a card; `load_dataset(FOLDER)` reads it."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from pipelines.exchange.photos import ExportedPhoto, ExportedPhotos
from pipelines.params import IGNORE, Params

_TOGETHER = 50  # photos in memory, and in a row group
_TEXTS = ("uri", "sha256", "updated_at", "prediction_version", "group")
_LISTS = ("annotations", "annotators")


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write data/SPLIT-00000-of-00001.parquet and README.md, the dataset's card."""
    import datasets

    text = datasets.Value("string")
    features = datasets.Features({
        "image": datasets.Image(), "mask": datasets.Image(), "labels": datasets.List(text),
        "generation": datasets.Value("int64"), **dict.fromkeys(_TEXTS, text),
        **{name: datasets.List(text) for name in _LISTS},
    })  # fmt: skip
    (folder / "data").mkdir()
    for split in photos.splits:
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        with pq.ParquetWriter(path, features.arrow_schema) as file:
            for part in _parts(photos.of(split)):
                rows = [features.encode_example(_row(photo, params)) for photo in part]
                file.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))
    (folder / "README.md").write_text(_card(photos, params), encoding="utf-8")


def _parts(photos: Iterator[ExportedPhoto]) -> Iterator[list[ExportedPhoto]]:
    while part := list(islice(photos, _TOGETHER)):
        yield part


def _row(photo: ExportedPhoto, params: Params) -> dict[str, Any]:
    mask = io.BytesIO()
    Image.fromarray(photo.mask).save(mask, "PNG")
    kept = {name: str(photo.row[name]) for name in _TEXTS} | {name: list(photo.row[name]) for name in _LISTS}
    return {
        "image": {"path": photo.name, "bytes": photo.data},
        "mask": {"path": f"{Path(photo.name).stem}.png", "bytes": mask.getvalue()},
        "labels": [params.label_names.get(label_id, str(label_id)) for label_id in _sorted(photo.row["class_ids"])],
        "generation": int(photo.row["generation"]),
        **kept,
    }


def _sorted(ids: Sequence[int]) -> list[int]:
    return sorted(int(label_id) for label_id in ids)


def _card(photos: ExportedPhotos, params: Params) -> str:
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in photos.splits]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    labels = "".join(f"| {label.id} | {label.name} |\n" for label in params.labels)
    labels += f"| {IGNORE} | {params.ignore.name} (ignored) |\n"
    return (
        f"---\n{head}---\n# {params.project.title}: {photos.tag}\n\n{len(photos)} photos. The pixels of `mask` are "
        f'label ids; 0 is background, and {IGNORE} ("{params.ignore.name}") marks what nobody can name: leave it out '
        f"of training and evaluation.\n\n| id | label |\n|---|---|\n{labels}"
    )
