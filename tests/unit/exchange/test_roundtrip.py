"""What is exported can be imported into another project: the same pixels, splits, groups and bytes."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.exchange.export import FORMATS, export
from pipelines.exchange.importer import CheckedPhoto, check_photos
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.readers import read_labelled_photos, recognise
from pipelines.params import IGNORE, Params
from pipelines.photos.decode import sha256_hex

COAT, DRESS = 3, 7
SPLITS = ("train", "val", "test", "excluded", "train")


def drawn(number: int) -> np.ndarray:
    """A (36, 30) index mask: a coat with a hole, a speck and a dress in the hole; the last photo shows nothing."""
    mask = np.zeros((36, 30), np.uint8)
    if number == 4:
        return mask
    mask[4 + number : 30, 3:25] = COAT
    mask[12:22, 8:18] = 0
    mask[14:20, 10:16] = DRESS
    mask[2, 27] = COAT
    if number % 2:
        mask[30:36, 20:30] = mask[13, 9:12] = IGNORE
    return mask


class Version:
    """A published version with a photo in each split and one more, in two groups and alone."""

    def __init__(self) -> None:
        self.photos: dict[str, bytes] = {}
        self.masks: dict[str, np.ndarray] = {}
        self.rows: list[dict[str, Any]] = []
        for number, split in enumerate(SPLITS):
            file = io.BytesIO()
            Image.fromarray(np.full((36, 30, 3), 40 * number, np.uint8)).save(file, "PNG")
            sha256 = sha256_hex(file.getvalue())
            self.photos[sha256], self.masks[sha256] = file.getvalue(), drawn(number)
            self.rows.append({
                "uri": f"gs://archive/{number % 2}/löok-{number // 2}.png", "generation": 5, "sha256": sha256,
                "split": split, "group": ("Spring / 1999", "Été", sha256)[number % 3], "class_ids": [COAT, DRESS],
                "annotations": [f"uuid-{number}"], "annotators": ["ada@example.org"], "updated_at": "2026-01-01",
                "prediction_version": "clothing:v1" if number == 4 else "",
            })  # fmt: skip

    def tags(self) -> list[str]:
        return ["dataset-0001"]

    @contextmanager
    def checked_out(self, tag: str, *targets: Path) -> Iterator[Dataset]:
        with tempfile.TemporaryDirectory() as folder:
            dataset = Dataset(Path(folder))
            dataset.write_table(MANIFEST, pd.DataFrame(self.rows))
            for sha256, data in self.photos.items():
                dataset.write_photo(sha256, data)
            for shard in {shard_of(sha256) for sha256 in self.masks}:
                pngs = {key: encode_mask(mask) for key, mask in self.masks.items() if shard_of(key) == shard}
                dataset.masks.write_shard(shard, pngs)
            yield dataset


def imported(folder: Path, params: Params) -> tuple[dict[str, CheckedPhoto], dict[str, np.ndarray]]:
    """Photos and masks by SHA-256."""
    source = read_labelled_photos(folder, LabelNames(params))
    checked = {photo.sha256: photo for photo in check_photos(source, params)}
    assert not [photo.problem for photo in checked.values() if photo.problem]
    assert not source.left_out()
    assert sum(photo.overlap_pixels for photo in checked.values()) == 0
    return checked, {sha256: source.drawn(photo.name).mask for sha256, photo in checked.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_imported_again(form: str, two_labels: Params, tmp_path: Path) -> None:
    version = Version()
    export(version, "dataset-0001", form, tmp_path / "out", two_labels)  # type: ignore[arg-type]  # a stand-in
    assert recognise(tmp_path / "out") == form
    checked, masks = imported(tmp_path / "out", two_labels)
    rows = [row for row in version.rows if form != "yolo" or row["split"] != "excluded"]
    assert set(checked) == {row["sha256"] for row in rows}
    for row in rows:
        origin = checked[row["sha256"]].origin
        assert (origin.split, origin.group) == (row["split"], row["group"])
        assert checked[row["sha256"]].origin.blind == (form != "huggingface" or not row["prediction_version"])
        expected = version.masks[row["sha256"]]
        if form == "yolo":  # it cannot say what is ignored
            expected = np.where(expected == IGNORE, 0, expected)
        np.testing.assert_array_equal(masks[row["sha256"]], expected)


def test_coco_polygons_alone_give_the_same_pixels(two_labels: Params, tmp_path: Path) -> None:
    version = Version()
    export(version, "dataset-0001", "coco", tmp_path / "out", two_labels)  # type: ignore[arg-type]  # a stand-in
    for path in (tmp_path / "out" / "annotations").glob("rle_*"):
        path.unlink()
    _, masks = imported(tmp_path / "out", two_labels)
    for sha256, mask in masks.items():
        np.testing.assert_array_equal(mask, version.masks[sha256])


def test_one_file_of_a_split_is_read_alone(two_labels: Params, tmp_path: Path) -> None:
    export(Version(), "dataset-0001", "coco", tmp_path / "out", two_labels)  # type: ignore[arg-type]  # a stand-in
    source = read_labelled_photos(tmp_path / "out" / "annotations" / "rle_test.json", LabelNames(two_labels))
    [photo] = check_photos(source, two_labels)
    assert photo.origin.split == "test"
    assert {what: len(names) for what, names in source.left_out().items()} == {"photos without an annotation": 4}
