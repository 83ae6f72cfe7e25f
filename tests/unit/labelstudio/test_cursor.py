"""What changed since the last poll: nothing is lost, nothing is read twice without need, deletions are seen."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import OVERLAP, Changes, TaskCursor, read_changes
from tests.unit.studio import START, Studio


@pytest.fixture
def studio() -> Studio:
    """Four tasks: annotated, skipped, open, and one that Maskloop did not create."""
    studio = Studio()
    studio.put(1, 1, "a")
    studio.put(2, 2, "skipped")
    studio.put(3, 3)
    studio.put(4, 4, "x", ours=False)
    return studio


@pytest.fixture
def client(studio: Studio) -> LabelStudioClient:
    return LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(studio))


def read(client: LabelStudioClient, last: TaskCursor | None) -> Changes:
    return read_changes(client, 7, last, "unclear")


def uuids(changes: Any) -> list[tuple[str, bool]]:
    return [(annotation.uuid, annotation.cancelled) for annotation in changes.annotations]


def test_the_first_poll_reads_everything_that_maskloop_created(client: LabelStudioClient, studio: Studio) -> None:
    changes = read(client, None)

    assert uuids(changes) == [("a", False), ("skipped", True)]
    assert (changes.read, changes.gone) == ({1, 2, 3, 4}, frozenset())
    assert (changes.cursor.tasks, changes.cursor.newest) == ({1, 2, 3, 4}, START + timedelta(minutes=4))
    assert studio.exported == [[1, 2]]


def test_the_next_poll_reads_only_what_changed_and_overlaps_a_little(client: LabelStudioClient, studio: Studio) -> None:
    late = int(OVERLAP.total_seconds() / 60)
    studio.put(5, late + 4, "b")
    first = read(client, None).cursor
    studio.exported.clear()
    studio.put(3, late + 20, "c")

    changes = read(client, first)

    assert changes.read == {3, 5}, "4 and 5 lie within the overlap; 5 changed so late that it may not be settled"
    assert uuids(changes) == [("c", False), ("b", False)]
    assert studio.exported == [[3, 5]]
    assert changes.cursor.tasks == {1, 2, 3, 4, 5}


def test_a_change_that_shows_late_is_seen_in_the_overlap(client: LabelStudioClient, studio: Studio) -> None:
    studio.put(5, 8, "b")
    first = read(client, None).cursor
    studio.put(3, 3, "late")  # dated before the last poll, as by a transaction that took long
    studio.put(1, 2, "a")

    changes = read(client, first)

    assert changes.read == {1, 3, 5}
    assert ("late", False) in uuids(changes)


def test_a_poll_without_changes_asks_little(client: LabelStudioClient, studio: Studio) -> None:
    first = read(client, None).cursor
    studio.put(9, 60)
    second = read(client, first).cursor
    studio.exported.clear()
    studio.listings.clear()

    changes = read(client, second)

    assert (uuids(changes), changes.read, changes.cursor) == ([], {9}, second)
    assert (studio.exported, len(studio.listings)) == ([], 2)


def test_an_annotation_that_was_deleted_is_missing_from_what_was_read(
    client: LabelStudioClient, studio: Studio
) -> None:
    first = read(client, None).cursor
    studio.put(1, 90)

    changes = read(client, first)

    assert 1 in changes.read
    assert ("a", False) not in uuids(changes)


def test_deleted_tasks_are_found_even_when_as_many_were_added(client: LabelStudioClient, studio: Studio) -> None:
    first = read(client, None).cursor
    del studio.tasks[1], studio.tasks[3]
    studio.put(11, 90, "n")
    studio.put(12, 91)

    changes = read(client, first)

    assert changes.gone == {1, 3}
    assert changes.cursor.tasks == {2, 4, 11, 12}
    assert ("n", False) in uuids(changes)


def test_a_task_that_appears_with_an_old_date_is_read(client: LabelStudioClient, studio: Studio) -> None:
    studio.put(5, 500, "b")
    first = read(client, None).cursor
    studio.put(6, 10, "restored")  # as after a clock was put back, or a database restored

    changes = read(client, first)

    assert ("restored", False) in uuids(changes)
    assert changes.cursor.tasks == {1, 2, 3, 4, 5, 6}
    assert 6 not in read(client, changes.cursor).read


def test_a_task_made_anew_under_an_old_id_is_read_again(client: LabelStudioClient, studio: Studio) -> None:
    first = read(client, None).cursor
    studio.put(1, 95, "other", photo="another")

    changes = read(client, first)

    assert 1 in changes.read
    assert [(a.uuid, a.image.uri) for a in changes.annotations if a.task_id == 1] == [("other", "gs://a/another.jpg")]


def test_an_empty_project_can_be_polled_again_and_again(client: LabelStudioClient, studio: Studio) -> None:
    studio.tasks.clear()
    first = read(client, None)
    studio.put(1, 1, "a")

    assert (first.annotations, first.cursor) == ((), TaskCursor(frozenset(), None))
    assert uuids(read(client, first.cursor)) == [("a", False)]
