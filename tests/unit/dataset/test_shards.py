"""Annotations and masks in Parquet shards: few files, the same bytes for the same rows, whatever was there before."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import datasets
import numpy as np
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, MASKS
from pipelines.dataset.records import annotation_json, encode_mask
from pipelines.dataset.shards import AnnotationShards, MaskShards
from pipelines.errors import DatasetError
from pipelines.records import Annotation

COAT = {"coat": slice(5, 20)}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture
def annotations(annotate: Callable[..., Annotation]) -> list[Annotation]:
    """Of forty photos one annotation each, and a second one of the first photo."""
    first = [annotate(f"{number:03}", COAT) for number in range(40)]
    return [*first, annotate("second", COAT, image=first[0].image)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_annotations_are_read_back_and_those_of_one_photo_are_in_one_shard(
    dataset: Dataset, annotations: list[Annotation]
) -> None:
    assert dataset.annotations.update(annotations, ())

    by_uuid = attrgetter("uuid")
    assert sorted(dataset.annotations.read(), key=by_uuid) == sorted(annotations, key=by_uuid)
    assert dataset.annotations.photos() == {drawn.uuid: drawn.image.sha256 for drawn in annotations}
    of_first = dataset.annotations.read_shard(annotations[0].image.sha256[:2])
    assert {"000", "second"} <= {drawn.uuid for drawn in of_first}
    photos = {annotations[3].image.sha256}
    assert list(dataset.annotations.of_photos(photos)) == [annotations[3]]


def test_the_bytes_follow_from_the_rows_alone(dataset: Dataset, annotations: list[Annotation], tmp_path: Path) -> None:
    dataset.annotations.update(annotations, ())
    step_by_step = AnnotationShards(tmp_path / "other")
    for annotation in reversed(annotations):
        step_by_step.update([replace(annotation, lead_time_s=99.0)], ())
        step_by_step.update([annotation], ())
    assert contents(step_by_step.folder) == contents(dataset.path(ANNOTATIONS))
    assert not dataset.annotations.replace(annotations), "nothing is written again"


def test_a_change_touches_its_own_shard(dataset: Dataset, annotations: list[Annotation]) -> None:
    dataset.annotations.update(annotations, ())
    before = contents(dataset.path(ANNOTATIONS))

    assert dataset.annotations.update([replace(annotations[5], lead_time_s=99.0)], ())

    after = contents(dataset.path(ANNOTATIONS))
    assert {name for name in after if after[name] != before.get(name)} == {f"{annotations[5].image.sha256[:2]}.parquet"}
    assert not dataset.annotations.update([replace(annotations[5], lead_time_s=99.0)], ())


def test_annotations_go_and_the_last_one_takes_its_shard_along(dataset: Dataset, annotations: list[Annotation]) -> None:
    dataset.annotations.update(annotations, ())
    assert dataset.annotations.update([], [(drawn.uuid, drawn.image.sha256) for drawn in annotations[:-1]])
    assert [drawn.uuid for drawn in dataset.annotations.read()] == ["second"]
    assert dataset.annotations.shards() == [annotations[0].image.sha256[:2]]


def test_an_annotation_that_moves_to_another_photo_leaves_the_first(
    dataset: Dataset, annotations: list[Annotation]
) -> None:
    dataset.annotations.update(annotations, ())
    moved = replace(annotations[1], image=annotations[2].image)
    dataset.annotations.update([moved], [(moved.uuid, annotations[1].image.sha256)])
    assert [drawn for drawn in dataset.annotations.read() if drawn.uuid == moved.uuid] == [moved]


def test_replacing_all_clears_away_what_does_not_belong(dataset: Dataset, annotations: list[Annotation]) -> None:
    dataset.annotations.update(annotations, ())
    for name in (".00.parquet.1.part", "old.json", "zz.parquet"):
        (dataset.path(ANNOTATIONS) / name).write_bytes(b"left")
    assert dataset.annotations.replace(annotations[:1])
    assert [path.name for path in dataset.path(ANNOTATIONS).iterdir()] == [f"{annotations[0].image.sha256[:2]}.parquet"]


def test_an_older_layout_is_read(dataset: Dataset, annotations: list[Annotation]) -> None:
    """As published versions hold it: a file per annotation, and one per mask."""
    for folder in (ANNOTATIONS, MASKS):
        dataset.path(folder).mkdir(parents=True)
    for annotation in annotations:
        (dataset.path(ANNOTATIONS) / f"{annotation.uuid}.json").write_bytes(annotation_json(annotation))
    mask = np.eye(9, dtype=np.uint8)
    (dataset.path(MASKS) / f"{'a' * 64}.png").write_bytes(encode_mask(mask))

    assert sorted(drawn.uuid for drawn in dataset.annotations.read()) == sorted(drawn.uuid for drawn in annotations)
    assert np.array_equal(dataset.read_mask("a" * 64), mask)


def test_masks_are_read_back_and_a_missing_one_is_named(dataset: Dataset) -> None:
    first, second = np.full((5, 4), 3, np.uint8), np.full((6, 4), 7, np.uint8)
    assert dataset.masks.write_shard("ab", {"ab1": encode_mask(first), "ab2": encode_mask(second)})

    assert np.array_equal(dataset.read_mask("ab2"), second)
    assert np.array_equal(dataset.read_mask("ab1"), first)
    dataset.masks.write_shard("ab", {"ab1": encode_mask(second)})
    assert np.array_equal(dataset.read_mask("ab1"), second), "what is read again is what is there now"
    for lacking in ("ab2", "cd1"):
        with pytest.raises(DatasetError, match=f"the mask of {lacking} in .* is missing"):
            dataset.read_mask(lacking)


def test_a_damaged_shard_is_named(dataset: Dataset) -> None:
    dataset.path(MASKS).mkdir(parents=True)
    (dataset.path(MASKS) / "ab.parquet").write_bytes(b"no table")
    with pytest.raises(DatasetError, match=r"ab\.parquet is missing or damaged .*; run `dvc checkout`"):
        dataset.read_mask("ab1")


def test_hugging_face_reads_the_shards_as_they_are(
    dataset: Dataset, annotations: list[Annotation], tmp_path: Path
) -> None:
    mask = np.arange(20, dtype=np.uint8).reshape(5, 4)
    MaskShards(dataset.path(MASKS)).write_shard("ab", {"ab1": encode_mask(mask)})
    dataset.annotations.update(annotations, ())

    def load(folder: Path) -> datasets.Dataset:
        files = [str(path) for path in sorted(dataset.path(folder).iterdir())]
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hub"))

    [row] = load(MASKS)
    assert np.array_equal(np.asarray(row["mask"]), mask)
    assert row["mask_sha256"] == hashlib.sha256(encode_mask(mask)).hexdigest()
    assert sorted(load(ANNOTATIONS)["uuid"]) == sorted(drawn.uuid for drawn in annotations)
