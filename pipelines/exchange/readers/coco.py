"""COCO: JSON files with images, annotations and categories; segmentations as polygons or RLE.

COCO has no drawing order, so that of overlapping instances the smaller one lies on top. Crowds (`iscrowd`) have loose
outlines: their pixels are ignored where no instance is. `ignored` of an image is what exports write for ignored pixels.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import UNUSABLE, Mask, Origin, Region, RegionDrawing, SourcePhoto, require_size
from pipelines.exchange.photo_files import PhotoFiles, split_named, without
from pipelines.exchange.readers.json_files import json_files, load_json
from pipelines.exchange.source_photos import SourcePhotos, upright_size
from pipelines.labelstudio.shapes import fill

_UNDER, _OVER = -1, 1
_MAX_COORDINATE = 1e7
_MAX_NUMBER = 1e9


def is_format(path: Path) -> bool:
    """Return whether a JSON file, or one in the folder or in annotations/ or a split's folder, is COCO."""
    return any(_is_coco(load_json(file)) for file in json_files(path))


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read the folder, or one JSON file whose photos lie beside it or in the folder above.

    Of rle_SPLIT.json and polygons_SPLIT.json, which hold the same, the former counts. Raise DataError naming file and
    place when a file is no COCO, and ConfigurationError when two files describe one photo.
    """
    files = list(json_files(path))
    documents = {file: document for file in files if _is_coco(document := load_json(file)) or path.is_file()}
    rle_files = {file: file.with_name(file.name.replace("polygons_", "rle_")) for file in documents}
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    photos = PhotoFiles(folder)
    left_out: dict[str, list[str]] = defaultdict(list)
    listed: dict[str, SourcePhoto] = {}
    files_of: dict[str, Path] = {}
    for file, document in documents.items():
        if rle_files[file] != file and rle_files[file] in documents:
            continue
        for photo in _Document(file, document, photos).photos(left_out):
            if photo.name in listed:
                raise ConfigurationError(
                    f"{photo.name} is in {files_of[photo.name]} and again in {file}; give one of these files instead "
                    "of the folder"
                )
            listed[photo.name], files_of[photo.name] = photo, file
    left_out["photos without an annotation"] += without(list(photos), listed)
    return SourcePhotos(list(listed.values()), names, left_out)


@dataclass(frozen=True)
class _Document:
    file: Path
    document: Any
    files: PhotoFiles

    def photos(self, left_out: dict[str, list[str]]) -> Iterator[SourcePhoto]:
        """Yield the photos; what belongs to none is added to `left_out`."""
        images, annotations = (self._list(key) for key in ("images", "annotations"))
        categories = self._categories()
        of_image: dict[Any, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for number, annotation in enumerate(annotations):
            image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
            if not isinstance(image_id, (int, str)):
                left_out[UNUSABLE].append(f"{self.file}: annotations[{number}] without image_id")
            else:
                of_image[image_id].append((number, annotation))
        ids: set[int | str] = set()
        for number, image in enumerate(images):
            where = f"{self.file}: images[{number}]"
            if not isinstance(image, dict) or not isinstance(image.get("id"), (int, str)):
                left_out[UNUSABLE].append(f"{where} without id")
                continue
            if image["id"] in ids:
                raise DataError(f"{where}.id {image['id']!r} is the id of another image as well; correct it")
            ids.add(image["id"])
            try:
                name = self.files.find(_text(image, "file_name", where), prefer=self.file.parent.name)
            except DataError as error:
                left_out["images without a photo"].append(f"{where}: {error}")
                continue
            yield self._photo(name, image, where, of_image.get(image["id"], []), categories)
        for image_id in of_image.keys() - ids:
            left_out["annotations of images that are not listed"] += [
                f"{self.file}: annotations[{number}].image_id {image_id!r}" for number, _ in of_image[image_id]
            ]

    def _photo(
        self,
        name: str,
        image: dict[str, Any],
        where: str,
        annotations: Sequence[tuple[int, dict[str, Any]]],
        categories: Mapping[Any, str],
    ) -> SourcePhoto:
        def drawing() -> RegionDrawing:
            size = _size(image, where) or upright_size(self.files.read(name))
            require_size(size)
            regions = [
                _region(annotation, f"{self.file}: annotations[{number}]", size, categories)
                for number, annotation in annotations
            ]
            if image.get("ignored"):
                at = f"{where}.ignored"
                regions.append(Region(None, partial(_rle, image["ignored"], size, at), at, _OVER))
            return RegionDrawing(size, regions, smaller_on_top=True)

        split = str(image.get("split") or "") or split_named(self.file.stem) or split_named(self.file.parent.name)
        origin = Origin(split_named(split), str(image.get("group") or ""))
        return SourcePhoto(name, lambda: self.files.read(name), drawing, origin)

    def _list(self, key: str) -> list[Any]:
        value = self.document.get(key) if isinstance(self.document, dict) else None
        if not isinstance(value, list):
            raise DataError(f"{self.file}: {key} is no list; COCO has images, annotations and categories")
        return value

    def _categories(self) -> dict[Any, str]:
        categories = {}
        for number, category in enumerate(self._list("categories")):
            where = f"{self.file}: categories[{number}]"
            if not isinstance(category, dict) or not isinstance(category.get("id"), (int, str)):
                raise DataError(f"{where} has no id; correct it")
            if category["id"] in categories:
                raise DataError(f"{where}.id {category['id']!r} is the id of another category as well; correct it")
            categories[category["id"]] = _text(category, "name", where)
        return categories


def _is_coco(document: Any) -> bool:
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def _text(fields: dict[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}.{key} is no text; correct it")
    return value


def _size(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    """Return the height and width that an image states; None when it states none."""
    values = [image.get(key) for key in ("height", "width")]
    if values == [None, None]:
        return None
    height, width = (_whole(value, f"{where}.{key}") for key, value in zip(("height", "width"), values, strict=True))
    return height, width


def _whole(value: Any, where: str) -> int:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < _MAX_NUMBER or value != int(value):
        raise DataError(f"{where} is no whole number; correct it")
    return int(value)


def _region(annotation: dict[str, Any], where: str, size: tuple[int, int], categories: Mapping[Any, str]) -> Region:
    category = annotation.get("category_id")
    if not isinstance(category, (int, str)) or category not in categories:
        raise DataError(f"{where}.category_id {category!r} is no id of a category; correct it")
    segmentation = annotation.get("segmentation")
    pixels: Callable[[], Mask]
    if isinstance(segmentation, dict):
        pixels = partial(_rle, segmentation, size, f"{where}.segmentation")
    elif isinstance(segmentation, list) and segmentation:
        pixels = partial(_polygons, segmentation, size, f"{where}.segmentation")
    else:
        raise DataError(f"{where} has no segmentation; a box alone is no mask: draw it, or remove the annotation")
    if annotation.get("iscrowd"):
        return Region(None, pixels, where, _UNDER)
    return Region(categories[category], pixels, where)


def _polygons(rings: list[Any], size: tuple[int, int], where: str) -> Mask:
    """Return the pixels whose centres lie in one of the rings, each a list x, y, x, y, … in pixels."""
    mask = np.zeros(size, bool)
    for number, ring in enumerate(rings):
        at = f"{where}[{number}]"
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
            raise DataError(f"{at} is no list of three or more corners as x, y, x, y, …; correct it")
        if not all(type(value) in (int, float) and abs(value) <= _MAX_COORDINATE for value in ring):
            raise DataError(f"{at} holds something else than coordinates in pixels; correct it")
        mask |= fill(np.array(ring, float).reshape(-1, 2), *size)
    return mask


def _rle(rle: Any, size: tuple[int, int], where: str) -> Mask:
    """Decode COCO's RLE: runs down the columns, background first, as numbers or as COCO's text."""
    if not isinstance(rle, dict) or rle.get("size") != list(size):
        stated = rle.get("size") if isinstance(rle, dict) else None
        raise DataError(f"{where}.size is {stated!r}, the image has {list(size)} (height, width); correct it")
    counts = rle.get("counts")
    if isinstance(counts, str):
        runs = _runs_of_text(counts, where)
    elif isinstance(counts, list):
        runs = [_whole(count, f"{where}.counts[{number}]") for number, count in enumerate(counts)]
    else:
        raise DataError(f"{where}.counts is neither a list nor a text; correct it")
    pixels = size[0] * size[1]
    if any(not 0 <= run <= pixels for run in runs) or sum(runs) != pixels:
        raise DataError(f"{where}.counts has runs of {sum(runs)} pixels in all, the image has {pixels}; correct it")
    drawn = np.arange(len(runs)) % 2 == 1
    return np.repeat(drawn, runs).reshape(size[::-1]).T


def _runs_of_text(text: str, where: str) -> list[int]:
    """Decode the runs of a compressed RLE: five bits a character, from the fourth run on as differences to the
    last but one (rleFrString of pycocotools, which reads beyond the end of a damaged text).
    """
    runs: list[int] = []
    value = shift = 0
    for sign in text:
        code = ord(sign) - 48
        if not 0 <= code < 64 or shift > 40:
            raise DataError(f"{where}.counts is no compressed RLE at run {len(runs)}; correct it")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError(f"{where}.counts ends within run {len(runs)}; correct it")
    return runs
