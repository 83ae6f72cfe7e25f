"""Exports of a dataset version, read back by the tools that they are for."""

import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, MASKS
from pipelines.dataset.published import Published
from pipelines.dataset.records import decode_mask, encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.errors import DataError, DatasetError
from pipelines.exchange import export as export_module
from pipelines.exchange.export import FORMATS, ExportReport, export
from pipelines.exchange.importer import regions_of
from pipelines.exchange.masked_photos import masked_photos
from pipelines.exchange.outlines import outlines
from pipelines.exchange.photos import IDENTITY
from pipelines.exchange.selection import Selection
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import AnnotationJson
from pipelines.labelstudio.shapes import fill
from pipelines.params import IGNORE, Params, load_params
from pipelines.photos.decode import encode_png, sha256_hex
from pipelines.records import Annotation, ImageRef, RegionMask
from pipelines.settings import PROJECT_ROOT

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
        corners = np.array(shares, np.float32).reshape(-1, 2) * np.array([30, 36], np.float32)
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
def test_any_mask_is_its_outlines_filled(mask: np.ndarray) -> None:
    together = np.zeros(mask.shape, int)
    for ring in outlines(mask):
        part = fill(np.array(ring, float), *mask.shape)
        assert cv2.connectedComponents(part.astype(np.uint8), connectivity=4)[0] == 2
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


class ManyNames(ThreePhotos):
    """A version of photos whose objects have names that file systems refuse or confuse."""

    OBJECTS: tuple[str, ...] = (
        "a/Look.png", "b/look.png", f"{'漢' * 90}.jpg", f"x/{'漢' * 90}.png", "é.png", "e\u0301.png", "CON.png",
        "-rf.jpg",        "what?.png", "what*.png", "dots...png", "line\nbreak.png", "50% off #1.png",
    )  # fmt: skip

    def __init__(self) -> None:
        self.photos, self.masks, self.rows = {}, {}, []
        for number, name in enumerate(self.OBJECTS):
            self.add(f"gs://archive/{name}", png(np.full((36, 30, 3), number, np.uint8)), drawn(number % 3))

    def add(self, uri: str, data: bytes, mask: np.ndarray, split: str = "train", **fields: Any) -> None:
        sha256 = sha256_hex(data)
        self.photos[sha256], self.masks[sha256] = data, encode_mask(mask)
        number = len(self.rows)
        self.rows.append({
            "uri": uri, "generation": 5, "sha256": sha256, "split": split, "group": f"group {number}",
            "class_ids": [COAT, DRESS], "annotations": [f"uuid-{number}"], "annotators": ["ada@example.org"],
            "updated_at": "2026-01-01", "prediction_version": "", **fields,
        })  # fmt: skip


class Drawn(ManyNames):
    """Four photos with their annotations: two shoes, a coat that a dress divides, one twice drawn, and one of test."""

    OBJECTS = ()

    def __init__(self) -> None:
        super().__init__()
        self.annotations: list[Annotation] = []
        left, right, whole, middle = np.s_[:, :8], np.s_[:, 12:], np.s_[:, :], np.s_[10:15, :]
        self.draw("shoes", "train", ("coat", left), ("coat", right))
        self.draw("worn", "val", ("coat", whole), ("dress", middle))
        self.draw("twice", "train", ("dress", middle), annotators=["ada@example.org", "bob@example.org"])
        self.draw("truth", "test", ("coat", left), ground_truth=True)

    def draw(self, name: str, split: str, *regions: Any, ground_truth: bool = False, **fields: Any) -> None:
        params = load_params(PROJECT_ROOT / "params.yaml")
        coat, dress = params.labels[:2]
        labels = (
            coat.model_copy(update={"id": COAT, "name": "coat"}),
            dress.model_copy(update={"id": DRESS, "name": "dress"}),
        )
        params = params.model_copy(update={"labels": labels})
        masks = []
        for label, part in regions:
            mask = np.zeros((30, 20), bool)
            mask[part] = True
            masks.append(RegionMask(label, mask, 1.0))
        result = [region_json(region, f"region-{number}") for number, region in enumerate(masks)]
        data = png(np.full((30, 20, 3), len(self.rows), np.uint8))
        image = ImageRef(f"gs://archive/{name}.png", 5, sha256_hex(data), 30, 20)
        raw = cast(AnnotationJson, {"result": result, "ground_truth": ground_truth})
        annotation = Annotation(
            f"uuid-{len(self.rows)}",
            1,
            image,
            {},
            "ada@example.org",
            datetime(2026, 1, 1, tzinfo=UTC),
            1.0,
            False,
            "",
            raw,
        )
        compiled = compile_annotation(annotation, params).mask
        ids = [int(value) for value in np.unique(compiled) if value]
        self.annotations.append(annotation)
        self.add(image.uri, data, compiled, split, class_ids=ids, **fields)

    def write_masks(self, dataset: Dataset) -> None:
        super().write_masks(dataset)
        dataset.annotations.replace(self.annotations)


