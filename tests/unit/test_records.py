"""Records are frozen, and name their things the way other systems do."""

from dataclasses import FrozenInstanceError

import pytest

from pipelines.records import ImageRef, ModelVersion, ObjectRef, Task


def test_an_object_has_an_address() -> None:
    assert ObjectRef("archive", "photos/a b.png", 7).uri == "gs://archive/photos/a b.png"


def test_a_model_is_served_under_its_version() -> None:
    assert ModelVersion("clothing", 3, "run", "dataset-0001", 0.5).served_as == "clothing:v3"


def test_the_same_photo_is_the_same_record() -> None:
    assert len({ImageRef("gs://a/b", 1, "ff", 30, 20), ImageRef("gs://a/b", 1, "ff", 30, 20)}) == 1


def test_records_are_frozen() -> None:
    task = Task(1, ImageRef("gs://a/b", 1, "ff", 30, 20))
    with pytest.raises(FrozenInstanceError):
        task.opened = True  # type: ignore[misc]  # frozen: that is what is tested
