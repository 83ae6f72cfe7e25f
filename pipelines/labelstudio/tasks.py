"""Label Studio's tasks to and from records. Task data alone says which photo, at which generation, has which task."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.errors import CredentialsError, DataError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.controls import IMAGE, ORIGINAL, SHOWN_SIZE
from pipelines.labelstudio.schema import TaskData, TaskJson, TaskPage
from pipelines.records import IMPORTED_GROUP, IMPORTED_SPLIT, ImageRef, Metadata, Task

_PAGE = 500
_IMPORT_BATCH = 500
# The Data Manager fills computed columns only when some are hidden. These are costly and not needed here, which leaves
# predictions_model_versions and draft_exists.
_UNNEEDED = [
    f"tasks:{name}"
    for name in (
        "annotations_results", "predictions_results", "predictions_score", "annotations_ids", "annotators",
        "updated_by", "completed_at", "avg_lead_time", "file_upload", "storage_filename",
    )
]  # fmt: skip
_IDENTITY = ("generation", "sha256", "height", "width")
_PHASH = "phash"  # tasks of earlier versions lack it
REVIEW = "review"  # why somebody should check what was drawn; absent or empty when there is no reason


def list_tasks(client: LabelStudioClient, project_id: int, *, only: Sequence[int] | None = None) -> Iterator[Task]:
    """Yield every task that Maskloop created, or those of the ids in `only`; other tasks are left out.

    Sizes in pixels are those of the upright photo.
    """
    query = {} if only is None else {"selectedItems": {"all": False, "included": list(only)}}
    for raw in list_task_json(client, project_id, page_size=_PAGE, query=query):
        if is_maskloop_task(raw):
            yield parse_task(raw)


def count_tasks(client: LabelStudioClient, project_id: int) -> int:
    """Count all tasks of the project, also those that Maskloop did not create."""
    page: TaskPage = client.get("/api/tasks", project=project_id, page=1, page_size=1, fields="task_only")
    return int(page["total"])


def locked_tasks(client: LabelStudioClient, project_id: int) -> set[int]:
    """Return the ids of the tasks that the label stream has served to somebody and keeps for them.

    Raises ServiceError with the remedy when Label Studio does not allow this filter.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    locked = {"filter": "filter:tasks:locks__expire_at", "operator": "greater", "type": "Datetime", "value": now}
    query = {"filters": {"conjunction": "and", "items": [locked]}}
    try:
        return {int(raw["id"]) for raw in list_task_json(client, project_id, page_size=_PAGE, query=query)}
    except CredentialsError:
        raise
    except ServiceError as error:
        if "DATA_MANAGER_FILTER_ALLOWLIST" not in str(error):
            raise
        raise ServiceError(
            f"Label Studio at {client.url} does not tell which tasks somebody is working on; set "
            "DATA_MANAGER_FILTER_ALLOWLIST=locks__expire_at in its environment and start it again"
        ) from error


def tasks_with_masks(client: LabelStudioClient, project_id: int, among: Sequence[int]) -> set[int]:
    """Return the ids of those of the tasks `among` of which a prediction proposes some region.

    Label Studio searches the predictions itself, so that their strokes need not travel.
    """
    some_region = {
        "filter": "filter:tasks:predictions_results", "operator": "contains", "type": "String", "value": '"from_name"',
    }  # fmt: skip
    with_masks: set[int] = set()
    for start in range(0, len(among), _PAGE):
        query = {
            "filters": {"conjunction": "and", "items": [some_region]},
            "selectedItems": {"all": False, "included": list(among[start : start + _PAGE])},
        }
        with_masks |= {int(raw["id"]) for raw in list_task_json(client, project_id, page_size=_PAGE, query=query)}
    return with_masks


def create_tasks(client: LabelStudioClient, project_id: int, photos: Sequence[tuple[ImageRef, Metadata]]) -> int:
    """Create one task per photo in bulk; returns how many Label Studio says it created."""
    created = 0
    for start in range(0, len(photos), _IMPORT_BATCH):
        body = [{"data": task_data(image, metadata)} for image, metadata in photos[start : start + _IMPORT_BATCH]]
        created += int(client.post(f"/api/projects/{project_id}/import", body)["task_count"])
    return created


def update_task(client: LabelStudioClient, project_id: int, task_id: int, image: ImageRef, metadata: Metadata) -> None:
    """Point an existing task at another generation of its photo, and update the catalogue's part of its data.

    Task data can only be written as a whole, so that it is read first, and all other keys stay. Only the reason for a
    review goes when the bytes changed: it was about what was drawn on the old ones. A task that was deleted stays
    deleted.
    """
    for current in _read_task_json(client, project_id, task_id):
        data = {**current["data"], **task_data(image, metadata)}
        if current["data"].get("sha256") != image.sha256:
            data.pop(REVIEW, None)
        for key in (ORIGINAL, *SHOWN_SIZE):
            if key not in task_data(image, {}):
                data.pop(key, None)
        client.patch(f"/api/tasks/{task_id}/", {"data": data})


