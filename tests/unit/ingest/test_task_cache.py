"""Cached tasks are those that the project holds, whatever happened since the last run."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from pipelines.ingest.task_cache import load_tasks
from pipelines.labelstudio.client import LabelStudioClient
from tests.unit.studio import Studio


@pytest.fixture
def studio() -> Studio:
    """Two tasks that Maskloop created, and another one."""
    studio = Studio()
    studio.put(1, 0)
    studio.put(2, 60, "a")
    studio.put(4, 60, ours=False)
    return studio


@pytest.fixture
def client(studio: Studio) -> LabelStudioClient:
    return LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(studio))


def photos(client: LabelStudioClient, cache: Path, project: int = 7) -> dict[int, str]:
    return {task.id: task.image.uri for task in load_tasks(client, project, cache)}


def all_read(studio: Studio) -> int:
    """Count the listings that asked for all tasks of the project."""
    return sum("filters" not in query for query in studio.listings)


@pytest.fixture
def cache(client: LabelStudioClient, studio: Studio, tmp_path: Path) -> Path:
    """The cache after a first run."""
    path = tmp_path / "var" / "ingest.json"
    assert photos(client, path) == {1: "gs://a/1.jpg", 2: "gs://a/2.jpg"}
    studio.listings.clear()
    return path


def test_nothing_moved_and_nothing_old_is_listed(client, studio: Studio, cache: Path) -> None:
    assert photos(client, cache) == {1: "gs://a/1.jpg", 2: "gs://a/2.jpg"}
    listed = [query for query in studio.listings if "filters" in query]
    assert len(listed) == 1
    assert all_read(studio) == 1, "the count, which shows one task"


def test_a_photo_that_was_overwritten_is_known_as_it_is_now(client, studio: Studio, cache: Path) -> None:
    studio.put(1, 90, photo="other")
    assert photos(client, cache) == {1: "gs://a/other.jpg", 2: "gs://a/2.jpg"}


def test_new_tasks_come_and_deleted_ones_go(client, studio: Studio, cache: Path) -> None:
    studio.put(5, 90)
    del studio.tasks[1]
    assert photos(client, cache) == {2: "gs://a/2.jpg", 5: "gs://a/5.jpg"}
    assert photos(client, cache) == {2: "gs://a/2.jpg", 5: "gs://a/5.jpg"}


def test_a_task_that_became_somebody_elses_is_left_out(client, studio: Studio, cache: Path) -> None:
    studio.put(2, 90, ours=False)
    assert photos(client, cache) == {1: "gs://a/1.jpg"}


def test_another_project_has_other_tasks(client, studio: Studio, cache: Path) -> None:
    studio.tasks.clear()
    studio.put(1, 0, photo="theirs")
    assert photos(client, cache, project=8) == {1: "gs://a/theirs.jpg"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"project": 1, "tasks_shown": [[1]]}'])
def test_a_cache_that_cannot_be_read_is_not_used(client, cache: Path, text: str) -> None:
    cache.write_text(text, encoding="utf-8")
    assert photos(client, cache) == {1: "gs://a/1.jpg", 2: "gs://a/2.jpg"}


def test_after_a_day_all_tasks_are_read(client, studio: Studio, cache: Path) -> None:
    fields = json.loads(cache.read_text(encoding="utf-8"))
    fields["full_look_at"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    fields["tasks_shown"][0][1][0] = "gs://a/wrong.jpg"
    cache.write_text(json.dumps(fields), encoding="utf-8")
    assert photos(client, cache) == {1: "gs://a/1.jpg", 2: "gs://a/2.jpg"}
