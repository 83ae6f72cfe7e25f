"""COCO: images/ and, per split, annotations as RLE and as polygons; an annotation per label, or instance, and photo.

Category ids are the ids of params.yaml. Polygons hold each part's holes by a cut (see `outlines`), and both files give
the same pixels in COCO's own code. What is ignored belongs to no category, so no annotation holds it, not even a crowd:
COCO ignores crowds of one category only. An image that has such pixels has them as RLE in `ignored`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.exchange.outlines import outlines
from pipelines.exchange.photos import ExportedPhotos, write_json, write_photo
from pipelines.params import IGNORE, Params


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write images/, annotations/rle_SPLIT.json and annotations/polygons_SPLIT.json."""
    images: dict[str, list[dict[str, Any]]] = {split: [] for split in photos.splits}
    regions: dict[tuple[str, str], list[dict[str, Any]]] = {}
    number = 0
    for photo_id, photo in enumerate(photos, start=1):
        write_photo(photo, folder / "images")
        height, width = photo.mask.shape
        image = {"id": photo_id, "file_name": photo.name, "height": height, "width": width, **photo.identity}
        if (ignored := photo.mask == IGNORE).any():
            image["ignored"] = _as_json(_encode(ignored))
        images[photo.split].append(image)
        for label_id, drawn in photo.objects():
            number += 1
            rle = _encode(drawn)
            common = {
                "id": number, "image_id": photo_id, "category_id": label_id, "iscrowd": 0,
                "area": int(np.count_nonzero(drawn)), "bbox": [float(value) for value in coco.toBbox(rle)],
            }  # fmt: skip
            forms = {
                "rle": _as_json(rle),
                "polygons": [[float(c) for corner in ring for c in corner] for ring in outlines(drawn)],
            }
            for form, segmentation in forms.items():
                regions.setdefault((form, photo.split), []).append({**common, "segmentation": segmentation})
    categories = [{"id": label.id, "name": label.name, "supercategory": "garment"} for label in params.labels]
    for split in photos.splits:
        for form in ("rle", "polygons"):
            document = {
                "info": {
                    "description": f"{params.project.title}, {photos.title}",
                    "version": photos.tag,
                    "ignored": f'Pixels labelled "{params.ignore.name}" are in no annotation; an image that has some '
                    'holds them as RLE in "ignored": leave them out of training and evaluation.',
                },
                "images": images[split],
                "annotations": regions.get((form, split), []),
                "categories": categories,
            }
            write_json(folder / "annotations" / f"{form}_{split}.json", document)


def _encode(mask: np.ndarray) -> dict[str, Any]:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def _as_json(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
