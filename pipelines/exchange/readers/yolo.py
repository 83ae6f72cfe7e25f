"""YOLO-seg: a YAML file with class names and folders per split, images/SPLIT, and labels/SPLIT with outlines.

Outlines are filled as ultralytics does it, with their border. Of overlapping ones the smaller lies on top, because
lines have no order. An empty label file is a photo without any garment; a missing one is a photo without a mask. A
photo of several splits, as where `val` names the folder of `test`, is of the most protective one.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import yaml

from pipelines.dataset.split import most_protective
from pipelines.errors import DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import NO_MASK, NO_PHOTO, Mask, Origin, Region, RegionDrawing, SourcePhoto
from pipelines.exchange.photo_files import PhotoFiles, file_key, read_origins, read_text, split_named, stem_key, without
from pipelines.exchange.source_photos import SourcePhotos, upright_size

_SPLIT_KEYS = ("train", "val", "valid", "test")
_OUTSIDE = 0.01  # how far beyond the photo a share may lie: outlines are rounded


def is_format(path: Path) -> bool:
    """Return whether there is a YAML file that names classes."""
    return any(isinstance(document, dict) and "names" in document for _, document in _documents(path))


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read dataset.yaml or data.yaml, by path or in the folder, and the splits that it names.

    Raise DataError naming file and key when it cannot be used.
    """
    described = [(file, document) for file, document in _documents(path) if isinstance(document, dict)]
    described = [(file, document) for file, document in described if "names" in document]
    if len(described) != 1:
        listed = ", ".join(str(file) for file, _ in described) or "none"
        raise DataError(f"{path} needs one YAML file with the key `names`; it has {listed}. Give the file itself")
    [(file, document)] = described
    classes, folder = _classes(document["names"], file), file.parent
    files, origins = PhotoFiles(folder), read_origins(folder)
    photos: dict[str, SourcePhoto] = {}
    splits: dict[str, str] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    label_paths = sorted({item.relative_to(folder).as_posix() for item in folder.rglob("labels/**/*.txt")})
    label_files = {_label_key(PurePosixPath(text)): text for text in label_paths}
    used: set[str] = set()
    for key in _SPLIT_KEYS:
        for name in _photos_of(document.get(key), key, file, files, left_out):
            splits[name] = most_protective((split_named(key), splits.get(name, "")))
            if name in photos or name in left_out[NO_MASK]:
                continue
            labels = _labels_of(name, label_files)
            if labels is None:
                left_out[NO_MASK].append(name)
                continue
            used.add(labels)
            drawing = partial(_drawing, files, name, folder / labels, classes)
            photos[name] = SourcePhoto(name, partial(files.read, name), drawing)
    for name, photo in photos.items():
        own = origins.get(file_key(name), Origin())
        photos[name] = replace(photo, origin=Origin(own.split or splits[name], own.group))
    left_out[NO_PHOTO] += without(label_paths, used)
    left_out["photos in no split"] += without(list(files), {*photos, *left_out[NO_MASK]})
    return SourcePhotos(list(photos.values()), names, left_out)


def _documents(path: Path) -> Iterator[tuple[Path, Any]]:
    if path.is_file():
        files = [path] if path.suffix.lower() in (".yaml", ".yml") else []
    else:
        files = sorted(file for pattern in ("*.yaml", "*.yml") for file in path.glob(pattern))
    for file in files:
        try:
            yield file, yaml.safe_load(read_text(file))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file} is no YAML: {error}; correct it") from error


def _classes(value: Any, file: Path) -> Mapping[int, str]:
    """Return the class names by number, from a list or a mapping."""
    items = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(items, dict) or not all(isinstance(number, int) for number in items):
        raise DataError(f"{file}: names is neither a list of names nor a mapping from numbers to names; correct it")
    return {number: str(name) for number, name in items.items()}


