"""What people say about photos: read from annotations, and shown in the texts of the tab "Review"."""

import json
from typing import Any

import httpx
import pytest

from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.remarks import (
    Remark,
    count_remarks,
    read_remarks,
    remark_of,
    serve_skipped_again,
    show_remarks,
    with_remark,
)
from pipelines.labelstudio.tasks import task_data
from pipelines.records import ImageRef

PHOTO = "ab" * 32
DOUBTFUL = Remark(1, PHOTO, doubts=("dress or skirt?",))
SKIPPED = Remark(1, PHOTO, skips=("unreadable",))


def text(field: str, *words: str) -> dict[str, Any]:
    """The words of a field, as Label Studio stores them."""
    return {
        "id": "x", "type": "textarea", "from_name": field, "to_name": "image", "origin": "manual",
        "value": {"text": list(words)},
    }  # fmt: skip


def annotation(*result: dict[str, Any], skipped: bool = False) -> dict[str, Any]:
    return {"id": 50, "result": list(result), "was_cancelled": skipped}


class Studio:
    """A Label Studio that filters tasks as its Data Manager does; notes what was exported and written."""

    def __init__(self) -> None:
        self.tasks: dict[int, dict[str, Any]] = {}
        self.exported: list[int] = []
        self.deleted: list[str] = []
        self.client = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(self))

    def add(self, number: int, *annotations: dict[str, Any], review: str = "") -> None:
        data = task_data(ImageRef(f"gs://a/{number}.jpg", 1, f"{number:064x}", 4, 6), {}) | {"review": review}
        self.tasks[number] = {"id": number, "data": data, "annotations": list(annotations)}

    def review(self, number: int) -> str:
        return str(self.tasks[number]["data"]["review"])

    def _fits(self, task: dict[str, Any], item: dict[str, Any]) -> bool:
        stored = task["annotations"]
        match item["filter"].removeprefix("filter:tasks:"):
            case "annotations_results":
                return any(item["value"] in json.dumps(raw["result"]) for raw in stored)
            case "cancelled_annotations":
                return any(raw["was_cancelled"] for raw in stored)
            case "data.review":
                return bool(task["data"]["review"])
        raise AssertionError(item)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, params = request.url.path, request.url.params
        if path.endswith("/export"):
            asked = [int(number) for number in params.get_list("ids[]")]
            self.exported += asked
            return httpx.Response(200, json=[self.tasks[number] for number in asked])
        if request.method == "PATCH":
            self.tasks[int(path.split("/")[3])].update(json.loads(request.content))
            return httpx.Response(200, json={})
        if request.method == "DELETE":
            self.deleted.append(path)
            return httpx.Response(204)
        query = json.loads(params["query"])
        items = query.get("filters", {}).get("items", ())
        only = query.get("selectedItems", {}).get("included", list(self.tasks))
        listed = [
            task
            for number, task in self.tasks.items()
            if number in only and (not items or any(self._fits(task, item) for item in items))
        ]
        return httpx.Response(200, json={"total": len(listed), "tasks": listed})


@pytest.fixture
def studio() -> Studio:
    studio = Studio()
    studio.add(1, annotation(text("doubt", "dress or skirt?")), review="3 · drawn as skirt, the model sees dress")
    studio.add(2, annotation(text("skip_reason", "unreadable"), skipped=True))
    studio.add(3, annotation(skipped=True), review="9 · skipped: none given")
    studio.add(
        4, annotation(text("other", "fine now")), review="4 · doubt: answered meanwhile · the model sees nothing"
    )
    studio.add(5, annotation(text("skip_reason", "left over from a skip that was taken back")))
    return studio


def test_doubts_come_first_and_a_skip_need_not_have_a_reason(studio: Studio) -> None:
    remarks = read_remarks(studio.client, 7)

    assert [(remark.task, str(remark)) for remark in remarks] == [
        (1, "doubt: dress or skirt?"), (2, "skipped: unreadable"), (3, "skipped: none given"),
    ]  # fmt: skip
    assert count_remarks(studio.client, 7) == (1, 2)


def test_only_what_is_new_is_told_and_what_is_gone_is_taken_away(studio: Studio) -> None:
    new = show_remarks(studio.client, 7)

    assert [remark.task for remark in new] == [1, 2]
    assert [studio.review(number) for number in (1, 2, 3, 4, 5)] == [
        "0 · doubt: dress or skirt? · drawn as skirt, the model sees dress",
        "9 · skipped: unreadable",
        "9 · skipped: none given",
        "4 · the model sees nothing",
        "",
    ]
    assert 3 not in studio.exported, "a skip that is shown is not read again"
    assert show_remarks(studio.client, 7) == []


def test_a_skipped_photo_is_served_again_without_its_skip(studio: Studio) -> None:
    assert serve_skipped_again(studio.client, 7, [1, 2]) == [2]
    assert studio.deleted == ["/api/annotations/50/"]


@pytest.mark.parametrize(
    ("before", "remark", "after"),
    [
        ("", None, ""),
        ("", DOUBTFUL, "0 · doubt: dress or skirt?"),
        ("", SKIPPED, "9 · skipped: unreadable"),
        ("07 · a mask without a label", DOUBTFUL, "0 · doubt: dress or skirt? · a mask without a label"),
        ("07 · a mask without a label", SKIPPED, "07 · skipped: unreadable · a mask without a label"),
        ("0 · doubt: coat?", SKIPPED, "0 · skipped: unreadable"),
        ("0 · doubt: coat? · a mask without a label", None, "0 · a mask without a label"),
        ("9 · skipped: unreadable", None, ""),
    ],
)
def test_a_remark_changes_no_other_part_of_a_text(before: str, remark: Remark | None, after: str) -> None:
    assert with_remark(before, remark) == after


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("two\nlines  of words", "doubt: two lines of words"),
        ("coat · or dress", "doubt: coat - or dress"),
        ("x" * 300, f"doubt: {'x' * 200}…"),
        ("   ", "skipped: "),
    ],
)
def test_words_are_one_part_of_a_text_whatever_people_write(words: str, shown: str) -> None:
    task: Any = {"id": 1, "data": {"sha256": PHOTO}, "annotations": [annotation(text("doubt", words))]}

    assert str(remark_of(task)) == shown


@pytest.mark.parametrize("value", [None, {}, {"text": None}, {"text": "one text"}, [], "text"])
def test_fields_of_any_shape_can_be_read(value: object) -> None:
    task: Any = {
        "id": 1, "data": {"sha256": PHOTO}, "annotations": [annotation({"from_name": "doubt", "value": value})],
    }  # fmt: skip

    assert remark_of(task).doubts == (("one text",) if value == {"text": "one text"} else ())


def test_several_people_are_all_heard(studio: Studio) -> None:
    studio.add(6, annotation(text("doubt", "coat?")), annotation(text("doubt", "cape?")), annotation(skipped=True))

    [remark] = [remark for remark in read_remarks(studio.client, 7) if remark.task == 6]
    assert str(remark) == "doubt: coat?; cape?; skipped: none given"


def test_a_doubt_is_no_odd_part_of_an_annotation_and_changes_no_mask() -> None:
    result: Any = [text("doubt", "dress or skirt?"), text("skip_reason", "unreadable")]

    compiled = compile_regions(result, {"coat": 1}, 4, 6, 128)
    assert not compiled.mask.any()
    assert compiled.odd == ()