def show_reviews(client: LabelStudioClient, project_id: int, reasons: Mapping[str, str]) -> int:
    """Make exactly the tasks of these photos show a reason for review; `reasons` maps a photo's sha256 to it.

    Returns how many changed. Each task is read again right before it is written, because its data is written as a
    whole; no other writer of task data (ingest) may run meanwhile.
    """
    changed = 0
    all_tasks = list(list_task_json(client, project_id, page_size=_PAGE, query={}))
    for task in filter(is_maskloop_task, all_tasks):
        if task["data"].get(REVIEW, "") != reasons.get(task["data"]["sha256"], ""):
            for current in _read_task_json(client, project_id, task["id"]):
                data = {**current["data"], REVIEW: reasons.get(current["data"]["sha256"], "")}
                client.patch(f"/api/tasks/{task['id']}/", {"data": data})
                changed += 1
    return changed


def write_origin(client: LabelStudioClient, project_id: int, task_id: int, split: str, group: str) -> None:
    """Write the split and the group that an imported photo had in its own dataset to its task's data.

    Empty texts change nothing. The task is read right before it is written, because its data is written as a whole; no
    other writer of task data (ingest) may run meanwhile.
    """
    origin = {key: text for key, text in ((IMPORTED_SPLIT, split), (IMPORTED_GROUP, group)) if text}
    for current in _read_task_json(client, project_id, task_id):
        if not origin.items() <= current["data"].items():
            client.patch(f"/api/tasks/{task_id}/", {"data": {**current["data"], **origin}})


def _read_task_json(client: LabelStudioClient, project_id: int, task_id: int) -> Iterator[TaskJson]:
    """Yield a task's JSON as it is now, with addresses as they were written; nothing when the task is gone."""
    only = {"selectedItems": {"all": False, "included": [task_id]}}
    yield from list_task_json(client, project_id, page_size=1, query=only)


def serve_again(client: LabelStudioClient, task_id: int, annotators: int = 2) -> None:
    """Let the label stream serve an annotated task to one more person; `annotators` is their number afterwards."""
    client.patch(f"/api/tasks/{task_id}/", {"overlap": annotators, "is_labeled": False})


def delete_task(client: LabelStudioClient, task_id: int) -> None:
    """Delete a task with all it holds."""
    client.delete(f"/api/tasks/{task_id}/")


def task_data(image: ImageRef, metadata: Metadata) -> dict[str, Any]:
    """Build the task's data: what the interface shows, and the photo's identity.

    The generation is text: it exceeds what JavaScript numbers can hold.
    """
    identity = {name: getattr(image, name) for name in _IDENTITY}
    shown: dict[str, Any] = {IMAGE: image.shown, ORIGINAL: image.uri} if image.shown else {IMAGE: image.uri}
    if image.shown_size != (image.height, image.width):
        shown |= dict(zip(SHOWN_SIZE, image.shown_size, strict=True))
    return {**metadata, **shown, **identity, "generation": str(image.generation), _PHASH: image.phash}


def is_maskloop_task(raw: TaskJson) -> bool:
    """Return whether task JSON carries the identity that Maskloop writes."""
    return all(name in raw.get("data", {}) for name in (IMAGE, *_IDENTITY))


def parse_image(data: TaskData) -> ImageRef:
    """Read the photo's identity from task data; raises DataError naming the missing or bad key."""
    try:
        original, image = str(data.get(ORIGINAL) or ""), str(data[IMAGE])
        return ImageRef(
            original or image, int(data["generation"]), str(data["sha256"]), int(data["height"]), int(data["width"]),
            str(data.get(_PHASH, "")), image if original else "", *(int(data.get(name) or 0) for name in SHOWN_SIZE),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"task data without a usable photo identity ({error!r}); re-create it with ingest") from error


def parse_metadata(data: TaskData) -> Metadata:
    """Read the catalogue's part of task data."""
    own = (IMAGE, ORIGINAL, _PHASH, REVIEW, *_IDENTITY, *SHOWN_SIZE)
    return {key: str(value) for key, value in data.items() if key not in own}


def parse_task(raw: TaskJson) -> Task:
    """Read one task of the Data Manager's listing."""
    versions = str(raw.get("predictions_model_versions") or "")
    skipped = int(raw.get("cancelled_annotations") or 0)
    annotations = int(raw.get("total_annotations") or 0) + skipped
    return Task(
        id=int(raw["id"]),
        image=parse_image(raw["data"]),
        metadata=parse_metadata(raw["data"]),
        prediction_versions=tuple(version for version in versions.split(",") if version),
        prediction_count=int(raw.get("total_predictions") or 0),
        annotation_count=annotations,
        skipped_count=skipped,
        is_open=not raw.get("is_labeled"),
        opened=annotations > 0 or bool(raw.get("drafts")) or bool(raw.get("draft_exists")),
    )


def list_task_json(
    client: LabelStudioClient, project_id: int, *, page_size: int, query: Mapping[str, Any]
) -> Iterator[TaskJson]:
    """Yield the Data Manager's task JSON, page by page, of all tasks or of those that `query` filters or selects."""
    text = json.dumps({"hiddenColumns": {"explore": _UNNEEDED, "labeling": _UNNEEDED}, **query})
    page, seen, total = 1, 0, 1
    while seen < total:
        answer: TaskPage = client.get(
            "/api/tasks", project=project_id, page=page, page_size=page_size, query=text,
            fields="task_only", resolve_uri="false",  # task data as it was written, not as a browser needs it
        )  # fmt: skip
        total = int(answer["total"])
        if not answer["tasks"]:
            return  # tasks were deleted while we read; asking for a page past the end would be a 404
        seen += len(answer["tasks"])
        yield from answer["tasks"]
        page += 1
