"""Exports of a dataset version, read back by the tools that they are for."""

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, MASKS
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.errors import DataError, DatasetError
from pipelines.exchange.export import FORMATS, export
from pipelines.exchange.importer import regions_of
from pipelines.exchange.masked_photos import masked_photos
from pipelines.exchange.outlines import outline
from pipelines.exchange.photos import components
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.shapes import fill
from pipelines.params import IGNORE, Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

COAT, DRESS, TURNED = 3, 7, 6


def drawn(seed: int) -> np.ndarray:
    """A (36, 30) index mask: a coat with a hole and a speck, and a dress in its hole."""
    mask = np.zeros((36, 30), np.uint8)
    mask[4 + seed : 30, 3:25] = COAT
    mask[12:22, 8:18] = 0
    mask[14:20, 10:16] = DRESS
    mask[2, 27] = COAT
    return mask


class ThreePhotos:
    """A published version: two photos of one name, one of them in the test split, and one that EXIF turns."""

    def __init__(self) -> None:
        self.photos: dict[str, bytes] = {}
        self.masks: dict[str, bytes] = {}
        self.rows: list[dict[str, Any]] = []
        photos = [("a/look.png", "train", 1), ("b/look.png", "test", 1), ("c/turned.jpg", "train", TURNED)]
        for number, (name, split, turn) in enumerate(photos):
            mask = drawn(number)
            pixels = np.full((*mask.shape, 3), 40 * number, np.uint8)
            exif = Image.Exif()
            exif[274] = turn
            file = io.BytesIO()
            picture = Image.fromarray(pixels)
            if turn == TURNED:
                picture.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif)
            else:
                picture.save(file, "PNG")
            sha256 = sha256_hex(file.getvalue())
            self.photos[sha256], self.masks[sha256] = file.getvalue(), encode_mask(mask)
            self.rows.append({
                "uri": f"gs://archive/{name}", "generation": 5, "sha256": sha256, "split": split, "group": "Autumn",
                "class_ids": [COAT, DRESS], "annotations": [f"uuid-{number}"], "annotators": ["ada@example.org"],
                "updated_at": "2026-01-01", "prediction_version": "",
            })  # fmt: skip

    def tags(self) -> list[str]:
        return ["dataset-0001"]

    def manifest(self, tag: str) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def replace_last_mask(self, mask: np.ndarray) -> None:
        self.masks[list(self.masks)[-1]] = encode_mask(mask)

    @contextmanager
    def checked_out(self, tag: str, *targets: Path) -> Iterator[Dataset]:
        assert tag == "dataset-0001"
        assert set(targets) - {ANNOTATIONS} == {IMAGES, MASKS, MANIFEST}
        with tempfile.TemporaryDirectory() as folder:
            dataset = Dataset(Path(folder))
            dataset.write_table(MANIFEST, pd.DataFrame(self.rows))
            for sha256, data in self.photos.items():
                dataset.write_photo(sha256, data)
            self.write_masks(dataset)
            yield dataset

    def write_masks(self, dataset: Dataset) -> None:
        for shard in {shard_of(sha256) for sha256 in self.masks}:
            of_shard = {sha256: png for sha256, png in self.masks.items() if shard_of(sha256) == shard}
            dataset.masks.write_shard(shard, of_shard)


def unclear_in_part() -> np.ndarray:
    """A (36, 30) index mask with a part that nobody could name, beside a coat and in its hole."""
    mask = drawn(2)
    mask[20:36, 20:30] = mask[13:15, 9:12] = IGNORE
    return mask


class OneUnclear(ThreePhotos):
    """The same version, but of the photo that EXIF turns nobody could name everything."""

    def __init__(self) -> None:
        super().__init__()
        self.replace_last_mask(unclear_in_part())


class OlderLayout(ThreePhotos):
    """The same version with a file per mask, as versions were once published."""

    def write_masks(self, dataset: Dataset) -> None:
        dataset.path(MASKS).mkdir()
        for sha256, png in self.masks.items():
            (dataset.path(MASKS) / f"{sha256}.png").write_bytes(png)


def exported(form: str, folder: Path, params: Params, published: type[ThreePhotos] = ThreePhotos) -> Path:
    report = export(published(), "dataset-0001", form, folder / form, params)  # type: ignore[arg-type]  # answers as Published does
    assert (report.written, report.total) == (3, 3)
    return folder / form


