"""Labelled photos of other tools, as these write them; what does not fit is named with file and place."""

import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.importer import check_photos, regions_of
from pipelines.exchange.label_names import LabelNames, read_renames
from pipelines.exchange.labelled_photos import LabelledPhotos, Origin
from pipelines.exchange.readers import read_labelled_photos, recognise
from pipelines.labelstudio.annotations import prediction_version_of
from pipelines.labelstudio.regions import IMPORTED
from pipelines.labelstudio.render import region_json
from pipelines.params import IGNORE, Params
from pipelines.records import RegionMask

COAT, DRESS = 3, 7
HEIGHT, WIDTH = 8, 10
SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]  # x, y of a square of 4 × 4 pixels


def square(value: int, left: int = 2, top: int = 2, side: int = 4) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def picture(path: Path, shade: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path, **options)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def problems(source: LabelledPhotos, params: Params) -> dict[str, str]:
    return {photo.name: photo.problem for photo in check_photos(source, params) if photo.problem}


Read = Callable[..., LabelledPhotos]


@pytest.fixture
def read(tmp_path: Path, two_labels: Params) -> Read:
    """Read the test's folder, or a file in it."""
    return lambda name="", form="", **renames: read_labelled_photos(
        tmp_path / name, LabelNames(two_labels, renames), form
    )


