"""Photos that are renamed, moved to another folder or bucket, swapped or deleted: a task belongs to bytes."""

import random
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from google.cloud.storage import Client

from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import IngestReport
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.records import ObjectRef
from pipelines.settings import Settings
from tests.unit.ingest.conftest import LabelStudio, Run, counts, png, put


def move(client: Client, settings: Settings, old: str, new: str) -> None:
    [ref] = [ref for ref in gcs.list_objects(client, settings.source_bucket, old) if ref.name == old]
    data = gcs.read(client, ref)
    gcs.delete(client, ref)
    put(client, settings, new, data)


def shown(label_studio: LabelStudio) -> dict[int, str]:
    """Return the object that each task shows."""
    return {task["id"]: task["data"]["image"].partition("photos/")[2] for task in label_studio.tasks}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("new", ["photos/a.jpg", "photos/ss99/a.png", "photos/0.png", "photos/é ö#1?.png"])
def test_a_task_follows_its_photo(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings, new: str, opened: bool
) -> None:
    run()
    label_studio.tasks[0] |= {"total_annotations": int(opened)}
    label_studio.tasks[0]["data"]["remark"] = "theirs"
    move(bucket_client, archive_of_two, "photos/a.png", new)

    report = run()

    assert (counts(report), report.moved) == ((0, 0, 1, 0, 1), 1)
    assert shown(label_studio) == {1: new.removeprefix("photos/"), 2: "b.PNG"}
    ref = gcs.stat(bucket_client, archive_of_two.source_bucket, new)
    data = label_studio.tasks[0]["data"]
    assert (data["generation"], data["remark"]) == (str(ref.generation), "theirs")
    assert label_studio.predictions_deleted == [], "masks of the same bytes stay"
    assert counts(run()) == (0, 0, 2, 0, 1)


