"""Annotations to masks and manifest: the newest per photo, the same bytes every time, one bad one stops nothing."""

import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.dataset import compile
from pipelines.dataset.compile import compile_dataset, newest_per_annotator
from pipelines.dataset.files import ANNOTATIONS, MASKS, PHOTOS, annotation_json, mask_path, read_mask
from pipelines.dataset.memory import PLACE, Source
from pipelines.errors import ContractError, DatasetError
from pipelines.labelstudio.regions import IMPORTED
from pipelines.params import IGNORE, IgnoreLabel, Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

Annotate = Callable[..., Annotation]
COAT, DRESS = slice(0, 10), slice(8, 30)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, which is the current folder as in a DVC stage."""
    monkeypatch.chdir(tmp_path)
    ANNOTATIONS.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def workspace_with_two(workspace: Path, annotate: Annotate) -> list[Annotation]:
    """Two photos: a coat below a dress, and a photo without any garment."""
    both = [annotate("b", {"coat": COAT, "dress": DRESS}), annotate("a", {})]
    save(*both)
    return both


def save(*annotations: Annotation) -> None:
    for annotation in annotations:
        (ANNOTATIONS / f"{annotation.uuid}.json").write_bytes(annotation_json(annotation))


def at(minute: int) -> datetime:
    return datetime(2026, 1, 1, 12, minute, tzinfo=UTC)


def test_masks_hold_label_ids_and_the_region_drawn_last_wins(
    workspace_with_two: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(two_labels)
    mask = read_mask(mask_path(workspace_with_two[0].image.sha256))
    assert [set(np.unique(rows)) for rows in (mask[:8], mask[8:])] == [{3}, {7}]


def test_the_manifest_has_a_row_per_photo_in_order_of_address(
    workspace_with_two: list[Annotation], two_labels: Params
) -> None:
    table = compile_dataset(two_labels)
    pd.testing.assert_frame_equal(pd.read_parquet(PHOTOS), table)
    assert table["annotations"].tolist() == [["a"], ["b"]]
    empty, row = table.to_dict("records")
    assert (row["height"], row["width"], row["mask_height"], row["mask_width"]) == (30, 20, 30, 20)
    assert list(row["class_ids"]) == [3, 7]
    assert json.loads(row["label_pixels"]) == {"coat": 160, "dress": 440}
    assert (row["overlap_pixels"], row["regions_untouched"], row["regions_manual"]) == (40, 2, 0)
    assert row["mask_sha256"] == sha256_hex(mask_path(row["sha256"]).read_bytes())
    assert (row["annotators"], row["meta_collection"]) == (["ada@example.org"], "Autumn")
    assert (list(empty["class_ids"]), empty["label_pixels"]) == ([], "{}")


def test_what_nobody_can_name_is_255_in_masks_and_no_class_in_the_manifest(
    workspace: Path, annotate: Annotate, two_labels: Params
) -> None:
    save(annotate("a", {"unclear": COAT}), annotate("b", {"coat": COAT, "unclear": DRESS}))
    only, both = compile_dataset(two_labels).to_dict("records")
    assert set(np.unique(read_mask(mask_path(only["sha256"])))) == {0, IGNORE}
    assert (list(only["class_ids"]), only["label_pixels"], only["ignored_pixels"]) == ([], "{}", 200)
    assert (list(both["class_ids"]), both["label_pixels"], both["ignored_pixels"]) == ([3], '{"coat": 160}', 440)


def test_another_name_of_the_ignore_label_is_not_answered_from_memory(
    workspace: Path, annotate: Annotate, two_labels: Params
) -> None:
    save(annotate("a", {"coat": COAT, "unclear": DRESS}))
    other_name = two_labels.model_copy(update={"ignore": IgnoreLabel(name="void")})
    compile_dataset(two_labels)
    with pytest.raises(ContractError, match=r"'unclear', unknown to params\.yaml"):
        compile_dataset(other_name)


def test_the_same_annotations_give_the_same_bytes(workspace_with_two: list[Annotation], two_labels: Params) -> None:
    def everything() -> dict[Path, bytes]:
        compile_dataset(two_labels)
        return {path: path.read_bytes() for path in [PHOTOS, *MASKS.iterdir()]}

    before = everything()
    for path in ANNOTATIONS.iterdir():
        path.unlink()
    save(*reversed(workspace_with_two))
    assert everything() == before


def source(uuid: str, minute: int, photo: str = "ff", who: str = "ada") -> Source:
    return Source(uuid, photo, "gs://archive/a.png", who, at(minute).isoformat(), f"digest of {uuid}")


def test_of_one_annotators_annotations_the_newest_counts() -> None:
    older, newer, newest = source("a", 1), source("c", 2), source("b", 3)
    for order in permutations([older, newer, newest]):
        assert newest_per_annotator(order) == [(newest,)]


def test_of_several_annotators_each_counts_and_the_newest_comes_last() -> None:
    ada, bob, ada_again = source("a", 1), source("c", 2, who="bob"), source("b", 3)
    for order in permutations([ada, bob, ada_again]):
        assert newest_per_annotator(order) == [(bob, ada_again)]


def test_where_somebody_marked_the_truth_nothing_else_counts() -> None:
    truth, later = replace(source("a", 1, who="expert"), gold=True), source("b", 3)
    for order in permutations([truth, later, source("c", 4, who="expert"), source("d", 1, photo="ee")]):
        assert newest_per_annotator(order) == [(source("d", 1, photo="ee"),), (truth,)]


def test_where_somebody_drew_without_masks_only_that_counts() -> None:
    blind, later = replace(source("a", 1, who="bob"), blind=True), source("b", 3)
    other = replace(source("c", 2, who="cy"), blind=True)
    for order in permutations([blind, later, other, source("d", 1, photo="ee")]):
        assert newest_per_annotator(order) == [(source("d", 1, photo="ee"),), (blind, other)]
    gold = replace(source("g", 1, who="expert"), gold=True)
    assert newest_per_annotator([blind, gold]) == [(gold,)], "the truth comes first"


def test_a_tie_goes_to_the_larger_uuid_whatever_the_order() -> None:
    one, two = source("a", 1), source("b", 1)
    assert newest_per_annotator([one, two]) == newest_per_annotator([two, one]) == [(two,)]


def test_photos_are_told_apart_by_content_not_by_address() -> None:
    assert len(newest_per_annotator([source("a", 1, "ff"), source("b", 1, "ee")])) == 2


def merging(params: Params, policy: str) -> Params:
    return params.model_copy(update={"compile": params.compile.model_copy(update={"annotators": policy})})


@pytest.fixture
def three_people(workspace: Path, annotate: Annotate) -> list[Annotation]:
    """Ada, Bob and at last Cy drew coats of 10, 10 and 12 rows on one photo."""
    image = annotate("p", {}).image
    drawn = [
        annotate(name, {"coat": slice(0, rows)}, image=image, annotator=name, updated_at=at(minute))
        for minute, (name, rows) in enumerate([("ada", 10), ("bob", 10), ("cy", 12)])
    ]
    save(*drawn)
    return drawn


@pytest.mark.parametrize(
    ("policy", "rows", "used"),
    [("latest", 12, ["cy"]), ("majority", 10, ["ada", "bob", "cy"]), ("staple", 10, ["ada", "bob", "cy"])],
)
def test_several_peoples_masks_are_merged_and_their_disagreement_is_recorded(
    three_people: list[Annotation], two_labels: Params, policy: str, rows: int, used: list[str]
) -> None:
    [row] = compile_dataset(merging(two_labels, policy)).to_dict("records")

    assert (read_mask(mask_path(row["sha256"])) == 3).sum() == rows * 20
    assert row["annotators"] == row["annotations"] == used
    assert row["disagreement"] == pytest.approx(2 / 12)
    assert (row["lead_time_s"], row["regions_untouched"]) == (12.5 * len(used), len(used))


def test_photos_that_came_with_their_mask_are_known(workspace: Path, annotate: Annotate, two_labels: Params) -> None:
    came = annotate("came with a mask", {"coat": COAT}, prediction_version="")
    [region] = came.raw["result"]
    save(replace(came, raw={"result": [{**region, "id": f"{IMPORTED}3"}]}), annotate("drawn", {"coat": COAT}))

    table = compile_dataset(two_labels)

    assert dict(zip(table["uri"].str.rpartition("/")[2], table["imported"], strict=True)) == {
        "came with a mask.png": True, "drawn.png": False,
    }  # fmt: skip


def test_a_mask_is_blind_when_no_model_drew_any_of_it(
    workspace: Path, annotate: Annotate, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    image = annotate("p", {}).image
    from_masks = annotate("from masks", {"coat": COAT}, image=image, annotator="ada", updated_at=at(5))
    save(from_masks, annotate("q", {"coat": COAT}, prediction_version=""))
    assert blind_by_photo(two_labels) == {"from masks": False, "q": True}

    save(annotate("blind", {"dress": COAT}, image=image, annotator="bob", updated_at=at(1), prediction_version=""))
    assert blind_by_photo(merging(two_labels, "majority")) == {"blind": True, "q": True}
    assert set(np.unique(read_mask(mask_path(image.sha256)))) == {0, 7}, "ada's mask is no part of it"

    planted = annotate("planted", {"coat": DRESS}, image=image, prediction_version="planted", planted="missed")
    save(replace(planted, updated_at=at(9)), annotate("alone", {"coat": COAT}, planted="found"))
    with caplog.at_level(logging.INFO, "pipelines.dataset.compile"):
        assert blind_by_photo(two_labels) == {"blind": True, "q": True}
    assert "2 annotations measure the people who drew them" in caplog.text
    assert blind_by_photo(two_labels) == {"blind": True, "q": True}, "also from memory"


def blind_by_photo(params: Params) -> dict[str, bool]:
    table = compile_dataset(params)
    return {uuids[0]: bool(blind) for uuids, blind in zip(table["annotations"], table["blind"], strict=True)}


def test_one_unreadable_annotation_costs_the_others_nothing(
    three_people: list[Annotation], two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = {**three_people[2].raw["result"][0], "original_width": 7}
    save(replace(three_people[2], raw={"result": [damaged]}))

    [row] = compile_dataset(two_labels).to_dict("records")

    assert (row["annotators"], row["disagreement"]) == (["bob"], 0)
    assert "annotation cy of cy is left out" in caplog.text


def test_masks_that_stay_are_not_written_again(workspace_with_two: list[Annotation], two_labels: Params) -> None:
    compile_dataset(two_labels)
    before = {path: path.stat().st_mtime_ns for path in MASKS.iterdir()}
    PLACE.unlink()
    compile_dataset(two_labels)
    assert {path: path.stat().st_mtime_ns for path in MASKS.iterdir()} == before


def test_what_was_compiled_before_is_remembered_and_gives_the_same_bytes(
    workspace_with_two: list[Annotation], annotate: Annotate, two_labels: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    real = compile._compile_photo
    monkeypatch.setattr(compile, "_compile_photo", lambda names, params: compiled.extend(names) or real(names, params))

    def bytes_of_everything() -> dict[Path, bytes]:
        compile_dataset(two_labels)
        return {path: path.read_bytes() for path in [PHOTOS, *MASKS.iterdir()]}

    first = bytes_of_everything()
    assert (bytes_of_everything(), sorted(compiled)) == (first, ["a.json", "b.json"])

    save(annotate("c", {"coat": COAT}))
    with_three = bytes_of_everything()
    assert compiled[2:] == ["c.json"]
    PLACE.unlink()
    assert (bytes_of_everything(), len(compiled)) == (with_three, 6)


def test_other_parameters_and_other_content_are_compiled_anew(
    workspace_with_two: list[Annotation], two_labels: Params
) -> None:
    compile_dataset(two_labels)
    path = mask_path(workspace_with_two[0].image.sha256)
    before = read_mask(path)
    labels = [{**label.model_dump(), "id": 10 - label.id} for label in two_labels.labels]

    compile_dataset(Params.model_validate({**two_labels.model_dump(), "labels": labels}))

    np.testing.assert_array_equal(read_mask(path), np.where(before == 0, 0, 10 - before))


def test_a_damaged_memory_costs_nothing_but_time(workspace_with_two: list[Annotation], two_labels: Params) -> None:
    table = compile_dataset(two_labels)
    PLACE.write_bytes(b"no database" * 100)

    pd.testing.assert_frame_equal(compile_dataset(two_labels), table)


def test_the_memory_forgets_what_is_gone(workspace_with_two: list[Annotation], two_labels: Params) -> None:
    compile_dataset(two_labels)
    (ANNOTATIONS / "b.json").unlink()
    compile_dataset(two_labels)

    with sqlite3.connect(PLACE) as database:
        counts = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("source", "mask")]
    assert counts == [1, 1]


def test_many_photos_are_compiled_side_by_side(workspace: Path, annotate: Annotate, two_labels: Params) -> None:
    save(*(annotate(f"{number:03}", {"coat": slice(number % 20, 25)}) for number in range(70)))
    save(replace(annotate("bad", {"coat": COAT}), image=replace(annotate("bad", {}).image, height=31)))

    table = compile_dataset(two_labels)

    assert table["annotations"].tolist() == [[f"{number:03}"] for number in range(70)]
    for number in (0, 19, 69):
        assert (read_mask(mask_path(table["sha256"][number])) == 3).sum() == 20 * (25 - number % 20)


def test_an_annotation_that_cannot_be_read_is_left_out_and_named(
    workspace_with_two: list[Annotation], annotate: Annotate, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    other_size = annotate("d", {"coat": COAT})
    save(replace(other_size, image=replace(other_size.image, height=31)))
    with caplog.at_level(logging.WARNING, "pipelines.dataset.compile"):
        table = compile_dataset(two_labels)
    assert table["annotations"].tolist() == [["a"], ["b"]]
    assert "gs://archive/photos/d.png: annotation d of ada@example.org is left out: region" in caplog.text
    assert {path.stem for path in MASKS.iterdir()} == set(table["sha256"])


def test_a_label_that_params_do_not_know_stops_the_version(
    workspace_with_two: list[Annotation], annotate: Annotate, two_labels: Params
) -> None:
    save(annotate("c", {"toga": COAT}))
    with pytest.raises(ContractError, match="region region-toga has the label 'toga'"):
        compile_dataset(two_labels)


def test_masks_of_photos_that_are_gone_are_removed(workspace_with_two: list[Annotation], two_labels: Params) -> None:
    compile_dataset(two_labels)
    (ANNOTATIONS / "b.json").unlink()
    compile_dataset(two_labels)
    assert [path.stem for path in MASKS.iterdir()] == [workspace_with_two[1].image.sha256]


def test_no_usable_annotation_makes_no_dataset(workspace: Path, annotate: Annotate, two_labels: Params) -> None:
    other_size = annotate("d", {"coat": COAT})
    save(replace(other_size, image=replace(other_size.image, height=31)))
    with pytest.raises(DatasetError, match="no usable annotation yet: submit some"):
        compile_dataset(two_labels)
    assert not PHOTOS.exists()
