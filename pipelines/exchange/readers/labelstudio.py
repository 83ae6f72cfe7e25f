"""Label Studio's own export as JSON: its regions are painted as sync paints those of the project's annotations.

Of a task's annotations the newest counts that was not skipped, one that is marked as ground truth before others.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import UNUSABLE, DrawnMask, Origin, SourcePhoto, require_size
from pipelines.exchange.photo_files import PHOTO_SUFFIXES, PhotoFiles, file_key, read_origins, split_named, without
from pipelines.exchange.readers.json_files import json_files, load_json
from pipelines.exchange.source_photos import SourcePhotos, upright_size
from pipelines.labelstudio.annotations import prediction_version_of
from pipelines.labelstudio.controls import BOX, IMAGE, ORIGINAL, POINT, SHOWN_SIZE
from pipelines.labelstudio.regions import paint_order, region_label, uncertain_pixels
from pipelines.params import IGNORE
from pipelines.records import IMPORTED_GROUP, IMPORTED_SPLIT

_UPLOADED = re.compile("^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the names of uploaded files


def is_format(path: Path) -> bool:
    """Return whether a JSON file, or one in the folder, is a list of tasks with `data`."""
    return any(_is_task_list(load_json(file)) for file in json_files(path))


def read(path: Path, names: LabelNames) -> SourcePhotos:
    """Read the tasks of the JSON files in the folder, or of one; raise DataError when none is Label Studio's JSON."""
    folder = path if path.is_dir() else path.parent
    files, origins = PhotoFiles(folder), read_origins(folder)
    photos: dict[str, SourcePhoto] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    documents = {file: tasks for file in json_files(path) if _is_task_list(tasks := load_json(file))}
    if not documents:
        raise DataError(f"{path} has no list of tasks with data and annotations; export it from Label Studio as JSON")
    for file, tasks in documents.items():
        for number, task in enumerate(tasks):
            where = f"{file}: [{number}]"
            try:
                data, annotation = _data(task, where), _newest_annotation(task, where)
                regions = None if annotation is None else _regions(annotation, where)
                blind = annotation is None or not _drawn_by(annotation, where)
                name = _find(files, _address(data, where))
            except DataError as error:
                left_out[UNUSABLE].append(str(error) if str(error).startswith(where) else f"{where}: {error}")
                continue
            if annotation is None or regions is None:
                left_out["tasks without an annotation"].append(f"{where} ({name})")
                continue
            if name in photos:
                raise DataError(f"{where}: {name} has another task as well; keep one of them")
            own = origins.get(file_key(name), Origin())
            split = own.split or split_named(str(data.get(IMPORTED_SPLIT) or data.get("split") or ""))
            group = own.group or str(data.get(IMPORTED_GROUP) or "")
            drawing = partial(_drawing, regions, f"{where}.annotations", partial(files.read, name), _size(data))
            origin = Origin(split, group, blind=blind)
            photos[name] = SourcePhoto(name, partial(files.read, name), drawing, origin)
    left_out["photos without a task"] += without(list(files), photos)
    return SourcePhotos(list(photos.values()), names, left_out)


@dataclass(frozen=True)
class _StudioDrawing:
    """The regions of an annotation that make masks."""

    size: tuple[int, int]
    result: Sequence[Any]
    where: str

    @property
    def labels(self) -> list[str]:
        """Return the labels of the regions."""
        return [label for region in self.result if (label := region_label(region))]

    def paint(self, names: LabelNames) -> DrawnMask:
        """Paint the regions as `compile` in params.yaml says."""
        require_size(self.size)
        ids = {label: names.require_id(label) for label in self.labels}
        options = names.compile
        strongest = [label for name in options.strongest for label in ids if ids[label] == names.id_of(name)]
        mask, overlap, drawn = np.zeros(self.size, np.uint8), 0, set[str]()
        try:
            for label, _, pixels in paint_order(self.result, ids, *self.size, options.alpha_threshold, strongest):
                overlap += int(np.count_nonzero(pixels & (mask != 0) & (mask != ids[label])))
                np.copyto(mask, ids[label], where=pixels)
                if pixels.any():
                    drawn.add(label)
            uncertain, odd = uncertain_pixels(self.result, ids, *self.size, options.alpha_threshold, drawn)
            if odd and not drawn:
                raise DataError(f"no mask with a known label, only {', '.join(odd)}; draw the garments again")
            np.copyto(mask, IGNORE, where=uncertain & (mask == 0))
        except (DataError, ConfigurationError) as error:
            raise DataError(f"{self.where}: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{self.where}: a region that cannot be read ({error!r}); draw it again") from error
        return DrawnMask(mask, overlap)


