"""Tasks of Label Studio to and from records: the task data is the ledger of which photo, at which generation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.errors import CredentialsError, DataError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.controls import IMAGE
from pipelines.records import ImageRef, Metadata, Task

_PAGE = 500
_IMPORT_BATCH = 500
# The Data Manager fills computed columns only when some are hidden; these are costly and not needed here, which leaves
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
REVIEW = "review"  # why somebody should look at what was drawn; absent or empty: nothing is said of it


def list_tasks(client: LabelStudioClient, project_id: int, *, only: Sequence[int] | None = None) -> Iterator[Task]:
    """Give every task that Maskloop made, or those of the ids in `only`; tasks of other makers are left alone.

    Sizes in pixels are those of the upright photo.
    """
    query = {} if only is None else {"selectedItems": {"all": False, "included": list(only)}}
    for raw in pages(client, project_id, page_size=_PAGE, query=query):
        if is_ours(raw):
            yield parse_task(raw)


def count_tasks(client: LabelStudioClient, project_id: int) -> int:
    """Count all tasks of the project, those of other makers included."""
    return int(client.get("/api/tasks", project=project_id, page=1, page_size=1, fields="task_only")["total"])


def locked_tasks(client: LabelStudioClient, project_id: int) -> set[int]:
    """Give the ids of the tasks that the labeling stream handed to somebody and keeps for them.

    Raises ServiceError with the remedy when Label Studio does not allow to ask for it.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    held = {"filter": "filter:tasks:locks__expire_at", "operator": "greater", "type": "Datetime", "value": now}
    query = {"filters": {"conjunction": "and", "items": [held]}}
    try:
        return {int(raw["id"]) for raw in pages(client, project_id, page_size=_PAGE, query=query)}
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

    Label Studio looks into the predictions itself, so that their strokes need not travel.
    """
    some_region = {
        "filter": "filter:tasks:predictions_results", "operator": "contains", "type": "String", "value": '"from_name"',
    }  # fmt: skip
    found: set[int] = set()
    for start in range(0, len(among), _PAGE):
        query = {
            "filters": {"conjunction": "and", "items": [some_region]},
            "selectedItems": {"all": False, "included": list(among[start : start + _PAGE])},
        }
        found |= {int(raw["id"]) for raw in pages(client, project_id, page_size=_PAGE, query=query)}
    return found


def create_tasks(client: LabelStudioClient, project_id: int, photos: Sequence[tuple[ImageRef, Metadata]]) -> int:
    """Create one task per photo in bulk; gives how many Label Studio says it created."""
    created = 0
    for start in range(0, len(photos), _IMPORT_BATCH):
        body = [{"data": task_data(image, metadata)} for image, metadata in photos[start : start + _IMPORT_BATCH]]
        created += int(client.post(f"/api/projects/{project_id}/import", body)["task_count"])
    return created


def update_task(client: LabelStudioClient, project_id: int, task_id: int, image: ImageRef, metadata: Metadata) -> None:
    """Point an existing task at another generation of its photo, and bring what the catalogue says of it in line.

    All else that the task says stays, as it is at this moment: task data is written as a whole. Only why somebody
    should look at what was drawn on other bytes is no longer said. A task that is gone stays gone.
    """
    for now in _as_written(client, project_id, task_id):
        data = {**now["data"], **task_data(image, metadata)}
        if now["data"].get("sha256") != image.sha256:
            data.pop(REVIEW, None)
        client.patch(f"/api/tasks/{task_id}/", {"data": data})


def show_reviews(client: LabelStudioClient, project_id: int, reasons: Mapping[str, str]) -> int:
    """Make the tasks of these photos, by sha256, show why somebody should look at them, and no others.

    Gives how many changed. Each task is read again right before it is written, because its data is written as a whole;
    whoever else writes task data (ingest) must be kept out meanwhile.
    """
    changed = 0
    for raw in [raw for raw in pages(client, project_id, page_size=_PAGE, query={}) if is_ours(raw)]:
        if raw["data"].get(REVIEW, "") != reasons.get(raw["data"]["sha256"], ""):
            for now in _as_written(client, project_id, raw["id"]):
                data = {**now["data"], REVIEW: reasons.get(now["data"]["sha256"], "")}
                client.patch(f"/api/tasks/{raw['id']}/", {"data": data})
                changed += 1
    return changed


def _as_written(client: LabelStudioClient, project_id: int, task_id: int) -> Iterator[dict[str, Any]]:
    """Give a task's JSON as it is now, no address in it resolved; nothing when the task is gone."""
    only = {"selectedItems": {"all": False, "included": [task_id]}}
    yield from pages(client, project_id, page_size=1, query=only)


def hand_out_again(client: LabelStudioClient, task_id: int, people: int = 2) -> None:
    """Let the labeling stream give a task that one person drew to one more; `people` are all who draw it then."""
    client.patch(f"/api/tasks/{task_id}/", {"overlap": people, "is_labeled": False})


def delete_task(client: LabelStudioClient, task_id: int) -> None:
    """Delete a task with all it holds."""
    client.delete(f"/api/tasks/{task_id}/")


def task_data(image: ImageRef, metadata: Metadata) -> dict[str, Any]:
    """Build the task's data: what the interface shows, and the photo's identity.

    The generation travels as text: it exceeds what JavaScript numbers can hold.
    """
    identity = {name: getattr(image, name) for name in _IDENTITY}
    return {**metadata, IMAGE: image.uri, **identity, "generation": str(image.generation), _PHASH: image.phash}


def is_ours(raw: Mapping[str, Any]) -> bool:
    """Tell whether task JSON carries the identity that Maskloop writes."""
    return all(name in raw.get("data", {}) for name in (IMAGE, *_IDENTITY))


def parse_image(data: Mapping[str, Any]) -> ImageRef:
    """Read the photo's identity from task data; raises DataError naming the missing or bad key."""
    try:
        return ImageRef(
            str(data[IMAGE]), int(data["generation"]), str(data["sha256"]), int(data["height"]), int(data["width"]),
            str(data.get(_PHASH, "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"task data without a usable photo identity ({error!r}); re-create it with ingest") from error


def parse_metadata(data: Mapping[str, Any]) -> Metadata:
    """Read the catalogue's part of task data."""
    return {key: str(value) for key, value in data.items() if key not in (IMAGE, _PHASH, REVIEW, *_IDENTITY)}


def parse_task(raw: Mapping[str, Any]) -> Task:
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


def pages(
    client: LabelStudioClient, project_id: int, *, page_size: int, query: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Give the Data Manager's task JSON page by page, of all tasks or of those that `query` filters or selects."""
    asked = json.dumps({"hiddenColumns": {"explore": _UNNEEDED, "labeling": _UNNEEDED}, **query})
    page, seen, total = 1, 0, 1
    while seen < total:
        answer = client.get(
            "/api/tasks", project=project_id, page=page, page_size=page_size, query=asked,
            fields="task_only", resolve_uri="false",  # task data as it was written, not as a browser needs it
        )  # fmt: skip
        total = int(answer["total"])
        if not answer["tasks"]:
            return  # tasks were deleted while we read; asking for a page past the end would be a 404
        seen += len(answer["tasks"])
        yield from answer["tasks"]
        page += 1