class TestCoco:
    @pytest.fixture
    def document(self, tmp_path: Path) -> dict[str, Any]:
        picture(tmp_path / "images" / "a.png")
        return {
            "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "segmentation": [SQUARE], "iscrowd": 0}],
            "categories": [{"id": 9, "name": "Coat"}, {"id": 4, "name": "dress"}, {"id": 5, "name": "not drawn"}],
        }

    @pytest.fixture
    def save(self, tmp_path: Path, document: dict[str, Any]) -> Callable[[], None]:
        return lambda: write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(document)) and None

    def test_polygons_under_another_id_and_in_other_letters(self, read: Read, save: Callable[[], None]) -> None:
        save()
        source = read()
        assert source.take(0, 9) == ["images/a.png"]
        np.testing.assert_array_equal(source.drawn("images/a.png").mask, square(COAT))
        assert source.origin("images/a.png") == Origin("val")

    @pytest.mark.parametrize("compressed", [True, False])
    def test_rle(self, read: Read, save: Callable[[], None], document: dict[str, Any], compressed: bool) -> None:
        mask = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.4
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
        runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        counts = rle["counts"].decode() if compressed else runs
        document["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
        save()
        np.testing.assert_array_equal(read().drawn("images/a.png").mask, mask * COAT)

    def test_the_smaller_instance_lies_on_top_and_crowds_are_ignored_below(
        self, read: Read, save: Callable[[], None], document: dict[str, Any]
    ) -> None:
        whole = [0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]
        document["annotations"] = [
            {"image_id": 1, "category_id": 4, "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
            {"image_id": 1, "category_id": 9, "segmentation": [SQUARE]},
            {"image_id": 1, "category_id": 5, "segmentation": [whole], "iscrowd": 1},
        ]
        save()
        drawn = read().drawn("images/a.png")
        expected = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
        expected[2:6, 2:6] = COAT
        expected[2:4, 2:4] = DRESS
        np.testing.assert_array_equal(drawn.mask, expected)
        assert drawn.overlap_pixels == 16 + 4

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"category_id": 77}, r"annotations\[0\]\.category_id 77 is no id of a category"),
            ({"segmentation": []}, r"annotations\[0\] has no segmentation; a box alone is no mask"),
            ({"segmentation": [[1, 2, 3, 4]]}, r"segmentation\[0\] is no list of three or more corners"),
            ({"segmentation": [[1, 2, 3, 4, "5", 6]]}, "something else than coordinates"),
            ({"segmentation": {"size": [8, 9], "counts": "0"}}, r"size is \[8, 9\], the image has \[8, 10\]"),
            ({"segmentation": {"size": [8, 10], "counts": [1, 2]}}, "has runs of 3 pixels in all, the image has 80"),
            ({"segmentation": {"size": [8, 10], "counts": "\x01"}}, "is no compressed RLE at run 0"),
            ({"segmentation": {"size": [8, 10], "counts": "o"}}, "ends within run 0"),
            ({"segmentation": {"size": [8, 10], "counts": [-1, 81]}}, "runs of 80 pixels"),
        ],
    )
    def test_a_bad_annotation_is_a_problem_of_its_photo(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], two_labels: Params,
        change: dict[str, Any], said: str, tmp_path: Path,
    ) -> None:  # fmt: skip
        picture(tmp_path / "images" / "b.png", 9)
        document["images"].append({"id": "b", "file_name": "b.png"})
        document["annotations"].append({"image_id": "b", "category_id": 9, "segmentation": [SQUARE]})
        document["annotations"][0].update(change)
        save()
        source = read()
        with pytest.raises(DataError, match=said):
            source.drawn("images/a.png")
        assert list(problems(source, two_labels)) == ["images/a.png"]
        np.testing.assert_array_equal(source.drawn("images/b.png").mask, square(COAT))

    def test_what_belongs_to_no_photo_is_counted(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], tmp_path: Path
    ) -> None:
        picture(tmp_path / "images" / "alone.jpg")
        document["images"] += [{"id": 2, "file_name": "gone.png"}, {"file_name": "a.png"}, 5]
        document["annotations"] += [{"image_id": 3, "category_id": 9, "segmentation": [SQUARE]}, {"category_id": 9}]
        save()
        assert {what: len(names) for what, names in read().left_out().items()} == {
            "entries that cannot be used": 3,
            "images without a photo": 1,
            "annotations of images that are not listed": 1,
            "photos without an annotation": 1,
        }

    @pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "images/../../secret.png"])
    def test_no_name_leads_out_of_the_folder(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], tmp_path: Path, name: str
    ) -> None:
        picture(tmp_path.parent / "secret.png")
        document["images"].append({"id": 2, "file_name": name})
        save()
        assert read().take(0, 9) == ["images/a.png"]

    @pytest.mark.parametrize(
        "name", ["/home/ada/data/images/a.png", r"C:\data\images\a.png", "images/a.PNG", "./a.png"]
    )
    def test_names_of_other_machines_and_systems(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], name: str
    ) -> None:
        document["images"][0]["file_name"] = name
        save()
        assert read().take(0, 9) == ["images/a.png"]

    def test_a_name_of_another_folder_is_not_mistaken(
        self, read: Read, save: Callable[[], None], document: dict[str, Any]
    ) -> None:
        document["images"].append({"id": 2, "file_name": "val/a.png"})
        save()
        assert list(read().left_out()) == ["images without a photo"]

    def test_unicode_forms_do_not_matter(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "images" / "a.png").rename(tmp_path / "images" / unicodedata.normalize("NFD", "été.png"))
        document["images"][0]["file_name"] = unicodedata.normalize("NFC", "été.png")
        save()
        assert len(read().take(0, 9)) == 1

    def test_roboflow_has_a_folder_per_split(self, read: Read, document: dict[str, Any], tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            picture(tmp_path / split / "a.png")
            write(tmp_path / split / "_annotations.coco.json", json.dumps(document))
        (tmp_path / "images" / "a.png").unlink()
        source = read()
        assert [source.origin(f"{split}/a.png").split for split in ("train", "valid", "test")] == [
            "train",
            "val",
            "test",
        ]

    def test_two_files_of_one_photo_are_refused(
        self, read: Read, save: Callable[[], None], document: dict[str, Any], tmp_path: Path
    ) -> None:
        save()
        write(tmp_path / "annotations" / "persons_val2017.json", json.dumps(document))
        with pytest.raises(ConfigurationError, match=r"images/a\.png is in .*instances.* and again in .*persons"):
            read()
        assert read("annotations/persons_val2017.json").take(0, 9) == ["images/a.png"]

    def test_broken_json_is_named_with_its_line(self, read: Read, tmp_path: Path) -> None:
        write(tmp_path / "coco.json", '{"images": [],\n"annotations": [}')
        with pytest.raises(ConfigurationError, match=r"coco\.json, line 2: no JSON"):
            read()
        with pytest.raises(DataError, match=r"coco\.json, line 2: no JSON"):
            read(form="coco")

    def test_huge_sizes_are_refused_before_anything_is_drawn(
        self, read: Read, save: Callable[[], None], document: dict[str, Any]
    ) -> None:
        document["images"][0].update(height=10**8, width=10**8)
        save()
        with pytest.raises(DataError, match="would have 100000000×100000000 pixels"):
            read().drawn("images/a.png")


class TestLabels:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for number, name in enumerate(["a.png", "b.png"]):
            picture(tmp_path / name, number)
        document = {
            "images": [{"id": name, "file_name": name} for name in ("a.png", "b.png")],
            "annotations": [
                {"image_id": image, "category_id": category, "segmentation": [SQUARE]}
                for image, category in (("a.png", 1), ("a.png", 1), ("b.png", 1), ("b.png", 2))
            ],
            "categories": [{"id": 1, "name": "T-shirt"}, {"id": 2, "name": "Toga"}],
        }
        write(tmp_path / "x.json", json.dumps(document))
        return tmp_path

    def test_unknown_labels_stop_with_counts_and_the_line_to_add(
        self, read: Read, folder: Path, two_labels: Params
    ) -> None:
        with pytest.raises(
            ConfigurationError,
            match=r"not have: 'T-shirt' on 2 photos, such as a\.png; 'Toga' on 1 photo, such as b\.png\. Give",
        ):
            check_photos(read(), two_labels)

    def test_labels_may_be_renamed_ignored_or_background(self, read: Read, folder: Path, two_labels: Params) -> None:
        source = read(**{"t-shirt": "coat", "Toga": "ignore"})
        assert not problems(source, two_labels)
        np.testing.assert_array_equal(source.drawn("b.png").mask, square(IGNORE))
        np.testing.assert_array_equal(read(**{"T-shirt": "background", "Toga": ""}).drawn("b.png").mask, square(0))

    def test_the_table_of_labels(self, tmp_path: Path, two_labels: Params) -> None:
        table = write(tmp_path / "labels.csv", "name,label\n T-shirt ,coat\nToga,\n")
        assert read_renames(table) == {"T-shirt": "coat", "Toga": ""}
        with pytest.raises(ConfigurationError, match="does not have: cape"):
            LabelNames(two_labels, {"x": "cape"})
        for text, said in (
            ("name,label\na,coat\nA ,dress\n", "several lines for the name A"),
            ("index,label\n1,coat\n", "needs the columns name and label; it has index, label"),
            ("", "is no CSV table"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                read_renames(write(table, text))
        with pytest.raises(ConfigurationError, match="does not exist"):
            read_renames(tmp_path / "nowhere.csv")

    def test_case_and_spaces_count_only_where_they_decide(self, two_labels: Params) -> None:
        coat = two_labels.labels[0]
        labels = [
            coat.model_copy(update={"id": number, "name": name}) for number, name in enumerate(["T shirt", "Tshirt"], 1)
        ]
        names = LabelNames(two_labels.model_copy(update={"labels": tuple(labels)}))
        assert [names.id_of(name) for name in ("T shirt", "Tshirt", "TSHIRT", "coat")] == [1, 2, None, None]
        ours = LabelNames(two_labels)
        assert [ours.id_of(name) for name in ("COAT", " d ress", "Background", "VOID", "Unclear")] == [
            3,
            7,
            0,
            255,
            255,
        ]


class TestYolo:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write(tmp_path / "data.yaml", "train: ../train/images\nval: images/val\nnames: [dress, Coat]\n")
        picture(tmp_path / "train" / "images" / "a.jpg")
        picture(tmp_path / "images" / "val" / "b.png", 9)
        corners = " ".join(str(share) for share in (0.25, 0.3, 0.55, 0.3, 0.55, 0.7, 0.25, 0.7))
        write(tmp_path / "train" / "labels" / "a.txt", f"1 {corners}\n\n")
        write(tmp_path / "labels" / "val" / "b.txt", "")
        return tmp_path

    def test_lists_of_names_and_both_layouts(self, read: Read, folder: Path) -> None:
        source = read()
        assert source.take(0, 9) == ["images/val/b.png", "train/images/a.jpg"]
        np.testing.assert_array_equal(source.drawn("train/images/a.jpg").mask, square(COAT))
        assert not source.drawn("images/val/b.png").mask.any()
        assert [source.origin(name).split for name in source.take(0, 9)] == ["val", "train"]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("7 0 0 1 0 1 1", "line 1: the class '7' has no name"),
            ("1 0.5 0.5 0.2 0.2", "line 1 is a box"),
            ("1 0 0 1 0 1", "has 5 numbers after the class"),
            ("1 0 0 1 0 1 7", r"a number outside of 0\.\.1"),
            ("1 0 0 1 0 1 nan", r"a number outside of 0\.\.1"),
            ("1 0 0 1 0 1 x", "could not convert"),
            ("coat 0 0 1 0 1 1", "the class 'coat' has no name"),
        ],
    )
    def test_bad_lines_are_problems_of_their_photo(
        self, read: Read, folder: Path, two_labels: Params, line: str, said: str
    ) -> None:
        write(folder / "train" / "labels" / "a.txt", line)
        source = read()
        with pytest.raises(DataError, match=rf"a\.txt, {said}|a\.txt, line 1.*{said}"):
            source.drawn("train/images/a.jpg")
        assert list(problems(source, two_labels)) == ["train/images/a.jpg"]

    def test_unpaired_files_are_counted(self, read: Read, folder: Path) -> None:
        picture(folder / "train" / "images" / "c.jpg")
        picture(folder / "unused" / "d.jpg")
        write(folder / "train" / "labels" / "e.txt", "")
        assert read().left_out() == {
            "photos without a mask": ["train/images/c.jpg"],
            "masks without a photo": ["train/labels/e.txt"],
            "photos in no split": ["unused/d.jpg"],
        }

    def test_a_photo_of_two_splits_is_of_the_more_protective_one(self, read: Read, folder: Path) -> None:
        write(
            folder / "data.yaml", "train: train/images\nval: images/val\ntest: images/val\nnames: {0: dress, 1: coat}\n"
        )
        assert read().origin("images/val/b.png").split == "test"

    def test_splits_may_be_lists_of_files(self, read: Read, folder: Path) -> None:
        write(folder / "data.yaml", "train: train.txt\nnames: [dress, coat]\n")
        write(folder / "train.txt", "./train/images/a.jpg\n\n/root/images/val/b.png\nx/gone.jpg\n")
        source = read()
        assert source.take(0, 9) == ["images/val/b.png", "train/images/a.jpg"]
        assert list(source.left_out()) == ["lines without a photo"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("names: coat\ntrain: images/val\n", "names is neither"),
            ("names: [coat]\ntrain: nowhere\n", "train is 'nowhere', which is no folder"),
            ("names: [coat]\ntrain: images/../../..\n", "leaves the folder"),
            ("names: [coat]\ntrain: 5\n", "train is no folder"),
            ("names: [coat\n", "is no YAML"),
        ],
    )
    def test_a_bad_description_is_named(self, read: Read, folder: Path, text: str, said: str) -> None:
        write(folder / "data.yaml", text)
        with pytest.raises(DataError, match=rf"data\.yaml.*{said}"):
            read(form="yolo")


