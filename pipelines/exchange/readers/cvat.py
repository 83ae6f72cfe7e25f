"""CVAT for images: one XML file with a shape per garment; polygons and masks are drawn, in their z_order.

Other shapes (boxes, lines, points) are no masks: a photo that has one gets no annotation, because
its mask would lack that garment.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from pipelines.errors import DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import Mask, Origin, Region, RegionDrawing, SourcePhoto, require_size
from pipelines.exchange.photo_files import PhotoFiles, file_key, read_origins, split_named, without
from pipelines.exchange.source_photos import SourcePhotos
from pipelines.labelstudio.shapes import fill

_OTHER_SHAPES = ("box", "polyline", "points", "ellipse", "cuboid", "skeleton")
_MAX_COORDINATE = 1e7
_FIRST_BYTES = 4096


@dataclass
class _Image:
    attributes: Mapping[str, str]
    where: str
    shapes: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list)  # element, attributes, where


def is_format(path: Path) -> bool:
    """Return whether an XML file, or one in the folder, has the root `annotations`."""
    return any(b"<annotations" in _first_bytes(file) for file in _xml_files(path))


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read the XML files of the folder, or one file; raise DataError naming file and line when one cannot be used."""
    folder = path if path.is_dir() else path.parent
    files, origins = PhotoFiles(folder), read_origins(folder)
    photos: dict[str, SourcePhoto] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for file in _xml_files(path):
        if path.is_dir() and b"<annotations" not in _first_bytes(file):
            continue
        for image in _parse(file):
            try:
                name = files.find(_text(image.attributes, "name", image.where), image.attributes.get("subset", ""))
            except DataError as error:
                left_out["images without a photo"].append(f"{image.where}: {error}")
                continue
            if name in photos:
                raise DataError(f"{image.where}: {name} is annotated twice; keep one of the images")
            own = origins.get(file_key(name), Origin())
            origin = Origin(own.split or split_named(image.attributes.get("subset", "")), own.group)
            photos[name] = SourcePhoto(name, partial(files.read, name), partial(_drawing, image), origin)
    left_out["photos without an annotation"] += without(list(files), photos)
    return SourcePhotos(list(photos.values()), names, left_out)


def _xml_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".xml" else []
    return sorted(file for file in path.glob("*.xml") if file.is_file())


def _first_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_FIRST_BYTES)


def _parse(file: Path) -> list[_Image]:
    """Read the images of a file; raise DataError for another document, or one that defines entities."""
    images: list[_Image] = []
    open_elements: list[str] = []
    parser = expat.ParserCreate()

    def start(element: str, attributes: dict[str, str]) -> None:
        where = f"{file}, line {parser.CurrentLineNumber}"
        if not open_elements and element != "annotations":
            raise DataError(f"{where}: the root is {element!r}, not annotations; export it as CVAT for images")
        if element == "track":
            raise DataError(f"{where}: this is CVAT for video; export it as CVAT for images")
        if open_elements == ["annotations"] and element == "image":
            images.append(_Image(attributes, where))
        elif open_elements == ["annotations", "image"] and element != "tag":
            images[-1].shapes.append((element, attributes, where))
        open_elements.append(element)

    def refuse(name: str, *_: Any) -> None:
        raise DataError(f"{file}, line {parser.CurrentLineNumber}: it defines the entity {name!r}; remove that")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.EntityDeclHandler = refuse
    try:
        with file.open("rb") as opened:
            parser.ParseFile(opened)
    except expat.ExpatError as error:
        text = expat.ErrorString(error.code)
        raise DataError(f"{file}, line {error.lineno}: no XML: {text}; correct it or export it again") from error
    except (OSError, ValueError, LookupError) as error:  # an encoding that nobody knows is a LookupError
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} cannot be read: {error}; check the file") from error
    return images


def _drawing(image: _Image) -> RegionDrawing:
    size = _whole(image.attributes, "height", image.where), _whole(image.attributes, "width", image.where)
    require_size(size)
    others = sorted({element for element, _, _ in image.shapes if element in _OTHER_SHAPES})
    if others:
        raise DataError(
            f"{image.where}: it has the shapes {', '.join(others)}, which are no masks; draw them as polygon or mask, "
            "or remove them"
        )
    regions = []
    for element, attributes, where in image.shapes:
        if element not in _READERS:
            raise DataError(f"{where}: the shape {element!r} is unknown; draw it as polygon or mask, or remove it")
        label = _text(attributes, "label", where)
        layer = _whole(attributes, "z_order", where) if "z_order" in attributes else 0
        regions.append(Region(label, partial(_READERS[element], attributes, size, where), where, layer))
    return RegionDrawing(size, regions)


def _polygon(attributes: Mapping[str, str], size: tuple[int, int], where: str) -> Mask:
    """Fill `points`, which are x,y;x,y;… in pixels."""
    try:
        corners = [
            [float(number) for number in pair.split(",")] for pair in _text(attributes, "points", where).split(";")
        ]
        valid = all(len(corner) == 2 for corner in corners)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: points: {error}; they are x,y;x,y;…") from error
    if not valid or len(corners) < 3 or not all(abs(number) <= _MAX_COORDINATE for xy in corners for number in xy):
        raise DataError(f"{where}: points are no three or more corners x,y;x,y;… in pixels; correct them")
    return fill(np.array(corners), *size)


def _mask(attributes: Mapping[str, str], size: tuple[int, int], where: str) -> Mask:
    """Decode `rle`: runs along the rows of the box at left, top, with width and height; background first."""
    left, top, width, height = (_whole(attributes, key, where) for key in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > size[1] or top + height > size[0]:
        raise DataError(f"{where}: the mask's box leaves the image of {size[1]}×{size[0]} pixels; correct it")
    text = _text(attributes, "rle", where)
    try:
        runs = [int(run) for run in text.split(",")]
    except ValueError as error:
        raise DataError(f"{where}: rle: {error}; it holds numbers of pixels") from error
    if any(not 0 <= run <= width * height for run in runs) or sum(runs) != width * height:
        raise DataError(f"{where}: rle has runs of {sum(runs)} pixels in all, its box has {width * height}; correct it")
    mask = np.zeros(size, bool)
    drawn = np.arange(len(runs)) % 2 == 1
    mask[top : top + height, left : left + width] = np.repeat(drawn, runs).reshape(height, width)
    return mask


_READERS = {"polygon": _polygon, "mask": _mask}


def _text(attributes: Mapping[str, str], key: str, where: str) -> str:
    if not (text := attributes.get(key, "").strip()):
        raise DataError(f"{where}: {key} is missing; correct it")
    return text


def _whole(attributes: Mapping[str, str], key: str, where: str) -> int:
    text = _text(attributes, key, where)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= _MAX_COORDINATE or number != int(number):
        raise DataError(f"{where}: {key} is {text!r}, no whole number; correct it")
    return int(number)
