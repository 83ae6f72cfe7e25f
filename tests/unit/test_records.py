"""Records are frozen, and name their things the way other systems do."""

from dataclasses import FrozenInstanceError

import pytest

from pipelines.records import ImageRef, ModelVersion, ObjectRef, PhotoAddress, Task


def test_an_object_has_an_address() -> None:
    assert ObjectRef("archive", "photos/a b.png", 7).uri == "gs://archive/photos/a b.png"


def test_a_model_is_served_under_its_version() -> None:
    assert ModelVersion("clothing", 3, "run", "dataset-0001", 0.5).served_as == "clothing:v3"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (PhotoAddress("gs://a/b?c=1.jpg", 7), "gs://a/b?c=1.jpg#7"),
        (PhotoAddress("https://h/p.jpg", 0, "e"), "https://h/p.jpg#e"),
        (PhotoAddress("https://h/p?id=1&X-Goog-Signature=ab&Expires=9", 0, "e"), "https://h/p?id=1#e"),
        (PhotoAddress("https://h/p.jpg?X-Amz-Date=1&X-Amz-Signature=2", 0, "e"), "https://h/p.jpg#e"),
    ],
)
def test_a_photo_is_known_by_its_address_without_signatures(address: PhotoAddress, key: str) -> None:
    assert address.key == key


def test_the_same_photo_is_the_same_record() -> None:
    assert len({ImageRef("gs://a/b", 1, "ff", 30, 20), ImageRef("gs://a/b", 1, "ff", 30, 20)}) == 1


def test_records_are_frozen() -> None:
    task = Task(1, ImageRef("gs://a/b", 1, "ff", 30, 20))
    with pytest.raises(FrozenInstanceError):
        task.opened = True  # type: ignore[misc]  # frozen: that is what is tested