class TestVoc:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for number, name in enumerate(["a.jpg", "b.jpg"]):
            picture(tmp_path / "JPEGImages" / name, number)
        (tmp_path / "SegmentationClass").mkdir()
        write(tmp_path / "ImageSets" / "Segmentation" / "train.txt", "a\n")
        write(tmp_path / "ImageSets" / "Segmentation" / "test.txt", "b\nc\n")
        write(tmp_path / "ImageSets" / "Segmentation" / "trainval.txt", "a\nb\n")
        return tmp_path

    def test_colours_of_a_label_map_and_void(self, read: Read, folder: Path) -> None:
        write(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nCoat:10,20,30::\n")
        colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        colors[2:6, 2:6] = 10, 20, 30
        colors[0, 0] = 224, 224, 192
        write_mask(folder / "SegmentationClass" / "a.png", colors)
        palette = Image.fromarray(square(5))
        palette.putpalette([0] * 15 + [10, 20, 30] + [0] * 240)
        palette.save(folder / "SegmentationClass" / "b.png")
        source = read()
        expected = square(COAT)
        np.testing.assert_array_equal(source.drawn("b.jpg").mask, expected)
        expected[0, 0] = IGNORE
        np.testing.assert_array_equal(source.drawn("a.jpg").mask, expected)
        assert [source.origin(name).split for name in ("a.jpg", "b.jpg")] == ["train", "test"]
        assert list(source.left_out()) == ["lines without a photo"]

    def test_an_unknown_colour_stops(self, read: Read, folder: Path, two_labels: Params) -> None:
        write(folder / "labelmap.txt", "coat:10,20,30::\n")
        write_mask(folder / "SegmentationClass" / "a.png", np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
        with pytest.raises(ConfigurationError, match=r"'colour 7 7 7' on 1 photo, such as a\.jpg"):
            check_photos(read(), two_labels)
        assert not problems(read(**{"colour 7 7 7": "ignore"}), two_labels)

    def test_values_are_the_classes_of_voc_without_a_label_map(
        self, read: Read, folder: Path, two_labels: Params
    ) -> None:
        mask = square(15)
        mask[0] = 255
        write_mask(folder / "SegmentationClass" / "a.png", mask)
        np.testing.assert_array_equal(read(person="dress").drawn("a.jpg").mask, np.where(mask == 15, DRESS, mask))
        with pytest.raises(ConfigurationError, match="'person' on 1 photo"):
            check_photos(read(), two_labels)

    def test_a_mask_that_is_no_picture_is_a_problem_of_its_photo(
        self, read: Read, folder: Path, two_labels: Params
    ) -> None:
        write(folder / "SegmentationClass" / "a.png", "no picture")
        write_mask(folder / "SegmentationClass" / "b.png", square(255))
        assert list(problems(read(), two_labels)) == ["a.jpg"]

    def test_a_photo_in_two_lists_is_refused(self, read: Read, folder: Path) -> None:
        write_mask(folder / "SegmentationClass" / "a.png", square(255))
        write(folder / "ImageSets" / "Segmentation" / "val.txt", "a\n")
        with pytest.raises(DataError, match=r"val\.txt, line 1: 'a' is in train\.txt as well"):
            read()

    @pytest.mark.parametrize("line", ["coat", "coat:1,2", "coat:1,2,300::"])
    def test_a_bad_label_map_is_named(self, read: Read, folder: Path, line: str) -> None:
        write_mask(folder / "SegmentationClass" / "a.png", square(255))
        write(folder / "labelmap.txt", f"dress:1,2,3::\n{line}\n")
        with pytest.raises(DataError, match=r"labelmap\.txt, line 2 is"):
            read()


class TestCvat:
    def save(self, folder: Path, *shapes: str, attributes: str = 'name="a.png"') -> None:
        picture(folder / "images" / "a.png")
        image = f'<image id="0" {attributes} width="{WIDTH}" height="{HEIGHT}">{"".join(shapes)}</image>'
        write(folder / "annotations.xml", f'<?xml version="1.0"?>\n<annotations>\n<meta/>\n{image}\n</annotations>\n')

    def test_polygons_and_masks_in_their_z_order(self, read: Read, tmp_path: Path) -> None:
        self.save(
            tmp_path,
            '<polygon label="coat" points="2,2;6,2;6,6;2,6" z_order="1"><attribute name="x">y</attribute></polygon>',
            '<mask label="Dress" rle="1, 2, 1" left="3" top="3" width="2" height="2" z_order="2"/>',
            '<polygon label="void" points="0,0;10,0;10,8;0,8" z_order="0"/><tag label="seen"/>',
            attributes='name="folder/a.png" subset="Validation"',
        )
        (tmp_path / "folder").mkdir()
        (tmp_path / "images" / "a.png").rename(tmp_path / "folder" / "a.png")
        source = read()
        drawn = source.drawn("folder/a.png")
        expected = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
        expected[2:6, 2:6] = COAT
        expected[3, 4] = expected[4, 3] = DRESS
        np.testing.assert_array_equal(drawn.mask, expected)
        assert drawn.overlap_pixels == 18
        assert source.origin("folder/a.png").split == "val"

    @pytest.mark.parametrize(
        ("shape", "said"),
        [
            ('<box label="coat" xtl="1" ytl="1" xbr="2" ybr="2"/>', "the shapes box, which are no masks"),
            ('<blob label="coat"/>', "the shape 'blob' is unknown"),
            ('<polygon points="1,1;2,2;3,3"/>', "label is missing"),
            ('<polygon label="coat" points="1,1;2,2"/>', "no three or more corners"),
            ('<polygon label="coat" points="1,1;2,x;3,3"/>', "could not convert"),
            ('<polygon label="coat" points="1,1;nan,2;3,3"/>', "no three or more corners"),
            ('<mask label="coat" rle="3" left="0" top="0" width="2" height="2"/>', "rle has runs of 3 pixels"),
            ('<mask label="coat" rle="4" left="9" top="0" width="2" height="2"/>', "box leaves the image of 10×8"),
            ('<mask label="coat" rle="4" left="a" top="0" width="2" height="2"/>', "left is 'a', no whole number"),
        ],
    )
    def test_bad_shapes_are_problems_of_their_photo(
        self, read: Read, tmp_path: Path, two_labels: Params, shape: str, said: str
    ) -> None:
        self.save(tmp_path, shape)
        with pytest.raises(DataError, match=rf"annotations\.xml, line 4.*{said}"):
            read().drawn("images/a.png")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("<annotations>\n<image", "line 2: no XML"),
            ("<annotations><track/></annotations>", "CVAT for video"),
            ('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotations>&b;</annotations>', "defines the entity 'b'"),
            ('<?xml version="1.0" encoding="klingon"?><annotations/>', "annotations.xml"),
        ],
    )
    def test_bad_files_are_named_with_their_line(self, read: Read, tmp_path: Path, text: str, said: str) -> None:
        write(tmp_path / "annotations.xml", text)
        with pytest.raises(DataError, match=said):
            read(form="cvat")