def test_coco_gives_every_pixel_back_as_rle_and_as_polygons(two_labels: Params, tmp_path: Path) -> None:
    folder = exported("coco", tmp_path, two_labels)
    count = 0
    for split, numbers in (("train", (0, 2)), ("test", (1,))):
        for form in ("rle", "polygons"):
            document = COCO(folder / "annotations" / f"{form}_{split}.json")
            categories = document.loadCats(document.getCatIds())
            assert {category["name"]: category["id"] for category in categories} == {"coat": 3, "dress": 7}
            for image, number in zip(document.loadImgs(sorted(document.getImgIds())), numbers, strict=True):
                picture = Image.open(folder / "images" / image["file_name"])
                assert picture.size == (image["width"], image["height"]) == (30, 36), "upright without EXIF"
                mask = np.zeros((36, 30), np.uint8)
                for annotation in document.loadAnns(document.getAnnIds(image["id"])):
                    decoded = document.annToMask(annotation).astype(bool)
                    mask[decoded] = annotation["category_id"]
                    assert annotation["area"] == decoded.sum()
                    count += 1
                np.testing.assert_array_equal(mask, drawn(number))
    assert count == 12


def filled(labels: Path) -> np.ndarray:
    """Fill a label file as ultralytics' `polygon2mask` does, into a (36, 30) index mask."""
    mask = np.zeros((36, 30), np.uint8)
    for line in labels.read_text(encoding="utf-8").splitlines():
        number, *shares = line.split()
        corners = np.array(shares, np.float32).reshape(-1, 2) * np.float32([30, 36])
        cv2.fillPoly(mask, [corners.astype(np.int32)], (COAT, DRESS)[int(number)])
    return mask


def test_yolo_gives_every_pixel_back(two_labels: Params, tmp_path: Path) -> None:
    folder = exported("yolo", tmp_path, two_labels)
    document = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    assert document == {
        "train": "images/train", "val": "images/test", "test": "images/test", "names": {0: "coat", 1: "dress"},
    }  # fmt: skip
    labels = {path.stem: path for path in folder.rglob("*.txt")}
    assert {path.stem for path in (folder / "images").rglob("*.*")} == set(labels)
    np.testing.assert_array_equal(filled(labels["turned"]), drawn(2))


def test_png_can_be_read_as_masked_photos_again(two_labels: Params, tmp_path: Path) -> None:
    folder = exported("png", tmp_path, two_labels)
    again = masked_photos(folder / "images", folder / "masks", folder / "labels.csv", two_labels)
    names = again.take(0, 9)
    assert len(names) == 3
    assert len({name.lower() for name in names}) == 3
    masks = {again.truth(name).tobytes() for name in names}
    assert masks == {drawn(number).tobytes() for number in range(3)}
    table = pd.read_csv(folder / "photos.csv")
    assert Counter(table["split"]) == {"train": 2, "test": 1}
    with Image.open(folder / "masks" / f"{Path(names[0]).stem}.png") as mask:
        assert mask.convert("RGB").getpixel((12, 10)) == (31, 119, 180), "in the label's colour"


def test_hugging_face_loads_photos_masks_and_labels(
    two_labels: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import datasets

    folder = exported("huggingface", tmp_path, two_labels)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "test": 1}
    row = loaded["train"][1]
    assert row["image"].size == row["mask"].size == (30, 36)
    np.testing.assert_array_equal(np.asarray(row["mask"]), drawn(2))
    assert (row["labels"], row["annotations"], row["generation"]) == (["coat", "dress"], ["uuid-2"], 5)
    assert "| 7 | dress |" in (folder / "README.md").read_text(encoding="utf-8")


