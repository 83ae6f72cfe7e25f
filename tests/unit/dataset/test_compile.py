"""Annotations to masks and manifest: the newest per photo, the same bytes every time, one bad one stops nothing."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.dataset import compile
from pipelines.dataset.compile import CACHE, compile_dataset, newest_per_annotator
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import LEFT_OUT, MASKS, PHOTOS
from pipelines.errors import DatasetError
from pipelines.labelstudio.regions import IMPORTED
from pipelines.params import IGNORE, IgnoreLabel, Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef

Annotate = Callable[..., Annotation]
COAT, DRESS = slice(0, 10), slice(8, 30)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """An empty dataset."""
    return Dataset(tmp_path)


@pytest.fixture
def two_photos(dataset: Dataset, annotate: Annotate) -> list[Annotation]:
    """Two photos: a coat below a dress, and a photo without any garment."""
    both = [annotate("b", {"coat": COAT, "dress": DRESS}), annotate("a", {})]
    save(dataset, *both)
    return both


def save(dataset: Dataset, *annotations: Annotation) -> None:
    dataset.annotations.update(annotations, ())


def drop(dataset: Dataset, annotation: Annotation) -> None:
    dataset.annotations.update([], [(annotation.uuid, annotation.image.sha256)])


def everything(dataset: Dataset) -> dict[Path, bytes]:
    """The bytes of the masks and of the table."""
    return {path: path.read_bytes() for path in [dataset.path(PHOTOS), *dataset.path(MASKS).iterdir()]}


def mask_shards(dataset: Dataset) -> list[str]:
    return sorted(path.stem for path in dataset.path(MASKS).iterdir())


def photos_with_masks(dataset: Dataset) -> set[str]:
    return {photo for shard in mask_shards(dataset) for photo in dataset.masks.read_shard(shard)}


def at(minute: int) -> datetime:
    return datetime(2026, 1, 1, 12, minute, tzinfo=UTC)


def test_masks_hold_label_ids_and_the_region_drawn_last_wins(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(dataset, two_labels)
    mask = dataset.read_mask(two_photos[0].image.sha256)
    assert [set(np.unique(rows)) for rows in (mask[:8], mask[8:])] == [{3}, {7}]


def test_the_manifest_has_a_row_per_photo_in_order_of_address(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    table = compile_dataset(dataset, two_labels)
    pd.testing.assert_frame_equal(dataset.photos(), table)
    assert table["annotations"].tolist() == [["a"], ["b"]]
    empty, row = table.to_dict("records")
    assert (row["height"], row["width"], row["mask_height"], row["mask_width"]) == (30, 20, 30, 20)
    assert list(row["class_ids"]) == [3, 7]
    assert json.loads(row["label_pixels"]) == {"coat": 160, "dress": 440}
    assert (row["overlap_pixels"], row["regions_untouched"], row["regions_manual"]) == (40, 2, 0)
    assert row["mask_sha256"] == sha256_hex(dataset.mask_png(row["sha256"]))
    assert (row["annotators"], row["meta_collection"]) == (["ada@example.org"], "Autumn")
    assert (list(empty["class_ids"]), empty["label_pixels"]) == ([], "{}")


def test_what_nobody_can_name_is_255_in_masks_and_no_class_in_the_manifest(
    dataset: Dataset, annotate: Annotate, two_labels: Params
) -> None:
    save(dataset, annotate("a", {"unclear": COAT}), annotate("b", {"coat": COAT, "unclear": DRESS}))
    only, both = compile_dataset(dataset, two_labels).to_dict("records")
    assert set(np.unique(dataset.read_mask(only["sha256"]))) == {0, IGNORE}
    assert (list(only["class_ids"]), only["label_pixels"], only["ignored_pixels"]) == ([], "{}", 200)
    assert (list(both["class_ids"]), both["label_pixels"], both["ignored_pixels"]) == ([3], '{"coat": 160}', 440)


def test_another_name_of_the_ignore_label_is_not_answered_from_the_cache(
    dataset: Dataset, annotate: Annotate, two_labels: Params
) -> None:
    save(dataset, annotate("a", {"coat": COAT, "unclear": DRESS}))
    other_name = two_labels.model_copy(update={"ignore": IgnoreLabel(name="void")})
    assert compile_dataset(dataset, two_labels)["odd"].tolist() == [""]
    assert compile_dataset(dataset, other_name)["odd"].tolist() == ["a mask with the unknown label unclear"]


def test_the_same_annotations_give_the_same_bytes(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params, tmp_path: Path
) -> None:
    compile_dataset(dataset, two_labels)
    other = Dataset(tmp_path / "other")
    for annotation in reversed(two_photos):
        save(other, annotation)
    compile_dataset(other, two_labels)
    assert list(everything(other).values()) == list(everything(dataset).values())


def source(
    uuid: str, minute: int, photo: str = "ff", who: str = "ada", *, truth: bool = False, blind: bool = False
) -> Annotation:
    image = ImageRef("gs://archive/a.png", 1, photo, 30, 20)
    raw = {"result": [], "ground_truth": truth}
    return Annotation(uuid, 1, image, {}, who, at(minute), 1.0, False, "" if blind else "clothing:v1", raw)


def test_of_one_annotators_annotations_the_newest_counts() -> None:
    older, newer, newest = source("a", 1), source("c", 2), source("b", 3)
    for order in permutations([older, newer, newest]):
        assert newest_per_annotator(order) == [(newest,)]


def test_of_several_annotators_each_counts_and_the_newest_comes_last() -> None:
    ada, bob, ada_again = source("a", 1), source("c", 2, who="bob"), source("b", 3)
    for order in permutations([ada, bob, ada_again]):
        assert newest_per_annotator(order) == [(bob, ada_again)]


def test_where_somebody_marked_the_truth_nothing_else_counts() -> None:
    truth, later = source("a", 1, who="expert", truth=True), source("b", 3)
    for order in permutations([truth, later, source("c", 4, who="expert"), source("d", 1, photo="ee")]):
        assert newest_per_annotator(order) == [(source("d", 1, photo="ee"),), (truth,)]


def test_where_somebody_drew_without_masks_only_that_counts() -> None:
    blind, later = source("a", 1, who="bob", blind=True), source("b", 3)
    other = source("c", 2, who="cy", blind=True)
    for order in permutations([blind, later, other, source("d", 1, photo="ee")]):
        assert newest_per_annotator(order) == [(source("d", 1, photo="ee"),), (blind, other)]
    gold = source("g", 1, who="expert", truth=True)
    assert newest_per_annotator([blind, gold]) == [(gold,)], "the truth comes first"


def test_a_tie_goes_to_the_larger_uuid_whatever_the_order() -> None:
    smaller, larger = source("a", 1), source("b", 1)
    assert newest_per_annotator([smaller, larger]) == newest_per_annotator([larger, smaller]) == [(larger,)]


def test_photos_are_told_apart_by_content_not_by_address() -> None:
    assert len(newest_per_annotator([source("a", 1, "ff"), source("b", 1, "ee")])) == 2


def merging(params: Params, policy: str) -> Params:
    return params.model_copy(update={"compile": params.compile.model_copy(update={"annotators": policy})})


@pytest.fixture
def three_people(dataset: Dataset, annotate: Annotate) -> list[Annotation]:
    """Ada, Bob and at last Cy drew coats of 10, 10 and 12 rows on one photo."""
    image = annotate("p", {}).image
    drawn = [
        annotate(name, {"coat": slice(0, rows)}, image=image, annotator=name, updated_at=at(minute))
        for minute, (name, rows) in enumerate([("ada", 10), ("bob", 10), ("cy", 12)])
    ]
    save(dataset, *drawn)
    return drawn


@pytest.mark.parametrize(
    ("policy", "rows", "used"),
    [("latest", 12, ["cy"]), ("majority", 10, ["ada", "bob", "cy"]), ("staple", 10, ["ada", "bob", "cy"])],
)
def test_several_peoples_masks_are_merged_and_their_disagreement_is_recorded(
    dataset: Dataset, three_people: list[Annotation], two_labels: Params, policy: str, rows: int, used: list[str]
) -> None:
    [row] = compile_dataset(dataset, merging(two_labels, policy)).to_dict("records")

    assert (dataset.read_mask(row["sha256"]) == 3).sum() == rows * 20
    assert row["annotators"] == row["annotations"] == used
    assert row["disagreement"] == pytest.approx(2 / 12)
    assert (row["lead_time_s"], row["regions_untouched"]) == (12.5 * len(used), len(used))


def test_photos_that_came_with_their_mask_are_known(dataset: Dataset, annotate: Annotate, two_labels: Params) -> None:
    came = annotate("came with a mask", {"coat": COAT}, prediction_version="")
    [region] = came.raw["result"]
    save(dataset, replace(came, raw={"result": [{**region, "id": f"{IMPORTED}3"}]}), annotate("drawn", {"coat": COAT}))

    table = compile_dataset(dataset, two_labels)

    assert dict(zip(table["uri"].str.rpartition("/")[2], table["imported"], strict=True)) == {
        "came with a mask.png": True, "drawn.png": False,
    }  # fmt: skip


def test_a_mask_is_blind_when_no_model_drew_any_of_it(
    dataset: Dataset, annotate: Annotate, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    image = annotate("p", {}).image
    from_masks = annotate("from masks", {"coat": COAT}, image=image, annotator="ada", updated_at=at(5))
    save(dataset, from_masks, annotate("q", {"coat": COAT}, prediction_version=""))
    assert blind_by_photo(dataset, two_labels) == {"from masks": False, "q": True}

    save(
        dataset,
        annotate("blind", {"dress": COAT}, image=image, annotator="bob", updated_at=at(1), prediction_version=""),
    )
    assert blind_by_photo(dataset, merging(two_labels, "majority")) == {"blind": True, "q": True}
    assert set(np.unique(dataset.read_mask(image.sha256))) == {0, 7}, "ada's mask is no part of it"

    planted = annotate("planted", {"coat": DRESS}, image=image, prediction_version="planted", planted="missed")
    save(dataset, replace(planted, updated_at=at(9)), annotate("alone", {"coat": COAT}, planted="found"))
    with caplog.at_level(logging.INFO, "pipelines.dataset.compile"):
        assert blind_by_photo(dataset, two_labels) == {"blind": True, "q": True}
    assert caplog.text.count("1 annotations measure the people who drew them") == 2, "one in each of two shards"
    assert blind_by_photo(dataset, two_labels) == {"blind": True, "q": True}, "also from the cache"


def blind_by_photo(dataset: Dataset, params: Params) -> dict[str, bool]:
    table = compile_dataset(dataset, params)
    return {uuids[0]: bool(blind) for uuids, blind in zip(table["annotations"], table["blind"], strict=True)}


def test_one_unreadable_annotation_costs_the_others_nothing(
    dataset: Dataset, three_people: list[Annotation], two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = {**three_people[2].raw["result"][0], "original_width": 7}
    save(dataset, replace(three_people[2], raw={"result": [damaged]}))

    [row] = compile_dataset(dataset, two_labels).to_dict("records")

    assert (row["annotators"], row["disagreement"]) == (["bob"], 0)
    assert "annotation cy of cy is left out" in caplog.text


def test_masks_that_stay_are_not_written_again(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(dataset, two_labels)
    before = {path: path.stat().st_mtime_ns for path in dataset.path(MASKS).iterdir()}
    shutil.rmtree(dataset.path(CACHE))
    compile_dataset(dataset, two_labels)
    assert {path: path.stat().st_mtime_ns for path in dataset.path(MASKS).iterdir()} == before


def test_only_shards_with_other_annotations_are_compiled_and_a_full_run_gives_the_same_bytes(
    dataset: Dataset, two_photos: list[Annotation], annotate: Annotate, two_labels: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    compiled: list[str] = []
    real = compile._compile_shard

    def counted(dataset: Dataset, job: tuple[str, str], params: Params) -> compile.CompiledShard:
        compiled.append(job[0])
        return real(dataset, job, params)

    monkeypatch.setattr(compile, "_compile_shard", counted)
    shards = sorted(annotation.image.sha256[:2] for annotation in two_photos)
    compile_dataset(dataset, two_labels)
    first = everything(dataset)
    compile_dataset(dataset, two_labels)
    assert (everything(dataset), compiled) == (first, shards)

    third = annotate("c", {"coat": COAT})
    save(dataset, third)
    compile_dataset(dataset, two_labels)
    assert compiled[2:] == [third.image.sha256[:2]]

    with_three = everything(dataset)
    shutil.rmtree(dataset.path(CACHE))
    compile_dataset(dataset, two_labels)
    assert (everything(dataset), len(compiled)) == (with_three, 6)


def test_masks_that_somebody_changed_are_made_again(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(dataset, two_labels)
    before = everything(dataset)
    for shard in mask_shards(dataset):
        dataset.masks.write_shard(shard, dict.fromkeys(dataset.masks.read_shard(shard), b"forged"))
    compile_dataset(dataset, two_labels)
    assert everything(dataset) == before


def test_other_parameters_are_compiled_anew(dataset: Dataset, two_photos: list[Annotation], two_labels: Params) -> None:
    compile_dataset(dataset, two_labels)
    photo = two_photos[0].image.sha256
    before = dataset.read_mask(photo)
    labels = [{**label.model_dump(), "id": 10 - label.id} for label in two_labels.labels]

    compile_dataset(dataset, Params.model_validate({**two_labels.model_dump(), "labels": labels}))

    np.testing.assert_array_equal(dataset.read_mask(photo), np.where(before == 0, 0, 10 - before))


@pytest.mark.parametrize("left", [b"", b"no JSON", b"[]", b'{"key": 1}'])
def test_a_damaged_cache_costs_nothing_but_time(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params, left: bytes
) -> None:
    table = compile_dataset(dataset, two_labels)
    for path in dataset.path(CACHE).iterdir():
        path.write_bytes(left)

    pd.testing.assert_frame_equal(compile_dataset(dataset, two_labels), table)


def test_files_of_an_older_layout_are_removed(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    older = dataset.path(MASKS) / f"{two_photos[0].image.sha256}.png"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"a mask in a file of its own")
    compile_dataset(dataset, two_labels)
    assert {path.suffix for path in dataset.path(MASKS).iterdir()} == {".parquet"}
    assert set(np.unique(dataset.read_mask(two_photos[0].image.sha256))) == {3, 7}


def test_many_photos_are_compiled_in_parallel(dataset: Dataset, annotate: Annotate, two_labels: Params) -> None:
    save(dataset, *(annotate(f"{number:03}", {"coat": slice(number % 20, 25)}) for number in range(70)))
    save(dataset, replace(annotate("bad", {"coat": COAT}), image=replace(annotate("bad", {}).image, height=31)))

    table = compile_dataset(dataset, two_labels)

    assert table["annotations"].tolist() == [[f"{number:03}"] for number in range(70)]
    for number in (0, 19, 69):
        assert (dataset.read_mask(table["sha256"][number]) == 3).sum() == 20 * (25 - number % 20)


def test_an_annotation_that_cannot_be_read_is_left_out_and_named(
    dataset: Dataset,
    two_photos: list[Annotation],
    annotate: Annotate,
    two_labels: Params,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other_size = annotate("d", {"coat": COAT})
    save(dataset, replace(other_size, image=replace(other_size.image, height=31)))
    with caplog.at_level(logging.WARNING, "pipelines.dataset.compile"):
        table = compile_dataset(dataset, two_labels)
    assert table["annotations"].tolist() == [["a"], ["b"]]
    assert "gs://archive/photos/d.png: annotation d of ada@example.org is left out: region" in caplog.text
    assert photos_with_masks(dataset) == set(table["sha256"])


def with_items(annotation: Annotation, *items: Any, drop: int = 0) -> Annotation:
    """The annotation without its first regions, and with more items in its result."""
    return replace(annotation, raw={**annotation.raw, "result": [*annotation.raw["result"][drop:], *items]})


POINT_OF_A_DRESS = {
    "id": "k1", "type": "keypointlabels", "from_name": "point", "to_name": "image", "original_width": 20,
    "original_height": 30, "image_rotation": 0, "value": {"x": 50, "y": 90, "width": 1, "keypointlabels": ["dress"]},
}  # fmt: skip


class TestOddParts:
    def test_they_cost_nothing_else_and_are_noted_with_their_photo(
        self, dataset: Dataset, annotate: Annotate, two_labels: Params
    ) -> None:
        related = {"type": "relation", "from_id": "region-coat", "to_id": "region-dress", "direction": "right"}
        save(
            dataset,
            with_items(annotate("a", {"coat": COAT, "dress": DRESS}), {**related, "labels": []}),
            annotate("b", {"coat": COAT, "toga": DRESS}),
            with_items(annotate("c", {"coat": COAT}), POINT_OF_A_DRESS),
        )
        table = compile_dataset(dataset, two_labels)
        assert table["odd"].tolist() == [
            "", "a mask with the unknown label toga", "points of dress without their mask",
        ]  # fmt: skip
        assert dataset.photos()["odd"].tolist() == table["odd"].tolist()
        assert dataset.read_mask(table["sha256"][1])[:, 0].tolist() == [3] * 10 + [IGNORE] * 20
        assert table["ignored_pixels"].tolist()[:2] == [0, 400]
        assert table["ignored_pixels"][2] > 0
        assert table["label_pixels"].tolist()[1:] == ['{"coat": 200}'] * 2
        assert dataset.left_out() == {}

    def test_alone_they_are_not_a_photo_without_garments(
        self, dataset: Dataset, two_photos: list[Annotation], annotate: Annotate, two_labels: Params
    ) -> None:
        save(dataset, with_items(annotate("c", {}), POINT_OF_A_DRESS))
        for _ in range(2):  # the second time from the cache
            table = compile_dataset(dataset, two_labels)
            assert table["annotations"].tolist() == [["a"], ["b"]]
            [(uuid, reason)] = dataset.left_out().items()
            assert (uuid, "points of dress without their mask" in reason) == ("c", True)
            dataset.path(LEFT_OUT).unlink()

    def test_what_is_left_out_is_the_same_bytes_in_any_order_and_goes_with_its_correction(
        self, dataset: Dataset, two_photos: list[Annotation], annotate: Annotate, two_labels: Params
    ) -> None:
        save(dataset, *(with_items(annotate(name, {}), None) for name in "xyz"))
        compile_dataset(dataset, two_labels)
        before = dataset.path(LEFT_OUT).read_bytes()
        assert list(dataset.left_out()) == ["x", "y", "z"]
        shutil.rmtree(dataset.path(CACHE))
        compile_dataset(dataset, two_labels)
        assert dataset.path(LEFT_OUT).read_bytes() == before
        save(dataset, *(annotate(name, {"coat": COAT}) for name in "xyz"))
        compile_dataset(dataset, two_labels)
        assert dataset.left_out() == {}

    @pytest.mark.parametrize(("annotators", "noted"), [("latest", False), ("majority", True)])
    def test_of_what_a_newer_annotation_replaces_nothing_is_noted(
        self, dataset: Dataset, annotate: Annotate, two_labels: Params, annotators: str, noted: bool
    ) -> None:
        photo = annotate("p", {"coat": COAT})
        bad = replace(with_items(photo, None), uuid="bad", annotator="ada", updated_at=at(1))
        good = replace(photo, uuid="good", annotator="bob", updated_at=at(2))
        save(dataset, bad, good)
        compiling = two_labels.compile.model_copy(update={"annotators": annotators})
        params = two_labels.model_copy(update={"compile": compiling})

        [odd] = compile_dataset(dataset, params)["odd"]

        assert odd.startswith("an annotation is left out: ") == noted
        assert "ada" not in odd
        assert list(dataset.left_out()) == ["bad"] * noted

    def test_an_older_annotation_that_counts_instead_is_noted(
        self, dataset: Dataset, annotate: Annotate, two_labels: Params
    ) -> None:
        photo = annotate("p", {"coat": COAT})
        save(
            dataset,
            replace(photo, uuid="good", annotator="bob", updated_at=at(1)),
            replace(with_items(photo, {**photo.raw["result"][0], "original_width": 7}), uuid="bad", updated_at=at(2)),
        )
        [row] = compile_dataset(dataset, two_labels).to_dict("records")
        assert list(row["annotations"]) == ["good"]
        assert row["odd"].startswith("an annotation is left out: region region-coat was drawn on 7×30 pixels")
        assert list(dataset.left_out()) == ["bad"]

    def test_ids_may_hold_anything(
        self, dataset: Dataset, two_photos: list[Annotation], annotate: Annotate, two_labels: Params
    ) -> None:
        bad = annotate("c", {"coat": COAT})
        region = {**bad.raw["result"][0], "id": 'a\nb "ü"', "original_width": 7}
        save(dataset, with_items(bad, region, drop=1))
        compile_dataset(dataset, two_labels)
        assert 'a\nb "ü"' in dataset.left_out()["c"]

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1]", b"7"])
    def test_a_damaged_list_is_named_and_a_missing_one_is_none(self, dataset: Dataset, data: bytes) -> None:
        assert dataset.left_out() == {}
        dataset.path(LEFT_OUT).parent.mkdir(parents=True)
        dataset.path(LEFT_OUT).write_bytes(data)
        with pytest.raises(DatasetError, match=r"left_out\.json cannot be read"):
            dataset.left_out()


def test_masks_of_photos_that_are_gone_are_removed(
    dataset: Dataset, two_photos: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(dataset, two_labels)
    drop(dataset, two_photos[0])
    compile_dataset(dataset, two_labels)
    assert photos_with_masks(dataset) == {two_photos[1].image.sha256}


def test_no_usable_annotation_makes_no_dataset(dataset: Dataset, annotate: Annotate, two_labels: Params) -> None:
    other_size = annotate("d", {"coat": COAT})
    save(dataset, replace(other_size, image=replace(other_size.image, height=31)))
    with pytest.raises(DatasetError, match="no usable annotation yet: submit some"):
        compile_dataset(dataset, two_labels)
    assert not dataset.path(PHOTOS).exists()
