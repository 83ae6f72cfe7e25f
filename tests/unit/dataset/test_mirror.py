"""The copy of what people drew holds exactly that, whatever happened since the last sync and whatever a kill left."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES
from pipelines.dataset.mirror import SyncState, load_state, reconcile, state_to_continue
from pipelines.errors import StorageError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

Annotate = Callable[..., Annotation]
Copy = Callable[..., SyncState | None]


@pytest.fixture
def labelled(annotated_photo: Annotate) -> Annotate:
    """Annotate a photo of a shade as a task of its own."""
    return lambda uuid, task, shade=7, **fields: annotated_photo(uuid, shade, task_id=task, **fields)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture
def copy(bucket_client: Client, dataset: Dataset) -> Copy:
    """Copy the annotations of the tasks that were read, and drop those of tasks that are gone."""

    def run(
        state: SyncState, *annotations: Annotation, read: Collection[int] = (), gone: Collection[int] = ()
    ) -> SyncState | None:
        tasks = frozenset(annotation.task_id for annotation in annotations) | frozenset(read)
        cursor = TaskCursor(tasks | (state.cursor.tasks if state.cursor else frozenset()) - frozenset(gone), None)
        return reconcile(bucket_client, dataset, state, Changes(annotations, tasks, frozenset(gone), cursor))

    return run


def uuids(dataset: Dataset) -> list[str]:
    return sorted(dataset.annotations.photos())


def images(dataset: Dataset) -> list[str]:
    return sorted(path.name for path in dataset.path(IMAGES).iterdir())


def test_the_first_sync_copies_annotations_and_photos(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first, second = labelled("a", 1, 10), labelled("b", 2, 20)

    state = copy(SyncState("p"), first, second, labelled("s", 3, 30, cancelled=True))

    assert (state.scanned, state.unpublished) == (True, {"a", "b"})
    assert state.known == {"a": (1, first.image.sha256), "b": (2, second.image.sha256)}
    assert (uuids(dataset), images(dataset)) == (["a", "b"], sorted([first.image.sha256, second.image.sha256]))
    for path in dataset.path(IMAGES).iterdir():
        assert sha256_hex(path.read_bytes()) == path.name


def test_later_syncs_touch_what_changed_and_nothing_else(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 20), labelled("c", 3, 30)).published("r1")
    shard = dataset.annotations.path(first.known["a"][1][:2])
    before = shard.stat().st_mtime_ns, shard.stat().st_ino

    second = copy(first, labelled("b", 2, 20, lead_time_s=99.0), labelled("d", 4, 40), read={3})

    assert (second.scanned, second.unpublished, second.built_at) == (False, {"b", "c", "d"}, "r1")
    assert uuids(dataset) == ["a", "b", "d"]
    assert {drawn.uuid: drawn.lead_time_s for drawn in dataset.annotations.read()}["b"] == 99.0
    assert (shard.stat().st_mtime_ns, shard.stat().st_ino) == before
    assert len(images(dataset)) == 3, "the photo that only c was drawn on is gone"


def test_what_is_not_published_stays_so(copy: Copy, labelled: Annotate) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10)).published("r1")
    second = copy(first, labelled("b", 2, 20))
    third = copy(second, labelled("c", 3, 30), gone={1})
    assert third.unpublished == {"a", "b", "c"}
    assert third.published("r2").unpublished == frozenset()


def test_reading_the_same_again_changes_nothing(copy: Copy, labelled: Annotate) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10)).published("r1")

    again = copy(first, labelled("a", 1, 10))

    assert (again.unpublished, again.known) == (frozenset(), first.known)


def test_annotations_of_deleted_tasks_go(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 20)).published("r1")

    assert copy(first, gone={1}).unpublished == {"a"}
    assert uuids(dataset) == ["b"]


def test_an_old_task_id_on_another_photo_takes_nothing_over(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 20))

    second = copy(first, labelled("z", 1, 50))

    assert uuids(dataset) == ["b", "z"]
    assert second.known["z"][0] == 1


def test_an_annotation_whose_photo_was_replaced_moves_along(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 20))
    other = labelled("other", 9, 90)

    second = copy(first, replace(labelled("a", 1, 10), image=other.image))

    assert second.known["a"] == (1, other.image.sha256)
    assert dataset.annotations.photos() == {"a": other.image.sha256, "b": first.known["b"][1]}


def test_a_skipped_annotation_leaves(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 20))

    copy(first, labelled("a", 1, 10, cancelled=True))

    assert uuids(dataset) == ["b"]


def test_a_project_that_lost_everything_deletes_nothing(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10))

    assert copy(first, read={1}) is None
    assert copy(SyncState("p")) is None
    assert uuids(dataset) == ["a"]


def test_a_full_scan_clears_away_what_a_kill_left(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    copy(SyncState("p"), labelled("a", 1, 10))
    for folder, name in ((ANNOTATIONS, ".aa.parquet.1.part"), (ANNOTATIONS, "old.json"), (IMAGES, "0" * 64)):
        (dataset.path(folder) / name).write_bytes(b"left")

    state = copy(SyncState("p"), labelled("a", 1, 10))

    assert state.unpublished == {"a"}
    assert (len(list(dataset.path(ANNOTATIONS).iterdir())), len(images(dataset))) == (1, 1)


def test_two_annotations_of_one_photo_share_its_bytes(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    first = copy(SyncState("p"), labelled("a", 1, 10), labelled("b", 2, 10))
    assert len(images(dataset)) == 1

    copy(first, gone={1})
    assert len(images(dataset)) == 1


def test_an_annotation_whose_photo_is_gone_or_overwritten_is_left_out(
    copy: Copy, labelled: Annotate, bucket_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    gone, good = labelled("gone", 1, 10), labelled("good", 2, 20)
    bucket, name = gcs.split_uri(gone.image.uri)
    gcs.delete(bucket_client, gcs.ObjectRef(bucket, name, gone.image.generation))

    assert set(copy(SyncState("p"), gone, good).known) == {"good"}
    assert "annotation gone is left out: " in caplog.text


def test_other_bytes_than_were_ingested_are_refused(copy: Copy, labelled: Annotate, dataset: Dataset) -> None:
    drawn = labelled("a", 1, 10)
    with pytest.raises(StorageError, match=r"a\.png: the bytes are not those that were ingested"):
        copy(SyncState("p"), replace(drawn, image=replace(drawn.image, sha256="0" * 64)))
    assert not dataset.image_path("0" * 64).exists()


def test_the_state_is_used_while_it_fits(copy: Copy, labelled: Annotate, dataset: Dataset, tmp_path: Path) -> None:
    state = copy(SyncState("p"), labelled("a", 1, 10))
    path = tmp_path / "sync.json"
    state.write(path)
    assert state_to_continue(path, "p", dataset) == state

    assert state_to_continue(path, "another project", dataset).cursor is None
    replace(state, full_scan_at=datetime.now(UTC) - timedelta(hours=25)).write(path)
    assert state_to_continue(path, "p", dataset).cursor is None, "once a day everything is compared"
    assert load_state(path, dataset).cursor == state.cursor, "but what was read is published, however late it gets"
    state.write(path)
    dataset.annotations.update([labelled("b", 2, 20)], ())  # as from an older version that was checked out
    assert state_to_continue(path, "p", dataset).cursor is None
    path.write_text("{half")
    assert state_to_continue(path, "p", dataset) == SyncState("p")
