"""A Label Studio that answers from a list of tasks, with dates to set: what polling a project needs."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from pipelines.labelstudio.tasks import task_data
from pipelines.records import ImageRef

START = datetime(2026, 1, 1, tzinfo=UTC)


class Studio:
    """A Label Studio with tasks that have a date and annotations; notes which tasks were exported."""

    def __init__(self) -> None:
        self.tasks: dict[int, dict[str, Any]] = {}
        self.exported: list[list[int]] = []
        self.listings: list[dict[str, Any]] = []

    def put(self, task_id: int, minute: int, *uuids: str, photo: str = "", ours: bool = True) -> None:
        image = ImageRef(f"gs://a/{photo or task_id}.jpg", 1, "ab" * 32, 4, 6)
        annotations = [
            {
                "unique_id": uuid, "id": 1, "completed_by": 5, "updated_at": START.isoformat(), "lead_time": 1.0,
                "was_cancelled": uuid.startswith("skipped"), "parent_prediction": None, "result": [],
            }
            for uuid in uuids
        ]  # fmt: skip
        skipped = sum(annotation["was_cancelled"] for annotation in annotations)
        self.tasks[task_id] = {
            "id": task_id, "data": task_data(image, {}) if ours else {"text": "theirs"}, "annotations": annotations,
            "updated_at": (START + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z"),
            "total_annotations": len(annotations) - skipped, "cancelled_annotations": skipped,
        }  # fmt: skip

    def __call__(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        if request.url.path == "/api/users":
            return httpx.Response(200, json=[{"id": 5, "email": "ada@example.org"}])
        if request.url.path.endswith("/export"):
            ids = [int(task_id) for task_id in params.get_list("ids[]")]
            self.exported.append(ids)
            return httpx.Response(200, json=[self.tasks[task_id] for task_id in ids])
        query = json.loads(params.get("query") or "{}")
        tasks = list(self.tasks.values())
        if "filters" in query:
            [item] = query["filters"]["items"]
            since = datetime.fromisoformat(item["value"])
            tasks = [t for t in tasks if datetime.fromisoformat(t["updated_at"]) >= since]
        self.listings.append(query)
        size, page = int(params["page_size"]), int(params["page"])
        return httpx.Response(200, json={"total": len(tasks), "tasks": tasks[(page - 1) * size : page * size]})