def png(pixels: np.ndarray) -> bytes:
    return encode_png(pixels)


def selected(form: str, folder: Path, params: Params, published: ThreePhotos, **selection: Any) -> ExportReport:
    return export(published, "dataset-0001", form, folder, params, Selection(**selection))  # type: ignore[arg-type]  # answers as Published does


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "photos.csv", keep_default_na=False).set_index("file")


IMAGES_OF = {"coco": "images", "png": "images", "yolo": "images", "voc": "JPEGImages"}


class TestPhotosTable:
    """What an export says of each of its files."""

    @pytest.mark.parametrize("form", ["png", "yolo", "voc"])
    def test_hashes_are_those_of_the_file_and_of_the_object(
        self, form: str, two_labels: Params, tmp_path: Path
    ) -> None:
        published = ThreePhotos()
        selected(form, tmp_path / "out", two_labels, published)
        table = table_of(tmp_path / "out")
        files = {path.name: path for path in (tmp_path / "out" / IMAGES_OF[form]).rglob("*.*")}
        assert set(table.index) == set(files)
        for name, row in table.iterrows():
            assert row["sha256"] == sha256_hex(files[str(name)].read_bytes())
            assert row["source_sha256"] in published.photos
            assert (row["sha256"] == row["source_sha256"]) == (name != "turned.png")
        assert set(zip(table["uri"], table["split"], table["group"], table["generation"], strict=True)) == {
            (row["uri"], row["split"], row["group"], row["generation"]) for row in published.rows
        }

    def test_coco_and_hugging_face_say_the_same(
        self, two_labels: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        import datasets

        for form in ("coco", "png", "huggingface"):
            selected(form, tmp_path / form, two_labels, ThreePhotos())
        wanted = {str(row["uri"]): {**row} for row in table_of(tmp_path / "png").to_dict("records")}
        images = [
            image
            for path in sorted((tmp_path / "coco" / "annotations").glob("rle_*"))
            for image in json.loads(path.read_text())["images"]
        ]
        assert {image["uri"]: {key: image[key] for key in IDENTITY} for image in images} == wanted
        loaded = datasets.load_dataset(str(tmp_path / "huggingface"), cache_dir=str(tmp_path / "cache"))
        rows = [row for split in loaded.values() for row in split.remove_columns(["image", "mask"])]
        assert {row["uri"]: {key: row[key] for key in IDENTITY} for row in rows} == wanted

    @pytest.mark.parametrize("form", FORMATS)
    def test_any_object_name_becomes_a_portable_file(self, form: str, two_labels: Params, tmp_path: Path) -> None:
        report = selected(form, tmp_path / "out", two_labels, ManyNames())
        assert report.written == len(ManyNames.OBJECTS)
        if form in IMAGES_OF:
            names = [path.name for path in (tmp_path / "out" / IMAGES_OF[form]).rglob("*.*")]
            assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == report.written
            assert max(len(name.encode()) for name in names) <= 200
        if form in ("png", "voc", "yolo"):
            assert set(table_of(tmp_path / "out")["uri"]) == {f"gs://archive/{name}" for name in ManyNames.OBJECTS}


class TestHuggingFace:
    """What releases before 4 need."""

    def test_lists_have_the_name_that_all_releases_know(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("huggingface", tmp_path, two_labels)
        for path in folder.glob("data/*.parquet"):
            features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
            assert features["annotations"] == {"_type": "Sequence", "feature": {"_type": "Value", "dtype": "string"}}
            assert {feature["_type"] for feature in features.values()} == {"Value", "Image", "Sequence"}


class TestYolo:
    """What ultralytics' `check_det_dataset` and label reader ask for."""

    @pytest.mark.parametrize(
        ("splits", "wanted", "note"),
        [
            (("train", "val", "test"), {"train": "images/train", "val": "images/val", "test": "images/test"}, ""),
            (("train", "test"), {"train": "images/train", "val": "images/test", "test": "images/test"}, "is test"),
            (("train",), {"train": "images/train", "val": "images/train"}, "is train"),
            (
                ("test",),
                {"train": None, "val": "images/test", "test": "images/test"},
                "`train` in dataset.yaml is empty",
            ),
        ],
    )
    def test_train_and_val_are_always_there(
        self, splits: tuple[str, ...], wanted: dict[str, str], note: str, two_labels: Params, tmp_path: Path
    ) -> None:
        report = selected("yolo", tmp_path / "out", two_labels, Drawn(), splits=splits)
        text = (tmp_path / "out" / "dataset.yaml").read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        assert document == {**wanted, "names": {0: "coat", 1: "dress"}}
        assert all((tmp_path / "out" / path).is_dir() for path in wanted.values() if path)
        assert note in "\n".join(report.notes)
        assert bool(report.notes) == bool(note) == ("# There are no photos" in text)

    def test_a_speck_is_a_polygon_too(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("yolo", tmp_path, two_labels)
        lines = [line for path in folder.rglob("*.txt") for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(lines) == 9, "coat, dress and speck on each photo"
        assert min(len(line.split()) for line in lines) >= 7

    def test_excluded_photos_are_counted(self, two_labels: Params, tmp_path: Path) -> None:
        published = Drawn()
        published.rows[0]["split"] = "excluded"
        report = selected("yolo", tmp_path / "out", two_labels, published)
        assert str(report) == "3 of 4 photos"
        assert "1 excluded photos are left out" in report.notes[-1]
        for row in published.rows:
            row["split"] = "excluded"
        with pytest.raises(DataError, match=r"no photo could be exported\n(?s:.*)4 excluded"):
            selected("yolo", tmp_path / "none", two_labels, published)


class TestVoc:
    """Pascal VOC, as CVAT, Datumaro and torchvision read it."""

    def test_masks_lists_and_label_map(self, two_labels: Params, tmp_path: Path) -> None:
        folder = exported("voc", tmp_path, two_labels, OneUnclear)
        assert (folder / "labelmap.txt").read_text(encoding="utf-8") == (
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncoat:128,128,0::\ndress:128,128,128::\n"
            "ignored:224,224,192::\n"
        )
        colors = {0: (0, 0, 0), COAT: (128, 128, 0), DRESS: (128, 128, 128), IGNORE: (224, 224, 192)}
        lists = {path.stem: path.read_text().split() for path in (folder / "ImageSets" / "Segmentation").iterdir()}
        assert {split: len(stems) for split, stems in lists.items()} == {"train": 2, "test": 1}
        with Image.open(folder / "SegmentationClass" / "turned.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), unclear_in_part())
            painted = np.asarray(mask.convert("RGB"))
        for value, color in colors.items():
            assert (painted[unclear_in_part() == value] == color).all()
        for stem in (*lists["train"], *lists["test"]):
            [photo] = (folder / "JPEGImages").glob(f"{stem}.*")
            assert Image.open(photo).size == Image.open(folder / "SegmentationClass" / f"{stem}.png").size

    def test_a_label_with_a_colon_keeps_the_map_readable(self, two_labels: Params, tmp_path: Path) -> None:
        names = ("top:coat", "top_coat")
        labels = tuple(
            label.model_copy(update={"name": name}) for label, name in zip(two_labels.labels, names, strict=True)
        )
        folder = exported("voc", tmp_path, two_labels.model_copy(update={"labels": labels}))
        lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines()
        assert [len(line.split(":")) for line in lines] == [4] * 5
        assert [line.split(":")[0] for line in lines[1:]] == ["background", "top_coat", "top_coat-7", "ignored"]

    def test_a_label_called_as_the_background_is_told_apart(self, two_labels: Params, tmp_path: Path) -> None:
        coat, dress = two_labels.labels
        labels = (coat.model_copy(update={"name": "background"}), dress.model_copy(update={"name": "ignored"}))
        folder = exported("voc", tmp_path, two_labels.model_copy(update={"labels": labels}))
        lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines()
        assert [line.split(":")[0] for line in lines[1:]] == ["background", "background-3", "ignored-7", "ignored"]


class WithOwnParams(ThreePhotos):
    """The version with the params.yaml that made it."""

    @contextmanager
    def checked_out(self, tag: str, *targets: Path) -> Iterator[Dataset]:
        with super().checked_out(tag, *targets) as dataset:
            labels = [{"id": 3, "name": "coat", "color": "#000000"}, {"id": 7, "name": "cape", "color": "#000000"}]
            dataset.path(Path("params.yaml")).write_text(yaml.safe_dump({"labels": labels, "other": 1}))
            yield dataset


class TestLabels:
    """A version may have labels that params.yaml no longer has."""

    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize(("published", "name"), [(ThreePhotos, "label-7"), (WithOwnParams, "cape")])
    def test_a_label_that_is_gone_is_exported_under_its_name(
        self, form: str, published: type[ThreePhotos], name: str, two_labels: Params, tmp_path: Path
    ) -> None:
        params = two_labels.model_copy(update={"labels": two_labels.labels[:1]})
        report = selected(form, tmp_path / "out", params, published(), labels=(name,))
        assert (report.written, len(report.notes)) == (3, 2 if form == "yolo" else 1)
        assert f"no label 7 any more; it is exported as '{name}'" in report.notes[0]
        names = {
            "coco": "annotations/rle_train.json", "png": "labels.csv", "yolo": "dataset.yaml",
            "huggingface": "README.md", "voc": "labelmap.txt",
        }  # fmt: skip
        assert name in (tmp_path / "out" / names[form]).read_text(encoding="utf-8")

    def test_a_name_that_another_label_has_today_gets_its_id(self, two_labels: Params, tmp_path: Path) -> None:
        renamed = two_labels.labels[0].model_copy(update={"name": "cape"})
        params = two_labels.model_copy(update={"labels": (renamed,)})
        report = selected("png", tmp_path / "out", params, WithOwnParams())
        assert "'cape-7'" in report.notes[0]


class TestSelection:
    """Parts of a version."""

    @pytest.mark.parametrize(
        ("selection", "wanted"),
        [
            ({}, {"shoes", "worn", "twice", "truth"}),
            ({"splits": ("test",)}, {"truth"}),
            ({"splits": ("test", "val")}, {"truth", "worn"}),
            ({"labels": ("dress",)}, {"worn", "twice"}),
            ({"labels": ("dress", "coat")}, {"shoes", "worn", "twice", "truth"}),
            ({"reviewed": True}, {"twice", "truth"}),
            ({"reviewed": True, "labels": ("coat",), "splits": ("train", "test")}, {"truth"}),
        ],
    )
    def test_splits_labels_and_reviewed(
        self, selection: dict[str, Any], wanted: set[str], two_labels: Params, tmp_path: Path
    ) -> None:
        report = selected("png", tmp_path / "out", two_labels, Drawn(), **selection)
        assert {path.stem for path in (tmp_path / "out" / "images").iterdir()} == wanted
        assert str(report) == f"{len(wanted)} of 4 photos"

    def test_masks_of_selected_photos_are_whole(self, two_labels: Params, tmp_path: Path) -> None:
        selected("png", tmp_path / "out", two_labels, Drawn(), labels=("dress",))
        assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "masks" / "worn.png")))) == {COAT, DRESS}

    @pytest.mark.parametrize(
        ("selection", "words"),
        [
            ({"splits": ("testing",)}, "no split 'testing'; there are test, train, val"),
            ({"labels": ("skirt",)}, "no label 'skirt'; there are coat, dress"),
            (
                {"splits": ("test",), "labels": ("dress",)},
                r"none of the 4 photos is selected \(split test, with dress\)",
            ),
        ],
    )
    def test_what_selects_nothing_is_said(
        self, selection: dict[str, Any], words: str, two_labels: Params, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match=words):
            selected("png", tmp_path / "out", two_labels, Drawn(), **selection)
        assert list(tmp_path.iterdir()) == []

    def test_names_do_not_depend_on_what_is_selected(self, two_labels: Params, tmp_path: Path) -> None:
        selected("png", tmp_path / "all", two_labels, ThreePhotos())
        selected("png", tmp_path / "test", two_labels, ThreePhotos(), splits=("test",))
        assert {path.name for path in (tmp_path / "test/images").iterdir()} < {
            path.name for path in (tmp_path / "all/images").iterdir()
        }

    @pytest.mark.parametrize("form", FORMATS)
    def test_photos_and_masks_are_reduced_together(self, form: str, two_labels: Params, tmp_path: Path) -> None:
        report = selected(form, tmp_path / "out", two_labels, ThreePhotos(), longest_edge=18)
        assert report.written == 3
        if form == "png":
            for path in (tmp_path / "out/images").iterdir():
                mask = Image.open(tmp_path / "out/masks" / f"{path.stem}.png")
                assert Image.open(path).size == mask.size == (15, 18)
                assert set(np.unique(np.asarray(mask))) <= {0, COAT, DRESS}
        if form == "coco":
            document = COCO(tmp_path / "out/annotations/rle_train.json")
            for annotation in document.loadAnns(document.getAnnIds()):
                assert document.annToMask(annotation).shape == (18, 15)


class TestInstances:
    """Regions as objects of their own."""

    def test_coco_has_an_annotation_for_each_region(self, two_labels: Params, tmp_path: Path) -> None:
        published = Drawn()
        selected("coco", tmp_path / "out", two_labels, published, instances=True)
        count = 0
        for form in ("rle", "polygons"):
            for split in ("train", "val", "test"):
                document = COCO(tmp_path / "out" / "annotations" / f"{form}_{split}.json")
                for image in document.loadImgs(document.getImgIds()):
                    annotations = document.loadAnns(document.getAnnIds(image["id"]))
                    count += len(annotations)
                    mask = np.zeros((30, 20), np.uint8)
                    for annotation in annotations:
                        drawn_here = document.annToMask(annotation).astype(bool)
                        assert not mask[drawn_here].any(), "no pixel belongs to two"
                        mask[drawn_here] = annotation["category_id"]
                        assert annotation["area"] == drawn_here.sum()
                    np.testing.assert_array_equal(mask, decode_mask(published.masks[image["source_sha256"]]))
        assert count == 2 * (2 + 2 + 1 + 1)

    def test_yolo_has_a_line_for_each_region(self, two_labels: Params, tmp_path: Path) -> None:
        selected("yolo", tmp_path / "out", two_labels, Drawn(), instances=True)
        lines = {path.stem: len(path.read_text().splitlines()) for path in (tmp_path / "out/labels").rglob("*.txt")}
        assert lines == {"shoes": 2, "worn": 2, "twice": 1, "truth": 1}
        selected("yolo", tmp_path / "parts", two_labels, Drawn())
        lines = {path.stem: len(path.read_text().splitlines()) for path in (tmp_path / "parts/labels").rglob("*.txt")}
        assert lines == {"shoes": 2, "worn": 3, "twice": 1, "truth": 1}

    def test_voc_numbers_them(self, two_labels: Params, tmp_path: Path) -> None:
        selected("voc", tmp_path / "out", two_labels, Drawn(), instances=True, longest_edge=15)
        objects = np.asarray(Image.open(tmp_path / "out/SegmentationObject/shoes.png"))
        classes = np.asarray(Image.open(tmp_path / "out/SegmentationClass/shoes.png"))
        assert set(np.unique(objects)) == {0, 1, 2}
        np.testing.assert_array_equal(objects > 0, classes > 0)

    def test_photos_without_readable_regions_are_counted(self, two_labels: Params, tmp_path: Path) -> None:
        published = Drawn()
        published.annotations = published.annotations[2:]
        report = selected("coco", tmp_path / "out", two_labels, published, instances=True)
        assert report.notes == ("of 2 photos no regions can be read; each connected part is an instance there",)

    @pytest.mark.parametrize("form", ["png", "huggingface"])
    def test_formats_without_instances_say_so(self, form: str, two_labels: Params, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"{form} cannot tell instances apart; give one of coco, yolo, voc"):
            selected(form, tmp_path / "out", two_labels, Drawn(), instances=True)


class TestCommand:
    """`maskloop export`, with a workspace that publishes `Drawn`."""

    def test_it_says_how_many_of_how_many_and_what_to_know(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Published, "of", lambda settings: Drawn())
        options = ["--split", "test", "--split", "train", "--label", "coat", "--size", "20", "--instances"]
        result = CliRunner().invoke(app, ["export", "dataset-0001", "yolo", str(tmp_path / "out"), *options])
        assert result.exit_code == 0, result.output
        said = " ".join(result.output.split())
        assert f"2 of 4 photos of dataset-0001 as yolo in {tmp_path / 'out'}".replace(" ", "") in said.replace(" ", "")
        assert "there are no photos of val; `val` in dataset.yaml is test" in said


class TestWhatGoesWrong:
    """One photo stops nothing else; what stops everything leaves nothing behind."""

    def test_a_photo_that_cannot_be_read_is_left_out_and_said(self, two_labels: Params, tmp_path: Path) -> None:
        published = ThreePhotos()
        ManyNames.add(published, "gs://archive/broken.png", b"no photo", drawn(0))  # type: ignore[arg-type]  # it has the same fields
        ManyNames.add(published, "gs://archive/other.png", png(np.zeros((20, 20, 3), np.uint8)), drawn(0))  # type: ignore[arg-type]  # so here
        report = selected("coco", tmp_path / "out", two_labels, published)
        assert str(report) == "3 of 5 photos"
        broken, other = report.notes
        assert broken.startswith("left out: gs://archive/broken.png: ")
        assert other == "left out: gs://archive/other.png: the photo has 20×20 pixels, its mask 30×36"

    def test_a_damaged_copy_is_never_exported(self, two_labels: Params, tmp_path: Path) -> None:
        published = ThreePhotos()
        first = next(iter(published.photos))
        published.photos[first] = published.photos[first][:-1] + b"!"
        with pytest.raises(DatasetError, match=r"gs://archive/a/look.png in DVC's cache is damaged"):
            selected("png", tmp_path / "out", two_labels, published)
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_copy_is_named(self, two_labels: Params, tmp_path: Path) -> None:
        published = ThreePhotos()
        published.photos.popitem()
        with pytest.raises(DatasetError, match=r"gs://archive/c/turned.jpg is missing in dataset-0001"):
            selected("png", tmp_path / "out", two_labels, published)

    def test_a_folder_that_cannot_be_made_is_said(self, two_labels: Params, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match="cannot be written"):
            selected("png", tmp_path / "file" / "out", two_labels, ThreePhotos())
        with pytest.raises(DataError, match="exists"):
            selected("png", tmp_path / "link", two_labels, ThreePhotos())

    def test_a_folder_may_have_the_longest_name(self, two_labels: Params, tmp_path: Path) -> None:
        selected("png", tmp_path / ("x" * 255), two_labels, ThreePhotos())

    def test_what_a_killed_export_left_is_removed_by_the_next(self, two_labels: Params, tmp_path: Path) -> None:
        code = (
            "import os, signal; from pathlib import Path; from pipelines.exchange import export, png\n"
            "from tests.unit.exchange import test_export as t; from pipelines.params import load_params\n"
            "png.write_csv = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"params = load_params(t.PROJECT_ROOT / 'params.yaml'); folder = Path({str(tmp_path / 'out')!r})\n"
            "t.selected('png', folder, params, t.ThreePhotos())"
        )
        killed = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False)
        assert killed.returncode == -signal.SIGKILL
        [remains] = tmp_path.iterdir()
        assert remains.name.startswith(".export-")
        with export_module._locked(remains):  # an export that still runs
            selected("png", tmp_path / "other", two_labels, ThreePhotos())
            selected("png", tmp_path / "out", two_labels, ThreePhotos())
            assert remains.exists()
        shutil.rmtree(tmp_path / "out")
        selected("png", tmp_path / "out", two_labels, ThreePhotos())
        assert {path.name for path in tmp_path.iterdir()} == {"other", "out"}
