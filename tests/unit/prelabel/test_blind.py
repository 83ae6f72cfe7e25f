"""Who sees masks: by the split, at random for comparison, and what is reported of it."""

import pandas as pd
import pytest

from pipelines.dataset.split import split_of_group, split_photos
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.prelabel.blind import blindness_of
from pipelines.prelabel.strategies import chance
from pipelines.records import ImageRef, Task


def task(number: int) -> Task:
    return Task(number, ImageRef(f"gs://archive/{number}.jpg", 1, sha256_hex(str(number).encode()), 4, 6))


@pytest.fixture
def tasks() -> list[Task]:
    return [task(number) for number in range(300)]


def version(tasks: list[Task], split: str, params: Params, **columns: object) -> pd.DataFrame:
    """A version in which these photos are in a split, under the parameters as they are."""
    rows = [
        {"sha256": photo.image.sha256, "phash": "", "class_ids": [1], "group": photo.image.sha256, "split": split}
        for photo in tasks
    ]
    table = pd.DataFrame(rows)
    table["division"] = split_photos(table, None, params.split)["division"]
    return table.assign(**columns)


def test_the_splits_that_judge_are_blind_and_nothing_else(tasks: list[Task], params: Params) -> None:
    blindness = blindness_of(tasks, None, params)

    blind = {photo.id for photo in tasks if blindness.is_blind(photo)}

    assert blind == {photo.id for photo in tasks if split_of_group(photo.image.sha256, params.split) in ("test", "val")}
    assert 60 < len(blind) < 120, "three in ten"
    assert (str(blindness), blindness.is_test_full) == ("0 of 0 labelled photos", False)


def test_with_a_full_test_split_a_random_share_is_drawn_without_masks(tasks: list[Task], params: Params) -> None:
    before = version(tasks[:5], "test", params, blind=[True, True, True, False, False], test_full=True)

    blindness = blindness_of(tasks, before, params)

    assert all(blindness.judges(photo) for photo in tasks[:5])
    assert not any(blindness.judges(photo) for photo in tasks[5:]), "new families go to training"
    blind = {photo.id for photo in tasks[5:] if blindness.is_blind(photo)}
    assert blind == {photo.id for photo in tasks[5:] if chance("control", photo) < params.prelabel.control_share}
    assert blindness.drawn_from_masks == {photo.image.sha256 for photo in tasks[3:5]}
    assert str(blindness) == (
        "3 of 5 labelled photos; the test split is large enough, 10% of new photos are for comparison"
    )


def test_versions_that_did_not_record_it_name_the_model(tasks: list[Task], params: Params) -> None:
    before = version(tasks[:2], "test", params, prediction_version=["", "clothing:v1"])
    assert blindness_of(tasks, before, params).drawn_from_masks == {tasks[1].image.sha256}
    on_train = version(tasks[:2], "train", params, prediction_version="clothing:v1")
    assert blindness_of(tasks, on_train, params).drawn_from_masks == frozenset()
