"""Pascal VOC: JPEGImages, SegmentationClass with masks as PNG, ImageSets/Segmentation with a list per split.

Masks have a palette, or the colours of labelmap.txt as CVAT's "Segmentation mask 1.1" writes them. Without
labelmap.txt, values are the 20 classes of Pascal VOC. The value 255 and the colour (224, 224, 192), which is the border
of objects, are ignored.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.errors import DataError
from pipelines.exchange.label_names import LabelNames, read_table
from pipelines.exchange.labelled_photos import NO_MASK, NO_PHOTO, IndexDrawing, Origin, SourcePhoto
from pipelines.exchange.masks import open_mask
from pipelines.exchange.photo_files import PhotoFiles, file_key, read_origins, read_text, split_named, stem_key, without
from pipelines.exchange.source_photos import SourcePhotos

_PHOTOS, _MASKS, _SETS = "JPEGImages", "SegmentationClass", Path("ImageSets/Segmentation")
_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_IGNORED_VALUE, _IGNORED_COLOR = 255, (224, 224, 192)

Color = tuple[int, int, int]


def is_format(path: Path) -> bool:
    """Return whether there are SegmentationClass and JPEGImages, as Pascal VOC calls its folders."""
    return (path / _MASKS).is_dir() and (path / _PHOTOS).is_dir()


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read the folder; raise DataError naming file and line when a list or labelmap.txt cannot be used."""
    if not is_format(path):
        raise DataError(f"{path} needs the folders {_PHOTOS} and {_MASKS}; give the folder that holds them")
    files, origins = PhotoFiles(path / _PHOTOS), read_origins(path)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in files:
        by_stem[stem_key(name)].append(name)
    masks: dict[str, list[Path]] = defaultdict(list)
    for mask in sorted((path / _MASKS).iterdir()):
        if mask.suffix.lower() == ".png":
            masks[stem_key(mask.name)].append(mask)
    splits, left_out = _splits(path / _SETS, by_stem)
    colors, indices = _label_map(path)
    photos = []
    for stem in sorted(by_stem.keys() & masks.keys()):
        if len(by_stem[stem]) > 1 or len(masks[stem]) > 1:
            left_out["photos of one name"] += [*by_stem[stem], *(mask.name for mask in masks[stem][1:])]
            continue
        name, mask = by_stem[stem][0], masks[stem][0]
        own = origins.get(file_key(name), Origin())
        origin = Origin(own.split or splits.get(stem, ""), own.group)
        photos.append(SourcePhoto(name, partial(files.read, name), partial(_drawing, mask, colors, indices), origin))
    left_out[NO_MASK] += [name for stem in without(by_stem, masks) for name in by_stem[stem]]
    left_out[NO_PHOTO] += [mask.name for stem in without(masks, by_stem) for mask in masks[stem]]
    return SourcePhotos(photos, names, left_out)


def _splits(folder: Path, photos: Mapping[str, object]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the split of each photo by its stem, and the lines that name no photo; trainval.txt is no split."""
    splits: dict[str, str] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for file in sorted(folder.glob("*.txt")):
        split = split_named(file.stem)
        if not split:
            continue
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            stem = stem_key(f"{line.strip().replace(chr(92), '/')}.png")
            if splits.setdefault(stem, split) != split:
                raise DataError(
                    f"{file}, line {number}: {stem!r} is in {splits[stem]}.txt as well; keep it in one list"
                )
            if stem not in photos:
                left_out["lines without a photo"].append(f"{file}, line {number}: {stem}")
    return splits, left_out


def _label_map(path: Path) -> tuple[dict[Color, str | None], dict[int, str | None]]:
    """Read the labels by colour and by value, from labelmap.txt or labels.csv; without both, VOC's own classes."""
    colors: dict[Color, str | None] = {(0, 0, 0): "background", _IGNORED_COLOR: None}
    indices: dict[int, str | None] = {0: "background"}
    if (path / "labels.csv").is_file():
        table = read_table(path / "labels.csv", "index", "label")
        for value, label in zip(table["index"], table["label"], strict=True):
            if not value.strip().isdecimal() or int(value) > 255:
                raise DataError(f"{path / 'labels.csv'} has the index {value!r}, which is no mask value from 0 to 255")
            indices[int(value)] = label.strip() or "background"
    elif (path / "labelmap.txt").is_file():
        for number, line in enumerate(read_text(path / "labelmap.txt").splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                label, color = _label_line(line, f"{path / 'labelmap.txt'}, line {number}")
                colors[color] = label
        return colors, {}
    else:
        indices |= dict(enumerate(_CLASSES))
    indices.setdefault(_IGNORED_VALUE, None)
    return colors, indices


def _label_line(line: str, where: str) -> tuple[str, Color]:
    """Read a line of labelmap.txt: label:red,green,blue:parts:actions."""
    match = re.fullmatch(r"(.+?):\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(?::.*)?", line.strip())
    if match is None or max(int(match[part]) for part in (2, 3, 4)) > 255:
        raise DataError(f"{where} is {line.strip()!r}; a line is label:red,green,blue:parts:actions")
    return match[1].strip(), (int(match[2]), int(match[3]), int(match[4]))


def _drawing(mask: Path, colors: Mapping[Color, str | None], indices: Mapping[int, str | None]) -> IndexDrawing:
    """Read a mask: by value when `indices` names values, otherwise by colour."""
    with open_mask(mask) as picture:
        if indices:
            if picture.mode not in ("P", "L"):
                raise DataError(f"{mask} has colours, and there is no labelmap.txt that names them; add it")
            return IndexDrawing(np.asarray(picture), indices)
        values = np.asarray(picture)
        if picture.mode in ("P", "L") and (values == _IGNORED_VALUE).any():
            return _by_color(picture, colors, values == _IGNORED_VALUE)
        return _by_color(picture, colors, None)


def _by_color(picture: Image.Image, colors: Mapping[Color, str | None], ignored: np.ndarray | None) -> IndexDrawing:
    """Return a drawing in which each colour of the picture is a value, 255 being ignored pixels."""
    rgb = np.asarray(picture.convert("RGB")).astype(np.uint32)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    unique, inverse = np.unique(packed, return_inverse=True)
    if len(unique) > 254:
        raise DataError("its mask has more than 254 colours: it is a photo, or was saved with loss; save it as PNG")
    names: dict[int, str | None] = {_IGNORED_VALUE: None}
    for value, code in enumerate(unique.tolist()):
        color = code >> 16, code >> 8 & 255, code & 255
        names[value] = colors.get(color, f"colour {color[0]} {color[1]} {color[2]}")
    values = inverse.reshape(packed.shape).astype(np.uint8)
    if ignored is not None:
        values[ignored] = _IGNORED_VALUE
    return IndexDrawing(values, names)
