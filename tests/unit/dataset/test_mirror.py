"""The copy of what people drew holds exactly that, whatever happened since the last look and whatever a kill left."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, IMAGES, image_path
from pipelines.dataset.mirror import Copied, Note, copy_changes, read_note
from pipelines.errors import StorageError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

Annotate = Callable[..., Annotation]


@pytest.fixture
def labelled(annotated_photo: Annotate) -> Annotate:
    """Annotate a photo of a shade as a task of its own."""
    return lambda uuid, task, shade=7, **fields: annotated_photo(uuid, shade, task_id=task, **fields)


@pytest.fixture
def look(bucket_client: Client, tmp_path: Path) -> Callable[..., Copied | None]:
    """Copy what a look found: the annotations of the tasks that were read, and tasks that are gone."""

    def copy(
        note: Note, *annotations: Annotation, read: Collection[int] = (), gone: Collection[int] = ()
    ) -> Copied | None:
        tasks = frozenset(annotation.task_id for annotation in annotations) | frozenset(read)
        seen = TaskCursor(tasks | (note.cursor.tasks if note.cursor else frozenset()) - frozenset(gone), None)
        return copy_changes(bucket_client, tmp_path, note, Changes(annotations, tasks, frozenset(gone), seen))

    return copy


def files(folder: Path) -> dict[str, list[str]]:
    return {kind.name: sorted(path.name for path in (folder / kind).iterdir()) for kind in (ANNOTATIONS, IMAGES)}


def test_the_first_look_copies_annotations_and_photos(look, labelled: Annotate, tmp_path: Path) -> None:
    one, other = labelled("a", 1, 10), labelled("b", 2, 20)

    copied = look(Note("p"), one, other, labelled("s", 3, 30, cancelled=True))

    assert (copied.everything, copied.changed, set(copied.files)) == (True, True, {"a.json", "b.json"})
    assert copied.note.known == {"a": (1, one.image.sha256), "b": (2, other.image.sha256)}
    assert files(tmp_path) == {
        "annotations": ["a.json", "b.json"], "images": sorted([one.image.sha256, other.image.sha256])
    }  # fmt: skip
    for path in (tmp_path / IMAGES).iterdir():
        assert sha256_hex(path.read_bytes()) == path.name


def test_later_looks_touch_what_changed_and_nothing_else(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10), labelled("b", 2, 20), labelled("c", 3, 30)).note
    before = (tmp_path / ANNOTATIONS / "a.json").stat()

    second = look(first, labelled("b", 2, 20, lead_time_s=99.0), labelled("d", 4, 40), read={3})

    assert (second.everything, second.changed) == (False, True)
    assert (set(second.files), second.gone) == ({"b.json", "d.json"}, {"c.json"})
    assert files(tmp_path)["annotations"] == ["a.json", "b.json", "d.json"]
    assert json.loads((tmp_path / ANNOTATIONS / "b.json").read_bytes())["lead_time_s"] == 99.0
    assert (tmp_path / ANNOTATIONS / "a.json").stat() == before
    assert len(files(tmp_path)["images"]) == 3, "the photo that only c was drawn on is gone"


def test_reading_the_same_again_changes_nothing(look, labelled: Annotate) -> None:
    first = look(Note("p"), labelled("a", 1, 10)).note

    again = look(first, labelled("a", 1, 10))

    assert (again.changed, again.note.known) == (False, first.known)


def test_annotations_of_deleted_tasks_go(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10), labelled("b", 2, 20)).note

    assert look(first, gone={1}).gone == {"a.json"}
    assert files(tmp_path)["annotations"] == ["b.json"]


def test_an_old_task_id_on_another_photo_takes_nothing_over(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10), labelled("b", 2, 20)).note

    second = look(first, labelled("z", 1, 50))

    assert files(tmp_path)["annotations"] == ["b.json", "z.json"]
    assert second.note.known["z"][0] == 1


def test_a_skipped_annotation_leaves(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10), labelled("b", 2, 20)).note

    look(first, labelled("a", 1, 10, cancelled=True))

    assert files(tmp_path)["annotations"] == ["b.json"]


def test_a_project_that_lost_everything_deletes_nothing(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10)).note

    assert look(first, read={1}) is None
    assert look(Note("p")) is None
    assert files(tmp_path)["annotations"] == ["a.json"]


def test_a_full_look_clears_away_what_a_kill_left(look, labelled: Annotate, tmp_path: Path) -> None:
    look(Note("p"), labelled("a", 1, 10))
    for folder, name in ((ANNOTATIONS, ".a.json.part"), (ANNOTATIONS, "old.json"), (IMAGES, "0" * 64)):
        (tmp_path / folder / name).write_bytes(b"left")

    copied = look(Note("p"), labelled("a", 1, 10))

    assert copied.changed
    assert {kind: len(names) for kind, names in files(tmp_path).items()} == {"annotations": 1, "images": 1}


def test_two_annotations_of_one_photo_share_its_bytes(look, labelled: Annotate, tmp_path: Path) -> None:
    first = look(Note("p"), labelled("a", 1, 10), labelled("b", 2, 10)).note
    assert len(files(tmp_path)["images"]) == 1

    look(first, gone={1})
    assert len(files(tmp_path)["images"]) == 1


def test_an_annotation_whose_photo_is_gone_or_overwritten_is_left_out(
    look, labelled: Annotate, bucket_client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone, good = labelled("gone", 1, 10), labelled("good", 2, 20)
    bucket, name = gcs.split_uri(gone.image.uri)
    gcs.delete(bucket_client, gcs.ObjectRef(bucket, name, gone.image.generation))

    assert set(look(Note("p"), gone, good).files) == {"good.json"}
    assert "annotation gone is left out: " in caplog.text


def test_other_bytes_than_were_ingested_are_refused(look, labelled: Annotate, tmp_path: Path) -> None:
    one = labelled("a", 1, 10)
    with pytest.raises(StorageError, match=r"a\.png: the bytes are not those that were ingested"):
        look(Note("p"), replace(one, image=replace(one.image, sha256="0" * 64)))
    assert not (tmp_path / image_path("0" * 64)).exists()


def test_the_note_is_believed_while_it_fits(look, labelled: Annotate, tmp_path: Path) -> None:
    note = look(Note("p"), labelled("a", 1, 10)).note
    path = tmp_path / "sync.json"
    note.write(path)
    assert read_note(path, "p", tmp_path) == note

    assert read_note(path, "another project", tmp_path).cursor is None
    old = replace(note, full_scan_at=datetime.now(UTC) - timedelta(hours=25))
    old.write(path)
    assert read_note(path, "p", tmp_path).cursor is None, "once a day everything is compared"
    note.write(path)
    (tmp_path / ANNOTATIONS / "b.json").write_bytes(b"from an older version that was checked out")
    assert read_note(path, "p", tmp_path).cursor is None
    path.write_text("{half")
    assert read_note(path, "p", tmp_path) == Note("p")
