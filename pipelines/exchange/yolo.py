"""YOLO-seg: images/SPLIT, labels/SPLIT with a line per part of a garment, or per instance, photos.csv and dataset.yaml.

A line is the class, then x and y of each corner as shares of width and height. Classes count from 0 in the order of
params.yaml. Corners are pixels of the border, holes are cut into the outline (see `outlines.borders`), and
`cv2.fillPoly` on corners in whole pixels gives the mask back: that is how ultralytics and others fill. Each corner lies
just before the middle of its pixel, so that rounding down and rounding to the nearest name the same pixel.

Excluded photos are left out, as they belong to no split. So are ignored pixels, because the format has no way to say
it: YOLO sees background there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.dataset.split import EXCLUDED
from pipelines.exchange.outlines import border, borders
from pipelines.exchange.photos import ExportedPhoto, ExportedPhotos, write_photo, write_photos_table
from pipelines.params import Params

_INTO_PIXEL = 0.495
_SPLITS = ("train", "val", "test")


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write images, label files and dataset.yaml; note where its train and val are not those of the dataset."""
    class_of = {label.id: number for number, label in enumerate(params.labels)}
    identities, splits = {}, set()
    for photo in photos.of(*_SPLITS):
        write_photo(photo, folder / "images" / photo.split)
        path = folder / "labels" / photo.split / f"{photo.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in _lines(photo, class_of)), encoding="utf-8")
        identities[photo.name] = photo.identity
        splits.add(photo.split)
    write_photos_table(folder, identities)
    (folder / "dataset.yaml").write_text(_dataset_yaml(photos, splits, params), encoding="utf-8")
    if excluded := int((photos.table["split"] == EXCLUDED).sum()):
        photos.notes.append(f"{excluded} excluded photos are left out, because YOLO knows only train, val and test")


def _lines(photo: ExportedPhoto, class_of: dict[int, int]) -> Iterator[str]:
    size = np.array(photo.mask.shape[::-1])
    for label_id, mask in photo.objects():
        for ring in [border(mask)] if photo.instances else borders(mask):
            shares = (ring + _INTO_PIXEL) / size
            yield " ".join([str(class_of[label_id]), *(f"{share:.7f}" for share in shares.ravel())])


def _dataset_yaml(photos: ExportedPhotos, splits: set[str], params: Params) -> str:
    """Return dataset.yaml. It names no `path`, so that its own folder counts, wherever it is read from.

    Ultralytics wants both `train` and `val`. Without photos of val, `val` is test or train, with a note; without photos
    of train, `train` is empty, so that nothing is trained on others.
    """
    folders = {split: f"images/{split}" for split in _SPLITS if split in splits}
    head = [f"# {params.project.title}: {photos.title}".replace("\n", " ")]
    if "val" not in splits and splits:
        stand_in = "test" if "test" in splits else "train"
        folders["val"] = f"images/{stand_in}"
        photos.notes.append(f"there are no photos of val; `val` in dataset.yaml is {stand_in}, because YOLO needs one")
        head.append(f"# There are no photos of val. YOLO needs some, so these are the photos of {stand_in}.")
    if "train" not in splits:
        photos.notes.append("there are no photos of train; `train` in dataset.yaml is empty, so only `yolo val` works")
        head.append("# There are no photos of train, so that only `yolo val` works.")
    document: dict[str, Any] = {"train": folders.get("train"), "val": folders.get("val")}
    if "test" in folders:
        document["test"] = folders["test"]
    document["names"] = {number: label.name for number, label in enumerate(params.labels)}
    return "\n".join([*head, yaml.safe_dump(document, sort_keys=False, allow_unicode=True)])
