"""What people submit while others write is stored once: Label Studio's database of one machine has one writer."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.labelstudio.render import region_json
from pipelines.records import RegionMask

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
_HELD_S, _FREE_S = 5.5, 0.5  # SQLite gives up after five seconds, unless it is told to wait longer
_TASKS = 4


def test_what_is_submitted_while_others_write_is_there_once(make_archive, stack):
    archive = make_archive("once")
    places = [{"data": {"image": f"gs://once/{number}.jpg"}} for number in range(_TASKS)]
    archive.labels.post(f"/api/projects/{archive.project}/import", places)
    tasks = [task["id"] for task in archive.labels.get("/api/tasks", project=archive.project, page_size=50)["tasks"]]
    assert len(tasks) == _TASKS
    coat = np.zeros((60, 40), bool)
    coat[10:40, 10:30] = True
    result = [region_json(RegionMask("coat", coat, 0.9), "r1")]

    def submit(task: int) -> None:
        archive.labels.post(f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 3})

    ends = threading.Event()
    writer = threading.Thread(target=_write_now_and_then, args=(stack.settings.var / "label-studio", ends))
    writer.start()
    try:
        with ThreadPoolExecutor(_TASKS) as people:
            list(people.map(submit, tasks))
    finally:
        ends.set()
        writer.join()

    stored = {task: len(archive.labels.get(f"/api/tasks/{task}/annotations/")) for task in tasks}
    assert stored == dict.fromkeys(tasks, 1)


def _write_now_and_then(folder: Path, ends: threading.Event) -> None:
    """Hold the database as another writer does, again and again."""
    [path] = folder.glob("*.sqlite3")
    while not ends.is_set():
        database = sqlite3.connect(path, timeout=60, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        ends.wait(_HELD_S)
        database.execute("ROLLBACK")
        database.close()
        time.sleep(_FREE_S)
