"""Hugging Face: Parquet files with a photo and an index mask per row, as `datasets` writes them.

Label names are those of id2label.json, of the table in README.md that exports write, or of labels.csv; 255 without a
name is ignored, as Transformers does.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.label_names import LabelNames, read_table
from pipelines.exchange.labelled_photos import NO_MASK, NO_PHOTO, IndexDrawing, Origin, SourcePhoto
from pipelines.exchange.masks import open_mask
from pipelines.exchange.photo_files import PHOTO_SUFFIXES, read_text, split_named
from pipelines.exchange.readers.json_files import load_json
from pipelines.exchange.source_photos import SourcePhotos

_PHOTOS = ("image", "photo", "img", "pixel_values")
_MASKS = ("mask", "label", "labels", "annotation", "segmentation", "segmentation_mask", "semantic_mask", "conditioning")
_IGNORED_VALUE = 255


def is_format(path: Path) -> bool:
    """Return whether there is a Parquet file, by path or in the folder or in data/."""
    return bool(_parquet_files(path))


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read the Parquet files of the folder, or one; raise DataError naming file and column when one cannot be used."""
    files = _parquet_files(path)
    if not files:
        raise DataError(f"{path} has no Parquet files; give the folder that holds data/SPLIT-….parquet")
    folder = path if path.is_dir() else path.parent
    labels = _label_names(folder if folder.name != "data" else folder.parent)
    left_out: dict[str, list[str]] = defaultdict(list)
    photos = [photo for file in files for photo in _photos(file, labels, left_out)]
    counts = Counter(photo.name for photo in photos)
    for number, photo in enumerate(photos):
        if counts[photo.name] > 1:
            photos[number] = SourcePhoto(f"{number}/{photo.name}", photo.data, photo.drawing, photo.origin)
    return SourcePhotos(photos, names, left_out)


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    return sorted(file for pattern in ("*.parquet", "*/*.parquet") for file in path.glob(pattern) if file.is_file())


def _photos(file: Path, labels: Mapping[int, str | None], left_out: dict[str, list[str]]) -> list[SourcePhoto]:
    """List the rows of a file; photos and masks are read when they are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            photo_column, mask_column = _column(schema, _PHOTOS, file), _column(schema, _MASKS, file)
            texts = [name for name in ("split", "group", "prediction_version") if name in schema.names]
            photos: list[SourcePhoto] = []
            for row_group in range(parquet.num_row_groups):
                for index, row in enumerate(
                    parquet.read_row_group(row_group, [f"{photo_column}.path", *texts]).to_pylist()
                ):
                    number = len(photos)
                    split = split_named(_text(row, "split")) or split_named(file.stem)
                    name = _file_name((row.get(photo_column) or {}).get("path"), f"{file.stem}-{number:06d}")
                    photos.append(
                        SourcePhoto(
                            name,
                            partial(_cell, file, row_group, index, photo_column, NO_PHOTO),
                            partial(_drawing, file, row_group, index, mask_column, labels),
                            Origin(split, _text(row, "group"), blind=not _text(row, "prediction_version")),
                        )
                    )
            return photos
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no Parquet file that can be read: {error}; export it again") from error


def _column(schema: Any, candidates: tuple[str, ...], file: Path) -> str:
    """Return the column of pictures, a struct of bytes and path, that is called like one of the candidates."""
    import pyarrow as pa

    pictures = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and {"bytes", "path"} <= {part.name for part in field.type}
    ]
    names = [name for name in candidates if name in pictures]
    if not names:
        raise DataError(
            f"{file} has no column of pictures called {candidates[0]!r}; its columns: {', '.join(schema.names)}"
        )
    return names[0]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _file_name(path: Any, default: str) -> str:
    """Return the photo's file name; without a photo's suffix, .jpg is added."""
    name = PurePosixPath(str(path or "").replace("\\", "/")).name
    return name if name.lower().endswith(PHOTO_SUFFIXES) else f"{PurePosixPath(name).stem or default}.jpg"


@lru_cache(maxsize=4)
def _cells(file: Path, row_group: int, column: str) -> list[Any]:
    """Read the bytes of a column in a row group; neighbours are read one after the other, so a few are cached."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            cells = parquet.read_row_group(row_group, [f"{column}.bytes"]).column(column).to_pylist()
            return [cell.get("bytes") if cell else None for cell in cells]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}, row group {row_group}: {column} cannot be read: {error}; export it again") from error


def _cell(file: Path, row_group: int, index: int, column: str, lacking: str) -> bytes:
    data = _cells(file, row_group, column)[index]
    if not data:
        raise DataError(f"{file}, row {index} of row group {row_group}: {column} holds no bytes ({lacking})")
    return bytes(data)


def _drawing(file: Path, row_group: int, index: int, column: str, labels: Mapping[int, str | None]) -> IndexDrawing:
    where = f"{file}, row {index} of row group {row_group}: {column}"
    with open_mask(_cell(file, row_group, index, column, NO_MASK), where) as picture:
        values = np.asarray(picture)
    if values.ndim != 2 or values.dtype == bool or values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} is no index mask with values from 0 to 255; save it as 8-bit grey PNG")
    return IndexDrawing(values.astype(np.uint8), labels)


def _label_names(folder: Path) -> dict[int, str | None]:
    """Read the names of mask values; raise DataError or ConfigurationError naming file and line."""
    labels: dict[int, str | None] = {0: "background"}
    card, table, id2label = folder / "README.md", folder / "labels.csv", folder / "id2label.json"
    if id2label.is_file():
        document = load_json(id2label)
        if not isinstance(document, dict):
            raise DataError(f"{id2label} is no mapping from numbers to names; correct it")
        pairs = [(str(value), str(name)) for value, name in document.items()]
    elif table.is_file():
        rows = read_table(table, "index", "label")
        pairs = list(zip(rows["index"], rows["label"], strict=True))
    elif card.is_file():
        pairs = re.findall(r"^\|\s*(\d{1,3})\s*\|\s*(.+?)\s*(?:\(ignored\))?\s*\|$", read_text(card), re.MULTILINE)
    else:
        pairs = []
    for value, name in pairs:
        if not value.strip().isdecimal() or int(value) > 255:
            raise ConfigurationError(
                f"{folder}: the label {name!r} has the mask value {value!r}, which is none of 0 to 255"
            )
        labels[int(value)] = name.strip() or "background"
    labels.setdefault(_IGNORED_VALUE, None)
    return labels
