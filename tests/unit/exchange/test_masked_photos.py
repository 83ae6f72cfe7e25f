"""Labelled photos with masks of other tools: their folders and table are checked first, and masks are read by value."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.errors import ConfigurationError
from pipelines.exchange.as_dataset import write_dataset
from pipelines.exchange.masked_photos import MaskedPhotos, masked_photos
from pipelines.ingest.catalog import read_catalog
from pipelines.params import IgnoreLabel, Params

MASK = np.array([[0, 1], [2, 200]], np.uint8)
TABLE = "index,label,remark\n0,,x\n1,coat,\n2,dress,\n200,,\n"


@pytest.fixture
def real_photos(tmp_path: Path) -> Path:
    """Two photos with masks, one of them in capitals, a photo without a mask, and a text."""
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("b.jpg", "a.JPEG", "lonely.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").touch()
    for name in ("a.png", "b.png"):
        Image.fromarray(MASK).save(tmp_path / "masks" / name)
    (tmp_path / "labels.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path


def check(folder: Path, params: Params) -> MaskedPhotos:
    return masked_photos(folder / "photos", folder / "masks", folder / "labels.csv", params)


class TestMaskedPhotos:
    def test_photos_with_masks_come_in_name_order(self, real_photos: Path, two_labels: Params) -> None:
        archive = check(real_photos, two_labels)
        assert archive.take(0, 9) == ["a.JPEG", "b.jpg"]
        assert archive.take(1, 1) == ["b.jpg"]
        assert archive.photo("b.jpg") == (real_photos / "photos" / "b.jpg").read_bytes()

    def test_truth_has_the_ids_of_params_yaml(self, real_photos: Path, two_labels: Params) -> None:
        assert check(real_photos, two_labels).truth("a.JPEG").tolist() == [[0, 3], [7, 0]]

    def test_palette_masks_are_read_by_value(self, real_photos: Path, two_labels: Params) -> None:
        picture = Image.fromarray(MASK).convert("P")
        picture.putpalette([9, 9, 9] * 256)
        picture.save(real_photos / "masks" / "a.png")
        assert check(real_photos, two_labels).truth("a.JPEG").tolist() == [[0, 3], [7, 0]]

    @pytest.mark.parametrize("mask", [np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 300, np.uint16)])
    def test_colours_and_large_values_are_no_index_mask(
        self, real_photos: Path, two_labels: Params, mask: np.ndarray
    ) -> None:
        Image.fromarray(mask).save(real_photos / "masks" / "a.png")
        with pytest.raises(ConfigurationError, match=r"a\.png is no index mask with values from 0 to 255; save it as"):
            check(real_photos, two_labels).truth("a.JPEG")

    def test_the_catalogue_names_the_photos(self, real_photos: Path, two_labels: Params) -> None:
        data = check(real_photos, two_labels).catalog()
        catalog, _ = read_catalog(data, "catalogue.csv", two_labels.ingest.severity)
        assert [catalog.find(name) for name in ("photos/a.JPEG", "b.jpg", "c.jpg")] == [{}, {}, None]


class TestMeanings:
    def table(self, folder: Path, *lines: str) -> None:
        (folder / "labels.csv").write_text("\n".join(["index,label", *lines, ""]), encoding="utf-8")

    @pytest.mark.parametrize("name", ["unclear", "ignore", "Void", " void "])
    def test_ignored_values_become_255(self, real_photos: Path, two_labels: Params, name: str) -> None:
        self.table(real_photos, "1,coat", "2,dress", f"200,{name}")
        truth = check(real_photos, two_labels).truth("a.JPEG")
        assert (truth.tolist(), truth.dtype) == ([[0, 3], [7, 255]], np.uint8)

    def test_the_ignore_label_is_known_by_its_own_name(self, real_photos: Path, two_labels: Params) -> None:
        self.table(real_photos, "1,coat", "2,dress", "200,blurred heap")
        own = two_labels.model_copy(update={"ignore": IgnoreLabel(name="blurred heap")})
        with pytest.raises(ConfigurationError, match="does not have: blurred heap"):
            check(real_photos, two_labels)
        assert check(real_photos, own).truth("a.JPEG").tolist() == [[0, 3], [7, 255]]

    def test_a_label_of_such_a_name_is_a_label(self, real_photos: Path, two_labels: Params) -> None:
        void = two_labels.labels[0].model_copy(update={"name": "void"})
        params = two_labels.model_copy(update={"labels": (void, two_labels.labels[1])})
        self.table(real_photos, "1,void", "2,dress", "200,ignore")
        assert check(real_photos, params).truth("a.JPEG").tolist() == [[0, 3], [7, 255]]

    @pytest.mark.parametrize("name", ["", "background", "Background"])
    def test_background_may_be_named_also_for_255(self, real_photos: Path, two_labels: Params, name: str) -> None:
        Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8)).save(real_photos / "masks" / "a.png")
        self.table(real_photos, f"0,{name}", "1,coat", "2,dress", f"255,{name}", "200,")
        assert check(real_photos, two_labels).truth("a.JPEG").tolist() == [[0, 3], [7, 0]]

    def test_0_is_background_without_a_line(self, real_photos: Path, two_labels: Params) -> None:
        self.table(real_photos, "1,coat", "2,dress", "200,dress")
        assert check(real_photos, two_labels).truth("b.jpg").tolist() == [[0, 3], [7, 7]]

    def test_values_without_a_line_are_named_with_mask_and_the_line_to_add(
        self, real_photos: Path, two_labels: Params
    ) -> None:
        Image.fromarray(np.array([[0, 255], [2, 200]], np.uint8)).save(real_photos / "masks" / "b.png")
        self.table(real_photos, "0,", "1,coat", "2,dress")
        source = check(real_photos, two_labels)
        with pytest.raises(
            ConfigurationError, match=r"LABELS: 200 in a\.png\. Add one for each: `200,coat` .*`200,ignore`"
        ):
            source.truth("a.JPEG")
        with pytest.raises(ConfigurationError, match=r"LABELS: 200 in a\.png and 1 more; 255 in b\.png\. Add one"):
            source.require_labels()

    def test_a_mask_that_cannot_be_read_hides_no_other(self, real_photos: Path, two_labels: Params) -> None:
        (real_photos / "masks" / "a.png").write_bytes(b"no picture")
        source = check(real_photos, two_labels)
        source.require_labels()
        self.table(real_photos, "1,coat")
        with pytest.raises(ConfigurationError, match=r"2 in b\.png; 200 in b\.png"):
            check(real_photos, two_labels).require_labels()


class TestPairs:
    def test_suffixes_may_be_in_capitals(self, real_photos: Path, two_labels: Params) -> None:
        (real_photos / "masks" / "a.png").rename(real_photos / "masks" / "a.PNG")
        source = check(real_photos, two_labels)
        assert source.take(0, 9) == ["a.JPEG", "b.jpg"]
        assert source.truth("a.JPEG").tolist() == [[0, 3], [7, 0]]

    def test_photos_and_masks_without_counterpart_are_known(self, real_photos: Path, two_labels: Params) -> None:
        Image.fromarray(MASK).save(real_photos / "masks" / "scan.png")
        (real_photos / "masks" / "notes.txt").touch()
        source = check(real_photos, two_labels)
        assert (source.without_mask(), source.without_photo()) == (["lonely.png"], ["scan.png"])


class TestMistakes:
    @pytest.mark.parametrize("what", ["photos", "masks", "labels"])
    def test_a_missing_path_is_named(self, real_photos: Path, two_labels: Params, what: str) -> None:
        paths = {name: real_photos / name for name in ("photos", "masks")} | {"labels": real_photos / "labels.csv"}
        paths[what] = real_photos / "nowhere"
        with pytest.raises(ConfigurationError, match=f"{what.upper()}=.*/nowhere does not exist"):
            masked_photos(**paths, params=two_labels)

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ("value,name\n1,coat\n", "needs the columns index and label; it has value, name"),
            ("index,label\n1,toga\n2,coat\n3,cape\n", "labels that params.yaml does not have: cape, toga"),
            ("index,label\nred,coat\n", "an index that is no mask value from 0 to 255: red"),
            ("index,label\n256,coat\n-1,dress\n", "an index that is no mask value from 0 to 255: 256, -1"),
            ("", "is no CSV table with a header row"),
            ("index,label\n3,coat\n1,dress\n3,dress\n", "has several lines for the index 3; keep one each"),
        ],
    )
    def test_a_table_that_cannot_be_used_is_named(
        self, real_photos: Path, two_labels: Params, table: str, said: str
    ) -> None:
        (real_photos / "labels.csv").write_text(table, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=rf"labels\.csv .*{said}"):
            check(real_photos, two_labels)

    def test_a_table_that_is_no_text_is_named(self, real_photos: Path, two_labels: Params) -> None:
        (real_photos / "labels.csv").write_bytes(b"\x89PNG\xff")
        with pytest.raises(ConfigurationError, match=r"labels\.csv is no CSV table"):
            check(real_photos, two_labels)

    def test_photos_without_any_mask_are_named(self, real_photos: Path, two_labels: Params) -> None:
        for path in (real_photos / "masks").iterdir():
            path.rename(path.with_suffix(".tif"))
        with pytest.raises(ConfigurationError, match=r"no photo of .*/photos has a mask in .*/masks; masks are PNG"):
            check(real_photos, two_labels)


class TestPhotosOfSeveralForms:
    def test_unicode_forms_do_not_matter(self, real_photos: Path, two_labels: Params) -> None:
        nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
        (real_photos / "photos" / "b.jpg").rename(real_photos / "photos" / f"{nfd}.jpg")
        (real_photos / "masks" / "b.png").rename(real_photos / "masks" / f"{nfc}.png")
        source = check(real_photos, two_labels)
        assert source.take(0, 9) == ["a.JPEG", f"{nfd}.jpg"]
        assert source.truth(f"{nfd}.jpg").tolist() == [[0, 3], [7, 0]]

    def test_several_photos_or_masks_of_one_name_are_no_pair(self, real_photos: Path, two_labels: Params) -> None:
        Image.new("RGB", (2, 2)).save(real_photos / "photos" / "a.png")
        Image.fromarray(MASK).save(real_photos / "masks" / "b.PNG", "PNG")
        (real_photos / "masks" / "c.tif").touch()
        Image.new("RGB", (2, 2)).save(real_photos / "photos" / "d.jpg")
        Image.fromarray(MASK).save(real_photos / "masks" / "d.png")
        source = check(real_photos, two_labels)
        assert source.take(0, 9) == ["d.jpg"]
        assert source.left_out() == {
            "photos without a mask": ["lonely.png"],
            "photos or masks of one name": ["a.JPEG", "a.png", "a.png", "b.jpg", "b.PNG", "b.png"],
            "files that are no photos": ["notes.txt"],
            "files that are no PNG masks": ["c.tif"],
        }

    def test_labels_may_be_renamed_in_the_table_of_values(self, real_photos: Path, two_labels: Params) -> None:
        (real_photos / "labels.csv").write_text("index,label\n1,Mantel\n2,DRESS\n200,Fleck\n", encoding="utf-8")
        paths = (real_photos / "photos", real_photos / "masks", real_photos / "labels.csv")
        source = masked_photos(*paths, two_labels, {"Mantel": "coat", "fleck": "ignore"})
        assert source.truth("b.jpg").tolist() == [[0, 3], [7, 255]]

    def test_photos_csv_decides_the_split_of_a_training_without_a_stack_too(
        self, real_photos: Path, two_labels: Params, tmp_path: Path
    ) -> None:
        for number, name in enumerate(["a.JPEG", "b.jpg"]):
            Image.new("RGB", (2, 2), (99 * number, 0, 0)).save(real_photos / "photos" / name, "JPEG")
        for split in ("test", "train"):
            (real_photos / "photos.csv").write_text(f"file,split,group\na.JPEG,{split},G\nb.jpg,{split},G\n")
            manifest = write_dataset(Dataset(tmp_path / split), check(real_photos, two_labels), two_labels)
            assert set(zip(manifest["split"], manifest["group"], strict=True)) == {(split, "G")}

    def test_a_mask_that_is_no_picture_leaves_out_its_photo_alone(
        self, real_photos: Path, two_labels: Params, tmp_path: Path
    ) -> None:
        (real_photos / "masks" / "a.png").write_bytes(b"no picture")
        manifest = write_dataset(Dataset(tmp_path / "out"), check(real_photos, two_labels), two_labels)
        assert manifest["uri"].tolist() == ["b.jpg"]