class TestIgnored:
    """What nobody could name, in each form."""

    def test_png_keeps_and_names_it(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("png", tmp_path, two_labels, OneUnclear)
        with Image.open(folder / "masks" / "turned.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), unclear_in_part())
            assert mask.convert("RGB").getpixel((29, 35)) == (0x40, 0x40, 0x40), "in the ignore label's colour"
        table = pd.read_csv(folder / "labels.csv", keep_default_na=False)
        assert table.to_dict("records")[-1] == {"index": 255, "label": "unclear", "color": "#404040"}

    def test_coco_has_no_annotation_of_it_and_says_where_it_is(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("coco", tmp_path, two_labels, OneUnclear)
        garments = np.where(unclear_in_part() == IGNORE, 0, unclear_in_part())
        for form in ("rle", "polygons"):
            document = COCO(folder / "annotations" / f"{form}_train.json")
            whole, part = document.loadImgs(sorted(document.getImgIds()))
            assert "ignored" not in whole
            np.testing.assert_array_equal(coco_mask.decode(part["ignored"]) == 1, unclear_in_part() == IGNORE)
            mask = np.zeros((36, 30), np.uint8)
            for annotation in document.loadAnns(document.getAnnIds(part["id"])):
                mask[document.annToMask(annotation).astype(bool)] = annotation["category_id"]
                assert annotation["iscrowd"] == 0
            np.testing.assert_array_equal(mask, garments)
            assert '"unclear" are in no annotation' in document.dataset["info"]["ignored"]
            assert {category["name"] for category in document.loadCats(document.getCatIds())} == {"coat", "dress"}

    def test_yolo_leaves_it_out(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("yolo", tmp_path, two_labels, OneUnclear)
        mask = filled(folder / "labels" / "train" / "turned.txt")
        np.testing.assert_array_equal(mask, np.where(unclear_in_part() == IGNORE, 0, unclear_in_part()))

    def test_hugging_face_keeps_and_names_it(
        self, two_labels: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        import datasets

        folder = exported("huggingface", tmp_path, two_labels, OneUnclear)
        row = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"][1]
        np.testing.assert_array_equal(np.asarray(row["mask"]), unclear_in_part())
        assert row["labels"] == ["coat", "dress"]
        assert "| 255 | unclear (ignored) |" in (folder / "README.md").read_text(encoding="utf-8")

    def test_externally_drawn_masks_come_through_annotations_and_compiling_to_the_same_png(
        self, annotate: Callable[..., Annotation], two_labels: Params, tmp_path: Path
    ) -> None:
        external = np.array([0] * 256, np.uint8)
        external[[COAT, DRESS, IGNORE]] = [11, 12, 200]
        for name in ("photos", "masks"):
            (tmp_path / name).mkdir()
        Image.new("RGB", (30, 36)).save(tmp_path / "photos" / "look.jpg")
        Image.fromarray(external[unclear_in_part()]).save(tmp_path / "masks" / "look.PNG")
        (tmp_path / "labels.csv").write_text("index,label\n0,background\n11,coat\n12,dress\n200,void\n")
        source = masked_photos(tmp_path / "photos", tmp_path / "masks", tmp_path / "labels.csv", two_labels)

        regions = regions_of(source.truth("look.jpg"), two_labels)
        annotation = annotate("look", {})
        image = replace(annotation.image, height=36, width=30)
        raw = json.loads(json.dumps({"result": regions}))  # as Label Studio keeps it
        compiled = compile_annotation(replace(annotation, image=image, raw=raw), two_labels)

        class Imported(OneUnclear):
            def __init__(self) -> None:
                super().__init__()
                self.replace_last_mask(compiled.mask)

        assert [region["value"]["brushlabels"] for region in regions] == [["coat"], ["dress"], ["unclear"]]
        folder = exported("png", tmp_path, two_labels, Imported)
        again = masked_photos(folder / "images", folder / "masks", folder / "labels.csv", two_labels)
        with Image.open(folder / "masks" / "turned.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), unclear_in_part())
        np.testing.assert_array_equal(again.truth("turned.png"), unclear_in_part())


@settings(max_examples=200)
@given(mask=arrays(bool, (9, 11)))
def test_any_part_is_its_outline_filled(mask: np.ndarray) -> None:
    together = np.zeros(mask.shape, int)
    for part in components(mask):
        ring = outline(part)
        np.testing.assert_array_equal(fill(np.array(ring, float), *mask.shape), part)
        rle = coco_mask.frPyObjects([[float(c) for corner in ring for c in corner]], *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(rle)[..., 0].astype(bool), part)
        together += part
    np.testing.assert_array_equal(together, mask.astype(int))


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_appears_whole_or_not_at_all(
    form: str, two_labels: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = ThreePhotos()
    published.masks.popitem()
    with pytest.raises(DatasetError, match="is missing"):
        export(published, "dataset-0001", form, tmp_path / "out", two_labels)  # type: ignore[arg-type]  # answers as Published does
    assert list(tmp_path.iterdir()) == []


def test_a_version_of_the_older_layout_gives_the_same_files(two_labels: Params, tmp_path: Path) -> None:
    folders = [exported("png", tmp_path / name, two_labels, kind) for name, kind in
               (("now", ThreePhotos), ("older", OlderLayout))]  # fmt: skip

    now, older = ({path.name: path.read_bytes() for path in folder.rglob("*.*")} for folder in folders)
    assert now == older


@pytest.mark.parametrize(
    ("tag", "form", "words"),
    [
        ("dataset-0009", "png", "no dataset version 'dataset-0009'; the newest: dataset-0001"),
        ("dataset-0001", "pascal", "no format 'pascal'; give one of coco, png, yolo, huggingface, voc"),
        ("dataset-0001", "png", "exists; give a folder that does not"),
    ],
)
def test_what_cannot_be_exported_is_said(tag: str, form: str, words: str, two_labels: Params, tmp_path: Path) -> None:
    folder = tmp_path if "exists" in words else tmp_path / "out"
    with pytest.raises(DataError, match=words):
        export(ThreePhotos(), tag, form, folder, two_labels)  # type: ignore[arg-type]  # answers as Published does


def test_the_same_version_gives_the_same_bytes(two_labels: Params, tmp_path: Path) -> None:
    def bytes_of(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    for form in FORMATS:
        assert bytes_of(exported(form, tmp_path / "1", two_labels)) == bytes_of(
            exported(form, tmp_path / "2", two_labels)
        )
    assert json.loads((tmp_path / "1/coco/annotations/rle_test.json").read_text())["info"]["version"] == "dataset-0001"