class TestLabelStudio:
    def save(self, folder: Path, *annotations: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-a.png") -> None:
        picture(folder / "images" / "a.png")
        data = {"image": image, "imported_split": "test", "imported_group": "Spring"}
        write(folder / "project-1.json", json.dumps([{"id": 1, "data": data, "annotations": list(annotations)}]))

    def annotation(self, *regions: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {"result": list(regions), "was_cancelled": False, "updated_at": "2026-01-01", **fields}

    def brush(self, label: str, mask: np.ndarray) -> dict[str, Any]:
        return {**region_json(RegionMask(label, mask > 0, 1.0), "r"), "origin": "manual"}

    @pytest.mark.parametrize(
        "image",
        ["/data/upload/1/0a1b2c3d-a.png", "gs://bucket/photos/a.png", "/data/local-files/?d=images%2Fa.png",
         "https://x.org/a.png?sig=1", "a.png"],
    )  # fmt: skip
    def test_brushes_polygons_and_rectangles(self, read: Read, tmp_path: Path, image: str) -> None:
        polygon = {
            "id": "p", "type": "polygonlabels", "from_name": "p", "to_name": "image", "original_width": WIDTH,
            "original_height": HEIGHT,
            "value": {"points": [[20, 25], [60, 25], [60, 75], [20, 75]], "polygonlabels": ["Dress"]},
        }  # fmt: skip
        choice = {"id": "c", "type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": ["good"]}}
        self.save(tmp_path, self.annotation(self.brush("coat", square(1, 0, 0, 3)), polygon, choice), image=image)
        source = read()
        expected = np.where(square(1) > 0, DRESS, square(COAT, 0, 0, 3))
        np.testing.assert_array_equal(source.drawn("images/a.png").mask, expected)
        assert source.drawn("images/a.png").overlap_pixels == 1
        assert source.origin("images/a.png") == Origin("test", "Spring")

    def test_the_newest_annotation_that_was_not_skipped_counts(self, read: Read, tmp_path: Path) -> None:
        old, new = (self.annotation(self.brush(label, square(1))) for label in ("coat", "dress"))
        new["updated_at"] = "2026-02-01"
        self.save(tmp_path, new, old, self.annotation(was_cancelled=True, updated_at="2026-03-01"))
        np.testing.assert_array_equal(read().drawn("images/a.png").mask, square(DRESS))

    def test_masks_that_a_model_drew_are_known_as_such(self, read: Read, tmp_path: Path, two_labels: Params) -> None:
        region = self.brush("coat", square(1))
        for origin, blind in (("manual", True), ("prediction-changed", False)):
            self.save(tmp_path, self.annotation({**region, "origin": origin}))
            source = read()
            assert source.origin("images/a.png").blind is blind
            result = regions_of(source.drawn("images/a.png").mask, two_labels, blind=blind)
            assert prediction_version_of({"result": result}) == ("" if blind else "import-model")  # type: ignore[typeddict-item]  # a part
            assert all(region["id"].startswith(IMPORTED) for region in result)

    def test_an_annotation_without_regions_is_background(self, read: Read, tmp_path: Path) -> None:
        self.save(tmp_path, self.annotation())
        assert read().drawn("images/a.png").mask.tolist() == square(0).tolist()

    def test_a_bad_region_is_a_problem_of_its_photo(self, read: Read, tmp_path: Path, two_labels: Params) -> None:
        region = self.brush("coat", square(1))
        region["value"]["rle"] = [1, 2, 3]
        self.save(tmp_path, self.annotation(region))
        assert "project-1.json: [0].annotations: region r" in problems(read(), two_labels)["images/a.png"]

    def test_tasks_without_photo_or_annotation_are_counted(self, read: Read, tmp_path: Path) -> None:
        self.save(tmp_path, self.annotation(self.brush("coat", square(1))))
        path = tmp_path / "project-1.json"
        tasks = json.loads(path.read_text())
        data = tasks[0]["data"]
        tasks += [
            {"data": data, "annotations": []},
            {"data": {"image": "gone.png"}, "annotations": []},
            {"data": {}},
            3,
        ]
        path.write_text(json.dumps(tasks))
        assert {what: len(names) for what, names in read().left_out().items()} == {
            "tasks without an annotation": 1,
            "entries that cannot be used": 3,
        }


class TestHuggingFace:
    def save(self, path: Path, masks: list[Any], metadata: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, mask in enumerate(masks):
            file = io.BytesIO()
            Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(file, "JPEG")
            data = mask
            if isinstance(mask, np.ndarray):
                png = io.BytesIO()
                Image.fromarray(mask).save(png, "PNG")
                data = png.getvalue()
            rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": {"bytes": data, "path": "m.png"}})
        pq.write_table(pa.Table.from_pylist(rows), path)

    def test_columns_of_other_names_with_id2label(self, read: Read, tmp_path: Path) -> None:
        self.save(tmp_path / "data" / "validation-00000-of-00001.parquet", [square(1), square(255)])
        write(tmp_path / "id2label.json", '{"0": "background", "1": "Coat"}')
        source = read()
        names = source.take(0, 9)
        assert [source.origin(name).split for name in names] == ["val", "val"]
        np.testing.assert_array_equal(source.drawn(names[0]).mask, square(COAT))
        np.testing.assert_array_equal(source.drawn(names[1]).mask, square(IGNORE))

    def test_a_value_without_a_name_stops(self, read: Read, tmp_path: Path, two_labels: Params) -> None:
        self.save(tmp_path / "train.parquet", [square(4)])
        with pytest.raises(ConfigurationError, match=r"'4' on 1 photo, such as train-000000\.jpg"):
            check_photos(read(), two_labels)
        assert not problems(read(**{"4": "coat"}), two_labels)

    def test_bad_masks_are_problems_of_their_photo(self, read: Read, tmp_path: Path, two_labels: Params) -> None:
        colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.save(tmp_path / "train.parquet", [b"no picture", None, colors, square(255)])
        said = problems(read(), two_labels)
        assert [name[-5] for name in said] == ["0", "1", "2"]
        assert all("train.parquet, row" in problem for problem in said.values())

    def test_a_file_that_is_no_parquet_is_named(self, read: Read, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", "no table")
        with pytest.raises(DataError, match=r"train\.parquet is no Parquet file"):
            read()

    def test_columns_without_pictures_are_named(self, read: Read, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": ["a"], "mask": ["b"]}), tmp_path / "train.parquet")
        with pytest.raises(DataError, match="has no column of pictures called 'image'; its columns: image, mask"):
            read()


class TestRecognition:
    def test_no_format_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"is in none of the formats png, voc, .*--format"):
            recognise(tmp_path)

    def test_several_formats_are_said(self, tmp_path: Path) -> None:
        write(tmp_path / "data.yaml", "names: [coat]")
        write(tmp_path / "a.json", '{"images": [], "annotations": [], "categories": []}')
        with pytest.raises(ConfigurationError, match="may be yolo or coco; say which with --format"):
            recognise(tmp_path)

    def test_unknown_formats_and_missing_folders_are_said(self, read: Read) -> None:
        with pytest.raises(ConfigurationError, match="there is no format 'kitti'; give one of png"):
            read(form="kitti")
        with pytest.raises(ConfigurationError, match="does not exist"):
            read("nowhere")

    @pytest.mark.parametrize("form", ["png", "voc", "yolo", "coco", "cvat", "labelstudio", "huggingface"])
    def test_an_empty_folder_in_any_format_is_said(self, read: Read, form: str) -> None:
        with pytest.raises((ConfigurationError, DataError)):
            read(form=form)


def test_photos_csv_beside_any_format_names_split_and_group(read: Read, tmp_path: Path) -> None:
    TestCvat().save(tmp_path, '<polygon label="coat" points="2,2;6,2;6,6;2,6"/>')
    write(tmp_path / "photos.csv", "file,split,group\na.png,test,Spring\n")
    assert read().origin("images/a.png") == Origin("test", "Spring")


def test_masks_of_a_photo_that_exif_turns_are_upright(read: Read, tmp_path: Path, two_labels: Params) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture(tmp_path / "images" / "a.jpg", size=(HEIGHT, WIDTH), exif=exif)
    for name, mask in (("upright", square(1)), ("stored", square(1).T)):
        write_mask(tmp_path / "masks" / "a.png", mask)
        write(tmp_path / "labels.csv", "index,label\n1,coat\n")
        said = problems(read(), two_labels)
        if name == "upright":
            assert not said
        else:
            assert "its mask has 8×10 pixels, the photo 10×8; EXIF turns the photo" in said["a.jpg"]