def _is_task_list(document: Any) -> bool:
    return isinstance(document, list) and any(isinstance(task, dict) and "data" in task for task in document)


def _data(task: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise DataError(f"{where} is no task with data; export the project as JSON")
    return task["data"]


def _newest_annotation(task: Mapping[str, Any], where: str) -> Any:
    """Return the annotation that counts, or None without one."""
    annotations = task.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(item, dict) for item in annotations):
        raise DataError(f"{where}.annotations is no list of annotations; export the project as JSON, not JSON-MIN")
    drawn = [item for item in annotations if not item.get("was_cancelled")]
    if not drawn:
        return None
    return max(drawn, key=lambda item: (bool(item.get("ground_truth")), str(item.get("updated_at") or "")))


def _drawn_by(annotation: Any, where: str) -> str:
    """Return the version of the model that drew some of the regions; empty when none did."""
    try:
        return prediction_version_of(annotation)
    except TypeError as error:
        raise DataError(
            f"{where}.annotations: a region's id or origin is no text; export the project as JSON"
        ) from error


def _regions(annotation: Mapping[str, Any], where: str) -> list[Any]:
    """Return the regions of an annotation, and whatever else is in its result."""
    result, prediction = annotation.get("result"), annotation.get("prediction") or {}
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        raise DataError(f"{where}.annotations: result is no list of regions; export the project as JSON")
    if not isinstance(prediction, dict):
        raise DataError(f"{where}.annotations: prediction is none; export the project as JSON")
    return result


def _address(data: Mapping[str, Any], where: str) -> str:
    """Return the photo's address: that of a master of which a copy is shown, of `image`, or of another key."""
    for value in (data.get(ORIGINAL), data.get(IMAGE), *data.values()):
        if isinstance(value, str) and _path(value).lower().endswith(PHOTO_SUFFIXES):
            return value
    raise DataError(f"{where}.data names no photo; it needs the key {IMAGE} with a photo's address")


def _path(address: str) -> str:
    """Return the path in an address, such as that of ?d=… in Label Studio's own."""
    try:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d")
    except ValueError:
        return address
    if local and parts.path.startswith("/data/"):
        return local[0]
    return unquote(parts.path) if parts.scheme or parts.path.startswith("/data/") else address


def _find(files: PhotoFiles, address: str) -> str:
    """Return the photo that an address leads to; Label Studio's prefix of uploaded files may be missing."""
    path = _path(address)
    absolute = path if path == address else f"/{path.lstrip('/')}"
    try:
        return files.find(absolute)
    except DataError:
        folder, slash, name = absolute.rpartition("/")
        if not _UPLOADED.match(name):
            raise
        return files.find(f"{folder}{slash}{_UPLOADED.sub('', name)}")


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the photo's (height, width) where Maskloop's task data has it: people may have drawn on a smaller copy."""
    height, width = data.get("height"), data.get("width")
    return (height, width) if type(height) is type(width) is int and SHOWN_SIZE[0] in data else None


def _drawing(result: Sequence[Any], where: str, photo: Any, size: tuple[int, int] | None) -> _StudioDrawing:
    regions = [region for region in result if not _is_no_mask(region)]
    sizes = [region.get("original_height") for region in regions], [region.get("original_width") for region in regions]
    if size:
        return _StudioDrawing(size, regions, where)
    if regions and type(sizes[0][0]) is type(sizes[1][0]) is int:
        return _StudioDrawing((sizes[0][0], sizes[1][0]), regions, where)
    return _StudioDrawing(upright_size(photo()), regions, where)


def _is_no_mask(region: Mapping[str, Any]) -> bool:
    """Return whether a result is a prompt of a smart tool, a choice, a text or a relation."""
    kind = str(region.get("type"))
    return kind == "keypointlabels" or region.get("from_name") in (POINT, BOX) or not kind.endswith("labels")
