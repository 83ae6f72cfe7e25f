"""JSON files of annotations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import DataError


def json_files(path: Path) -> Iterator[Path]:
    """Yield a JSON file, or those of a folder and of the folders in it, sorted."""
    if path.is_file():
        if path.suffix.lower() == ".json":
            yield path
        return
    yield from sorted(file for pattern in ("*.json", "*/*.json") for file in path.glob(pattern) if file.is_file())


def load_json(file: Path) -> Any:
    """Read a JSON file; raise DataError naming file and line."""
    try:
        return orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: no JSON: {error.msg}; correct it or export it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}; check the file") from error
