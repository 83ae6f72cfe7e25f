"""YOLO-seg: images/SPLIT, labels/SPLIT with a line per part of a garment, and dataset.yaml.

A line is the class, then x and y of each corner as shares of width and height. Classes count from 0 in the order of
params.yaml; holes are cut into the outline (see `outlines`). Excluded photos are left out, as they belong
to no split. So are ignored pixels, because the format has no way to say it: YOLO sees background there.
"""

from pathlib import Path

import numpy as np
import yaml

from pipelines.dataset.split import EXCLUDED
from pipelines.exchange.outlines import outline
from pipelines.exchange.photos import ExportedPhotos, components, garment_ids, write_photo
from pipelines.params import Params


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write images, label files and dataset.yaml."""
    class_of = {label.id: number for number, label in enumerate(params.labels)}
    for photo in photos:
        if photo.split == EXCLUDED:
            continue
        write_photo(photo, folder / "images" / photo.split)
        size = np.array(photo.mask.shape[::-1])
        lines = [
            " ".join([str(class_of[label_id]), *(f"{share:.6f}" for share in (np.array(outline(part)) / size).ravel())])
            for label_id in garment_ids(photo.mask)
            for part in components(photo.mask == label_id)
        ]
        path = folder / "labels" / photo.split / f"{Path(photo.name).stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    splits = {split: f"images/{split}" for split in photos.splits if split != EXCLUDED}
    names = {number: label.name for number, label in enumerate(params.labels)}
    text = yaml.safe_dump({"path": ".", **splits, "names": names}, sort_keys=False, allow_unicode=True)
    (folder / "dataset.yaml").write_text(text, encoding="utf-8")
