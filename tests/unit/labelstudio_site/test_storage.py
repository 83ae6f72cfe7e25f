"""Which objects a storage of Label Studio shows."""

from types import SimpleNamespace

import pytest

from pipelines.labelstudio_site.maskloop_storage import SANDBOX, SandboxedObjects, is_below_prefix


@pytest.mark.parametrize("prefix", ["copies/", "copies", "/copies/"])
def test_objects_below_the_prefix_are_shown(prefix: str) -> None:
    assert is_below_prefix("gs://labels/copies/ab.jpg", "labels", prefix)
    assert is_below_prefix('<img src="gs://labels/copies/ab.jpg">', "labels", prefix)


@pytest.mark.parametrize(
    "url",
    [
        "gs://labels/annotations/1.json", "gs://labels/copies", "gs://labels/copies-of-keys/a", "gs://labels/copies/../x",
        "gs://other/copies/ab.jpg", "gs://labels/copies/a gs://labels/reports/ingest.csv", "", "gs://labels//copies/a",
    ],
)  # fmt: skip
def test_others_are_not(url: str) -> None:
    assert not is_below_prefix(url, "labels", "copies/")


def test_without_a_prefix_the_whole_bucket_is_shown() -> None:
    assert is_below_prefix("gs://archive/photos/a.jpg", "archive", "")
    assert is_below_prefix("gs://archive/photos/a.jpg", "archive", None)


@pytest.mark.parametrize(
    ("path", "is_object"),
    [
        ("/projects/1/resolve/", True), ("/tasks/12/presign/", True), ("/storage-data/uploaded/", True),
        ("/x/data/local-files/", True), ("/projects/1/data", False), ("/api/tasks/1/", False),
    ],
)  # fmt: skip
def test_objects_of_buckets_are_put_into_a_sandbox(path: str, is_object: bool) -> None:
    answer = SandboxedObjects(lambda _: {"Content-Security-Policy": "theirs"})(SimpleNamespace(path=path))
    assert answer["Content-Security-Policy"] == (SANDBOX if is_object else "theirs")
    assert ("X-Content-Type-Options" in answer) == is_object