def test_a_file_renamed_as_advised_keeps_its_task(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    put(bucket_client, archive_of_two, "photos/wrong.jpg", png(40))
    [advice] = [note.message for note in run().notes if note.reason == "mislabelled"]
    assert advice == "the file is PNG; rename it to end with .png and its task follows"
    move(bucket_client, archive_of_two, "photos/wrong.jpg", "photos/wrong.png")
    report = run()
    assert (report.moved, report.problems) == (1, ())
    assert shown(label_studio)[3] == "wrong.png"


def test_the_same_archive_in_another_bucket_has_the_same_tasks(
    run: Run, bucket_client: Client, label_studio: LabelStudio, labels: LabelStudioClient, archive_of_two: Settings,
    params: Params,
) -> None:  # fmt: skip
    run()
    label_studio.tasks[0]["total_annotations"] = 1
    other = archive_of_two.model_copy(update={"source_bucket": archive_of_two.source_bucket + "-new"})
    gcs.ensure_bucket(bucket_client, other.source_bucket)
    for ref in gcs.list_objects(bucket_client, archive_of_two.source_bucket):
        put(bucket_client, other, ref.name, gcs.read(bucket_client, ref))

    report = ingest(bucket_client, labels, other, params)

    assert (counts(report), report.moved) == ((0, 0, 0, 0, 1), 2)
    assert all(task["data"]["image"].startswith(f"gs://{other.source_bucket}/") for task in label_studio.tasks)


def test_two_photos_that_swap_their_names_keep_their_tasks(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    run()
    for task in label_studio.tasks:
        task["total_annotations"] = 1
    heights = {task["id"]: task["data"]["height"] for task in label_studio.tasks}
    move(bucket_client, archive_of_two, "photos/a.png", "photos/t.png")
    move(bucket_client, archive_of_two, "photos/b.PNG", "photos/a.png")
    move(bucket_client, archive_of_two, "photos/t.png", "photos/b.PNG")

    report = run()

    assert (counts(report), report.moved) == ((0, 0, 0, 0, 1), 2)
    assert shown(label_studio) == {1: "b.PNG", 2: "a.png"}
    assert {task["id"]: task["data"]["height"] for task in label_studio.tasks} == heights


def test_bytes_that_take_another_photos_name_keep_their_own_task(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    run()
    label_studio.tasks[0]["total_annotations"] = 1
    move(bucket_client, archive_of_two, "photos/a.png", "photos/b.PNG")

    report = run()

    assert (report.moved, report.created, report.updated) == (1, 0, 0)
    assert shown(label_studio) == {1: "b.PNG"}, "the task of the overwritten photo would show the same photo"


def test_a_copy_takes_over_when_the_original_is_deleted(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    put(bucket_client, archive_of_two, "photos/z.png", png(10))
    assert [problem.reason for problem in run().problems] == ["duplicate"]
    gcs.delete(bucket_client, gcs.stat(bucket_client, archive_of_two.source_bucket, "photos/a.png"))
    report = run()
    assert (report.moved, report.problems) == (1, ())
    assert shown(label_studio) == {1: "z.png", 2: "b.PNG"}


def test_a_photo_that_is_gone_is_said_and_comes_back(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    run()
    label_studio.tasks[0]["total_annotations"] = 1
    gcs.delete(bucket_client, gcs.stat(bucket_client, archive_of_two.source_bucket, "photos/a.png"))

    for _ in range(2):
        report = run()
        assert (report.listed, report.unchanged) == (2, 1)
        [gone] = [note for note in report.notes if note.reason == "gone"]
        assert gone.uri.endswith("photos/a.png")
        assert "task 1 shows it; the object was deleted, and its bytes are nowhere else" in gone.message
        assert report.total.endswith("; 1 tasks show photos that are gone")
    assert len(label_studio.tasks) == 2

    put(bucket_client, archive_of_two, "photos/back.png", png(10))
    report = run()
    assert (report.moved, [note for note in report.notes if note.reason == "gone"]) == (1, [])
    assert shown(label_studio)[1] == "back.png"


def test_an_overwritten_photo_whose_work_stays_is_said_to_be_gone(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    run()
    label_studio.tasks[0]["total_annotations"] = 1
    put(bucket_client, archive_of_two, "photos/a.png", png(99, 70, 60))
    [gone] = [note for note in run().notes if note.reason == "gone"]
    assert "task 1 shows it; other bytes are stored there now" in gone.message


def test_a_narrower_prefix_says_which_tasks_are_outside(
    run: Run, bucket_client: Client, labels: LabelStudioClient, archive_of_two: Settings, params: Params
) -> None:
    run()
    narrow = archive_of_two.model_copy(update={"source_prefix": "photos/2020/"})
    put(bucket_client, archive_of_two, "photos/2020/c.png", png(77))
    report = ingest(bucket_client, labels, narrow, params)
    outside = [note.message for note in report.notes if note.reason == "gone"]
    assert len(outside) == 2
    assert all("it is not below gs://" in message for message in outside)


@pytest.mark.parametrize("seed", range(4))
def test_random_moves_lose_and_double_nothing(
    run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings, seed: int
) -> None:
    """Photos move at random between runs, some with people's work; at the end each has its own task."""
    chance = random.Random(seed)
    photos = {f"photos/{number}.png": png(number, 8 + number, 9) for number in range(25)}
    for name, data in photos.items():
        put(bucket_client, archive_of_two, name, data)
    run()
    task_of = {task["data"]["sha256"]: task["id"] for task in label_studio.tasks}
    for step in range(5):
        for task in label_studio.tasks:
            task["total_annotations"] = task.get("total_annotations", 0) or int(chance.random() < 0.2)
        for name in chance.sample(sorted(photos), 8):
            new = f"photos/{chance.choice(['x', 'y'])}/{step}-{PurePosixPath(name).name}"
            move(bucket_client, archive_of_two, name, new)
            photos[new] = photos.pop(name)
        report = run()
        assert (report.created, report.problems) == (0, ())
    assert {task["data"]["sha256"]: task["id"] for task in label_studio.tasks} == task_of
    listed = {ref.uri for ref in gcs.list_objects(bucket_client, archive_of_two.source_bucket, "photos/")}
    assert {task["data"]["image"] for task in label_studio.tasks} <= listed


def test_a_run_that_was_killed_between_two_moves_is_completed(
    run: Run,
    bucket_client: Client,
    label_studio: LabelStudio,
    archive_of_two: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run()
    move(bucket_client, archive_of_two, "photos/a.png", "photos/x/a.png")
    move(bucket_client, archive_of_two, "photos/b.PNG", "photos/x/b.png")
    from pipelines.ingest import publish

    real, calls = publish.update_task, iter(range(2))

    def killed(*arguments: object) -> None:
        if next(calls):
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "update_task", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    report: IngestReport = run()
    assert (report.moved, report.unchanged, report.created) == (1, 1, 0)
    assert shown(label_studio) == {1: "x/a.png", 2: "x/b.png"}


def test_a_listing_that_has_no_md5_moves_photos_as_well(
    run: Run,
    bucket_client: Client,
    label_studio: LabelStudio,
    archive_of_two: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Composite objects have none, and emulators always give one."""
    real = gcs.list_objects

    def without_md5(*arguments: object, **more: object) -> list[ObjectRef]:
        return [replace(ref, md5="") for ref in real(*arguments, **more)]

    monkeypatch.setattr("pipelines.ingest.pipeline.list_objects", without_md5)
    run()
    put(bucket_client, archive_of_two, "photos/copy.png", png(10))
    assert [problem.reason for problem in run().problems] == ["duplicate"]
    gcs.delete(bucket_client, gcs.stat(bucket_client, archive_of_two.source_bucket, "photos/a.png"))
    assert run().moved == 1
    assert shown(label_studio) == {1: "copy.png", 2: "b.PNG"}