def _photos_of(value: Any, key: str, file: Path, files: PhotoFiles, left_out: dict[str, list[str]]) -> Iterator[str]:
    """Yield the photos of a split: those below its folders, or in its lists, which are paths from the YAML's folder."""
    if value is None:
        return
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str):
            raise DataError(f"{file}: {key} is no folder and no list of folders; correct it")
        below = _below(entry, file, key)
        if below.suffix == ".txt":
            for number, line in enumerate(read_text(file.parent / below).splitlines(), start=1):
                if line.strip():
                    try:
                        yield files.find(line.strip())
                    except DataError as error:
                        left_out["lines without a photo"].append(f"{file.parent / below}, line {number}: {error}")
            continue
        if not (file.parent / below).is_dir():
            raise DataError(f"{file}: {key} is {entry!r}, which is no folder beside it; correct it")
        yield from (name for name in files if PurePosixPath(name).is_relative_to(below))


def _below(entry: str, file: Path, key: str) -> PurePosixPath:
    """Return a path below the YAML's folder; some tools write `../train/images` for `train/images`."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts = parts[1:]
    if ".." in parts:
        raise DataError(f"{file}: {key} is {entry!r}, which leaves the folder; correct it")
    if entry.startswith("/"):  # of another machine: the longest end that exists here
        ends = (parts[start:] for start in range(len(parts)))
        parts = next((end for end in ends if file.parent.joinpath(*end).exists()), parts)
    return PurePosixPath(*parts)


def _labels_of(photo: str, label_files: Mapping[tuple[PurePosixPath, str], str]) -> str | None:
    """Return the label file of a photo: its path with the last `images` as `labels`, and the suffix .txt."""
    path = PurePosixPath(photo).with_suffix(".txt")
    parts = list(path.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    else:
        parts.insert(len(parts) - 1, "labels")
    return label_files.get(_label_key(PurePosixPath(*parts)))


def _label_key(path: PurePosixPath) -> tuple[PurePosixPath, str]:
    return path.parent, stem_key(path.name)


def _drawing(files: PhotoFiles, photo: str, labels: Path, classes: Mapping[int, str]) -> RegionDrawing:
    lines = [(number, line.split()) for number, line in enumerate(read_text(labels).splitlines(), start=1)]
    outlines = [_outline(words, f"{labels}, line {number}", classes) for number, words in lines if words]
    size = upright_size(files.read(photo))
    regions = [Region(label, partial(_pixels, corners, size), where) for label, corners, where in outlines]
    return RegionDrawing(size, regions, smaller_on_top=True)


def _outline(words: list[str], where: str, classes: Mapping[int, str]) -> tuple[str, list[float], str]:
    if not words[0].isascii() or not words[0].isdecimal() or int(words[0][:9]) not in classes:
        raise DataError(f"{where}: the class {words[0]!r} has no name in the YAML file; correct it")
    try:
        shares = [float(word) for word in words[1:]]
    except ValueError as error:
        raise DataError(f"{where}: {error}; a line is a class and the corners' x and y as shares") from error
    if len(shares) == 4:
        raise DataError(f"{where} is a box, which is no mask; draw its outline, or remove the line")
    if len(shares) < 6 or len(shares) % 2:
        raise DataError(f"{where} has {len(shares)} numbers after the class; it needs x and y of three or more corners")
    if not all(math.isfinite(share) and -_OUTSIDE <= share <= 1 + _OUTSIDE for share in shares):
        raise DataError(f"{where} has a number outside of 0..1; corners are shares of the photo's width and height")
    return classes[int(words[0])], shares, where


def _pixels(shares: list[float], size: tuple[int, int]) -> Mask:
    """Fill an outline of shares as ultralytics' polygon2mask does: corners are whole pixels, borders are drawn."""
    mask = np.zeros(size, np.uint8)
    corners = np.floor(np.array(shares).reshape(-1, 2) * size[::-1]).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1)
    return mask.astype(bool)
