"""Tasks: the photo's identity survives the way into Label Studio and back, and other people's tasks are left alone."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.tasks import (
    create_tasks,
    list_tasks,
    locked_tasks,
    parse_image,
    parse_metadata,
    parse_task,
    serve_again,
    show_reviews,
    task_data,
    tasks_with_masks,
    update_task,
    write_origin,
)
from pipelines.records import ImageRef

PHOTO = ImageRef("gs://archive/photos/a.jpg", 1712345678901234567, "ab" * 32, 1280, 853)
METADATA = {"name": "Look 1", "year": "1999"}


def task_json(task_id: int = 1, **fields: Any) -> dict[str, Any]:
    return {"id": task_id, "data": task_data(PHOTO, METADATA), **fields}


def test_the_generation_is_text_because_javascript_would_round_it() -> None:
    assert task_data(PHOTO, {})["generation"] == "1712345678901234567"


words = st.text(min_size=1, max_size=20)
photos = st.builds(
    ImageRef,
    uri=words.map("gs://archive/{}".format),
    generation=st.integers(0, 2**63 - 1),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    height=st.integers(1, 20_000),
    width=st.integers(1, 20_000),
)
catalogue_rows = st.dictionaries(st.sampled_from(["name", "year", "season", "typology.sub"]), words)


@given(photo=photos, metadata=catalogue_rows)
def test_identity_and_metadata_survive_json(photo: ImageRef, metadata: dict[str, str]) -> None:
    data = json.loads(json.dumps(task_data(photo, metadata)))

    assert (parse_image(data), parse_metadata(data)) == (photo, metadata)


def test_metadata_never_overwrites_the_identity() -> None:
    assert parse_image(task_data(PHOTO, {"image": "x", "sha256": "y", "generation": "0"})) == PHOTO


@pytest.mark.parametrize("bad", [{"generation": "new"}, {"height": None}, {"width": "wide"}])
def test_a_damaged_identity_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="re-create it with ingest"):
        parse_image({**task_data(PHOTO, {}), **bad})


@pytest.mark.parametrize(
    ("fields", "opened"),
    [
        ({}, False),
        ({"total_annotations": 1}, True),
        ({"cancelled_annotations": 1}, True),
        ({"draft_exists": True}, True),
        ({"drafts": [{"id": 5}]}, True),
    ],
)
def test_a_task_somebody_worked_on_counts_as_opened(fields: dict[str, Any], opened: bool) -> None:
    assert parse_task(task_json(**fields)).opened is opened


def test_a_task_lists_the_models_that_predicted_it() -> None:
    assert parse_task(task_json(predictions_model_versions="clothing:v1,clothing:v2")).prediction_versions == (
        "clothing:v1",
        "clothing:v2",
    )
    assert parse_task(task_json(predictions_model_versions="")).prediction_versions == ()


def test_tasks_of_other_makers_are_left_alone(label_studio) -> None:
    by_hand = {"id": 2, "data": {"image": "/data/upload/1/holiday.jpg"}}
    text_only = {"id": 3, "data": {"text": "hello"}}
    client, _ = label_studio({"GET /api/tasks": [{"total": 3, "tasks": [by_hand, task_json(1), text_only]}]})

    assert [task.id for task in list_tasks(client, 7)] == [1]


def test_all_pages_are_read(label_studio) -> None:
    pages = [{"total": 3, "tasks": [task_json(1), task_json(2)]}, {"total": 3, "tasks": [task_json(3)]}]
    client, server = label_studio({"GET /api/tasks": pages})

    assert [task.id for task in list_tasks(client, 7)] == [1, 2, 3]
    assert [query["page"] for _, query, _ in server.asked] == ["1", "2"]


def test_tasks_deleted_meanwhile_end_the_reading(label_studio) -> None:
    pages = [{"total": 3, "tasks": [task_json(1)]}, {"total": 3, "tasks": []}]
    client, _ = label_studio({"GET /api/tasks": pages})

    assert [task.id for task in list_tasks(client, 7)] == [1]


def test_only_the_ids_that_were_asked_for_are_selected(label_studio) -> None:
    client, server = label_studio({"GET /api/tasks": [{"total": 0, "tasks": []}]})

    assert list(list_tasks(client, 7, only=[4, 5])) == []
    assert json.loads(server.asked[0][1]["query"])["selectedItems"] == {"all": False, "included": [4, 5]}


def test_tasks_are_created_in_bulk_and_counted(label_studio) -> None:
    client, server = label_studio({"POST /api/projects/7/import": [{"task_count": 500}, {"task_count": 1}]})

    assert create_tasks(client, 7, [(PHOTO, METADATA)] * 501) == 501
    assert [len(body) for _, _, body in server.asked] == [500, 1]


def test_an_update_leaves_what_others_wrote_in_a_task(label_studio) -> None:
    existing = {**task_data(PHOTO, METADATA), "review": "0.871 · drawn as coat, the model sees dress", "batch": [7]}
    same_bytes = replace(PHOTO, generation=9)
    client, server = label_studio({
        "GET /api/tasks": [{"total": 1, "tasks": [{"id": 4, "data": existing}]}], "PATCH /api/tasks/4/": [{}]
    })  # fmt: skip

    update_task(client, 7, 4, same_bytes, {"year": "2001"})

    [(_, query, _), (_, _, sent)] = server.asked
    assert json.loads(query["query"])["selectedItems"] == {"all": False, "included": [4]}
    assert query["resolve_uri"] == "false", "an address for browsers would be written over the photo's own"
    assert sent == {"data": {**existing, "generation": "9", "year": "2001"}}


def test_other_bytes_are_not_reviewed_any_more(label_studio) -> None:
    existing = {**task_data(PHOTO, METADATA), "review": "0.871 · drawn as coat, the model sees dress", "batch": [7]}
    other = ImageRef(PHOTO.uri, 9, "cd" * 32, 40, 30, "0f" * 8)
    client, server = label_studio({
        "GET /api/tasks": [{"total": 1, "tasks": [{"id": 4, "data": existing}]}], "PATCH /api/tasks/4/": [{}]
    })  # fmt: skip

    update_task(client, 7, 4, other, METADATA)

    assert server.asked[-1][2] == {"data": {**task_data(other, METADATA), "batch": [7]}}


def test_a_task_that_is_gone_is_not_updated(label_studio) -> None:
    client, server = label_studio({"GET /api/tasks": [{"total": 0, "tasks": []}]})

    update_task(client, 7, 4, PHOTO, METADATA)

    assert [where for where, _, _ in server.asked] == ["GET /api/tasks"]


def test_what_people_hold_is_asked_for_by_the_time_it_is_held_until(label_studio) -> None:
    client, server = label_studio({"GET /api/tasks": [{"total": 2, "tasks": [task_json(4), task_json(4)]}]})

    assert locked_tasks(client, 7) == {4}
    [asked] = json.loads(server.asked[0][1]["query"])["filters"]["items"]
    assert (asked["filter"], asked["operator"]) == ("filter:tasks:locks__expire_at", "greater")


def test_a_label_studio_that_hides_locks_is_named_with_the_remedy() -> None:
    refusal = httpx.MockTransport(lambda _: httpx.Response(400, text="add it to DATA_MANAGER_FILTER_ALLOWLIST"))

    with pytest.raises(ServiceError, match="DATA_MANAGER_FILTER_ALLOWLIST=locks__expire_at"):
        locked_tasks(LabelStudioClient("http://label-studio.test", "token", transport=refusal), 7)


def test_reviews_are_shown_on_the_photos_named_and_taken_away_from_others(label_studio) -> None:
    fine, doubted, corrected = (task_json(number) for number in (1, 2, 3))
    doubted["data"] = task_data(ImageRef("gs://archive/photos/b.jpg", 1, "cd" * 32, 8, 8), METADATA)
    corrected["data"] = {**corrected["data"], "review": "0.010 · drawn as coat, the model sees dress"}
    later = {**doubted["data"], "generation": "2"}  # ingest was here meanwhile
    client, server = label_studio({
        "GET /api/tasks": [
            {"total": 3, "tasks": [fine, doubted, corrected]}, {"total": 1, "tasks": [{**doubted, "data": later}]},
            {"total": 1, "tasks": [corrected]},
        ],
        "PATCH /api/tasks/2/": [{}], "PATCH /api/tasks/3/": [{}],
    })  # fmt: skip

    changed = show_reviews(client, 7, {"cd" * 32: "0.005 · the model sees nothing where coat is drawn"})

    sent = {where: body["data"] for where, _, body in server.asked if where.startswith("PATCH")}
    assert changed == 2
    assert sent["PATCH /api/tasks/2/"] == {
        **later, "review": "0.005 · the model sees nothing where coat is drawn"
    }  # fmt: skip
    assert sent["PATCH /api/tasks/3/"]["review"] == ""
    assert parse_metadata(corrected["data"]) == METADATA, "a review is no catalogue data"


def test_label_studio_itself_looks_for_predictions_that_propose_something(label_studio) -> None:
    client, server = label_studio({"GET /api/tasks": [{"total": 1, "tasks": [task_json(3)]}]})

    assert tasks_with_masks(client, 7, [3, 4]) == {3}

    [(_, query, _)] = server.asked
    asked = json.loads(query["query"])
    assert asked["selectedItems"] == {"all": False, "included": [3, 4]}
    assert [item["filter"] for item in asked["filters"]["items"]] == ["filter:tasks:predictions_results"]
    assert tasks_with_masks(client, 7, []) == set()
    assert len(server.asked) == 1


def test_a_task_that_is_handed_out_once_more_is_open_and_who_skipped_it_drew_nothing() -> None:
    task = parse_task(task_json(total_annotations=1, cancelled_annotations=2, is_labeled=False))
    assert (task.annotation_count, task.skipped_count, task.is_open, task.opened) == (3, 2, True, True)
    assert not parse_task(task_json(is_labeled=True)).is_open


def test_a_task_is_handed_to_as_many_people_as_are_to_draw_it(label_studio) -> None:
    client, server = label_studio({"PATCH /api/tasks/3/": [{}]})

    serve_again(client, 3)
    serve_again(client, 3, 4)

    assert [body for _, _, body in server.asked] == [{"overlap": n, "is_labeled": False} for n in (2, 4)]


def test_the_origin_of_an_imported_photo_joins_its_task_data_and_stays() -> None:
    tasks = [task_json(7)]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            patched.append(request.url.path)
            tasks[0]["data"] = json.loads(request.content)["data"]
        return httpx.Response(200, json={"tasks": tasks, "total": 1})

    patched: list[str] = []
    client = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(answer))
    write_origin(client, 1, 7, "test", "Spring")
    write_origin(client, 1, 7, "test", "")
    assert patched == ["/api/tasks/7/"]
    assert parse_image(tasks[0]["data"]) == PHOTO
    assert parse_metadata(tasks[0]["data"]) == {**METADATA, "imported_split": "test", "imported_group": "Spring"}
    update_task(client, 1, 7, replace(PHOTO, generation=5), METADATA)
    assert parse_metadata(tasks[0]["data"])["imported_split"] == "test"
