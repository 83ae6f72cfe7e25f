"""Pascal VOC segmentation: JPEGImages, SegmentationClass, ImageSets/Segmentation, labelmap.txt and photos.csv.

A pixel's value is the label's id, its colour that of VOC's own palette, and 255 is void. labelmap.txt names the colours
as CVAT and Datumaro read them. With instances, SegmentationObject numbers them from 1 on in each photo.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.exchange.photos import ExportedPhoto, ExportedPhotos, write_photo, write_photos_table
from pipelines.params import IGNORE, Params

_MAX_OBJECTS = 254


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write photos, palette masks, the list of each split, labelmap.txt and photos.csv."""
    identities: dict[str, dict[str, str | int]] = {}
    lists: dict[str, list[str]] = {}
    for photo in photos:
        write_photo(photo, folder / "JPEGImages")
        _write_mask(folder / "SegmentationClass" / f"{photo.stem}.png", photo.mask)
        if photo.instances:
            _write_objects(photo, photos, folder)
        identities[photo.name] = photo.identity
        lists.setdefault(photo.split, []).append(photo.stem)
    for split, stems in lists.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    (folder / "labelmap.txt").write_text(_labelmap(params), encoding="utf-8")
    write_photos_table(folder, identities)


def _write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    mask = Image.fromarray(values.astype(np.uint8))
    mask.putpalette(bytes(part for value in range(256) for part in color(value)))
    mask.save(path)


def _write_objects(photo: ExportedPhoto, photos: ExportedPhotos, folder: Path) -> None:
    numbers = np.zeros_like(photo.mask)
    for number, (_, mask) in enumerate(photo.objects(), start=1):
        if number > _MAX_OBJECTS:
            photos.notes.append(
                f"{photo.name}: only {_MAX_OBJECTS} instances are in SegmentationObject; it holds no more"
            )
            break
        numbers[mask] = number
    numbers[photo.mask == IGNORE] = IGNORE
    _write_mask(folder / "SegmentationObject" / f"{photo.stem}.png", numbers)


def _labelmap(params: Params) -> str:
    """Return labelmap.txt: background, the labels and what is ignored, each name once.

    A name cannot hold the colon that separates the fields, so an underscore stands for it.
    """
    names = {0: "background", IGNORE: "ignored"}
    for label in params.labels:
        name = label.name.replace(":", "_")
        names[label.id] = f"{name}-{label.id}" if name in names.values() else name
    values = [0, *(label.id for label in params.labels), IGNORE]
    lines = [f"{names[value]}:{','.join(map(str, color(value)))}::" for value in values]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def color(value: int) -> tuple[int, int, int]:
    """Return red, green and blue (0..255) of a mask's value in the palette of Pascal VOC's development kit."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (value >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]
