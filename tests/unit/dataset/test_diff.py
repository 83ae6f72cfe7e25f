"""What differs between two versions: by hand on small masks, and on real versions of both layouts."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.cloud.storage import Client
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from pipelines.dataset.diff import compare_masks, compare_versions
from pipelines.dataset.files import IMAGES, MASKS
from pipelines.dataset.published import Published
from pipelines.dataset.records import encode_mask
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DataError, DatasetError
from pipelines.records import Annotation
from pipelines.reports.version_diff import as_tables, write_page
from tests.unit.dataset.versions import Versions, flip

COAT, TWO = {"coat": slice(5, 20)}, {"coat": slice(5, 10), "dress": slice(10, 20)}


@pytest.fixture
def versions(
    workspace: Workspace, bucket_client: Client, archive_bucket: str, annotate: Callable[..., Annotation]
) -> Versions:
    """Versions of which the second lacks photo 0, has photos 3 and 4, and a dress in photo 1."""
    versions = Versions(workspace, bucket_client, archive_bucket, annotate)
    (workspace.path / IMAGES).mkdir(parents=True)
    versions.write({0: COAT, 1: COAT, 2: COAT})
    versions.publish()
    versions.write({1: TWO, 2: COAT, 3: COAT, 4: TWO})
    versions.publish()
    return versions


def test_labels_that_differ_with_pixels_and_iou() -> None:
    before = np.array([[1, 1, 2, 0]], np.uint8)
    after = np.array([[1, 0, 2, 3]], np.uint8)
    changes, pixels = compare_masks(before, after)
    assert pixels == 2
    assert [(c.label_id, c.kind, c.before, c.after, c.changed, c.iou) for c in changes] == [
        (1, "changed", 2, 1, 1, 0.5), (3, "added", 0, 1, 1, 0.0),
    ]  # fmt: skip


def test_masks_of_other_shapes_have_nothing_in_common() -> None:
    changes, pixels = compare_masks(np.full((2, 3), 4, np.uint8), np.full((3, 2), 4, np.uint8))
    assert (pixels, changes[0].changed, changes[0].iou) == (6, 12, 0.0)


@given(*(arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 7, 255])) for _ in range(2)))
def test_it_is_what_sets_of_pixels_say(before: np.ndarray, after: np.ndarray) -> None:
    changes, pixels = compare_masks(before, after)
    assert pixels == (before != after).sum()
    for change in changes:
        old, new = before == change.label_id, after == change.label_id
        assert (change.changed, change.iou) == ((old ^ new).sum(), (old & new).sum() / (old | new).sum())
    assert {change.label_id for change in changes} == {i for i in (1, 7, 255) if ((before == i) != (after == i)).any()}


def test_photos_that_came_went_and_changed(versions: Versions, tmp_path: Path) -> None:
    published = Published(versions.workspace)
    difference = compare_versions(published, "dataset-0001", "dataset-0002")

    names = [(photo.uri.rpartition("/")[2], photo.kind, len(photo.labels)) for photo in difference.photos]
    assert names == [("1.png", "relabelled", 2), ("3.png", "added", 1), ("4.png", "added", 2), ("0.png", "removed", 1)]
    assert (difference.counts["relabelled"], difference.unchanged) == (1, 1)
    assert difference.photos[0].pixels == 10 * 20
    back = compare_versions(published, "dataset-0002", "dataset-0001")
    assert {photo.kind: photo.uri for photo in back.photos}["added"] == difference.photos[-1].uri

    console = Console(record=True, width=200)
    console.print(as_tables(difference, top=2))
    text = console.export_text()
    assert "2 came, 1 went, 1 have other masks, 1 are the same" in text
    assert "coat changed: 200 pixels, IoU 0.33, dress added: 200 pixels" in text
    assert "and 2 more" in text
    write_page(tmp_path / "page.html", difference, "<b>&", pictures=3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3 + 2, "three of one photo, one of two others"
    assert "&lt;b&gt;&amp;" in page
    assert "Without pictures: 1" in page
    assert "http" not in page


def test_a_photo_that_cannot_be_compared_is_said_and_the_others_are(versions: Versions, tmp_path: Path) -> None:
    files = versions.workspace.tracked(versions.objects)
    sha256 = next(
        p.sha256 for p in compare_versions(Published(versions.workspace), "dataset-0001", "dataset-0002").photos
    )
    for path in (f"{MASKS}/{sha256[:2]}.parquet", f"{IMAGES}/{sha256}"):
        flip(versions.objects.path(files[path]), random.Random(1), silently=True)
        versions.delete_remote(files[path])

    difference = compare_versions(Published(versions.workspace), "dataset-0001", "dataset-0002")

    assert difference.counts["not compared"] == 1
    assert "neither" in difference.photos[0].problem
    write_page(tmp_path / "page.html", difference, "", pictures=9)
    assert "neither" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_older_layout_has_a_file_per_mask(versions: Versions) -> None:
    difference = compare_versions(Published(versions.workspace), "dataset-0001", "dataset-0002")
    folder = versions.dataset.path(MASKS)
    masks = {sha256: versions.dataset.read_mask(sha256) for sha256 in difference.after.rows}
    for path in folder.iterdir():
        path.unlink()
    for sha256, mask in masks.items():
        (folder / f"{sha256}.png").write_bytes(encode_mask(mask))
    versions.publish()
    older = compare_versions(Published(versions.workspace), "dataset-0001", "dataset-0003")
    assert older.photos == difference.photos
    assert compare_versions(Published(versions.workspace), "dataset-0002", "dataset-0003").photos == ()


def test_what_cannot_be_compared_is_refused(versions: Versions) -> None:
    published = Published(versions.workspace)
    with pytest.raises(DataError, match="compared with itself"):
        compare_versions(published, "dataset-0001", "dataset-0001")
    with pytest.raises(DatasetError, match="there is no dataset dataset-0009"):
        compare_versions(published, "dataset-0001", "dataset-0009")
