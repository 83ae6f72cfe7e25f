"""Masks as picture files of other tools: opened with errors that name the file."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipelines.errors import DataError
from pipelines.exchange.labelled_photos import require_size

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for bytes it cannot read


@contextmanager
def open_mask(source: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """Open a mask, from a file or from bytes called `name`, with its pixels loaded.

    Raise DataError naming it when it is no picture or larger than any photo.
    """
    where = name or str(source)
    try:
        with Image.open(source if isinstance(source, Path) else BytesIO(source)) as picture:
            require_size((picture.height, picture.width))
            picture.load()
            yield picture
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{where} cannot be read: {error}; save it as PNG again") from error
