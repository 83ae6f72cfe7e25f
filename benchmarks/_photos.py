"""The photos with true masks that benchmarks use: those of MASKLOOP_CCP where it is set, drawn ones elsewhere.

MASKLOOP_CCP names a folder with photos/, masks/ and labels.csv (columns index, label).
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.photos import draw_photo
from pipelines.exchange.masked_photos import MaskedPhotos, masked_photos
from pipelines.params import Params
from pipelines.photos.decode import decode_image

_QUALITY = 95


def real_photos(params: Params) -> MaskedPhotos | None:
    """Return the photos of MASKLOOP_CCP, None where it is not set."""
    given = os.environ.get("MASKLOOP_CCP")
    if not given:
        return None
    folder = Path(given)
    return masked_photos(folder / "photos", folder / "masks", folder / "labels.csv", params)


def photos_name() -> str:
    """Return which photos are used, for the metrics."""
    return "CCP" if os.environ.get("MASKLOOP_CCP") else "drawn photos"


def known_photos(
    params: Params, count: int, *, seed: int, size: tuple[int, int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield up to `count` photos, (H, W, 3) uint8 RGB, and their true (H, W) index masks.

    Real ones are chosen by chance, which follows from the seed, and have their own size; drawn ones begin with the
    drawing of this seed and are of `size`, (height, width) pixels.
    """
    source = real_photos(params)
    if source is None:
        for number in range(seed, seed + count):
            drawing = draw_photo(number, params.label_ids, *(() if size is None else (size,)))
            yield drawing.image, drawing.mask
        return
    for name in np.random.default_rng(seed).permutation(source.take(0, 1_000_000))[:count]:
        yield decode_image(source.photo(str(name))), source.truth(str(name))


def photo_files(params: Params, count: int, chance: np.random.Generator) -> Iterator[tuple[bytes, NDArray[np.uint8]]]:
    """Yield files of photos with their true (H, W) index masks; no two files are the same.

    Drawn ones are as many as are asked for, in a hundred drawings.
    """
    source = real_photos(params)
    if source is not None:
        for name in chance.permutation(source.take(0, 1_000_000))[:count]:
            yield source.photo(str(name)), source.truth(str(name))
        return
    drawings = [draw_photo(700 + number, params.label_ids) for number in range(min(count, 100))]
    for number in range(count):
        drawing = drawings[number % len(drawings)]
        file = io.BytesIO()
        Image.fromarray(drawing.image).save(file, "JPEG", quality=_QUALITY - number // len(drawings))
        yield file.getvalue(), drawing.mask
