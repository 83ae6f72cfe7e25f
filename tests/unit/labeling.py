"""A Label Studio with one project and state: what the prelabel pipeline reads and writes."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from pipelines.dataset.split import split_of_group
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import ImageRef, Task

REGION = {"id": "clothing-v1--coat", "from_name": "tag"}


def prediction(version: str = "clothing:v2", score: float = 0.5) -> dict[str, Any]:
    return {"result": [REGION], "score": score, "model_version": version}


def photo_in(split: str, number: int, params: Params) -> ImageRef:
    """The number-th photo whose content alone leads to this split."""
    names = (sha256_hex(f"{n}".encode()) for n in range(10_000))
    hashes = [name for name in names if split_of_group(name, params.split) == split]
    return ImageRef(f"gs://archive/{number}.jpg", 1, hashes[number], 4, 6)


class Studio:
    """A Label Studio with one project: tasks, their predictions, and who holds them. Notes what was written."""

    def __init__(self, params: Params) -> None:
        self.params, self.held = params, set[int]()
        self.project: dict[str, Any] = {"id": 7, "title": params.project.title, "model_version": "old"}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: dict[int, dict[str, Any]] = {}
        self.drops = 0  # predictions that it finds invalid
        self.written: list[tuple[str, Any]] = []
        self.before_listing: Callable[[], None] = lambda: None  # what happens meanwhile
        self.client = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(self))

    def add(self, task_id: int, *versions: str, split: str = "train", masks: bool = True, **fields: Any) -> Task:
        photo = photo_in(split, task_id, self.params)
        self.tasks[task_id] = {"id": task_id, "data": task_data(photo, {}), **fields}
        for version in versions:
            result = [REGION] if masks else []
            self._predict(task_id, {"result": result, "score": 0.5, "model_version": version})
        return Task(task_id, photo)

    def of(self, task_id: int) -> list[tuple[str, int]]:
        """The task's predictions: version, and how many regions it proposes."""
        stored = [prediction for prediction in self.predictions.values() if prediction["task"] == task_id]
        return [(prediction["model_version"], len(prediction["result"])) for prediction in stored]

    def _predict(self, task_id: int, fields: dict[str, Any]) -> None:
        number = max(self.predictions, default=29) + 1
        self.predictions[number] = {"id": number, **fields, "task": task_id}

    def _listed(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        asked = [item["filter"] for item in query.get("filters", {}).get("items", ())]
        included = query.get("selectedItems", {}).get("included", self.tasks)
        tasks = []
        for number, raw in self.tasks.items():
            masks = sum(count for _, count in self.of(number))
            fits = {
                "filter:tasks:locks__expire_at": number in self.held, "filter:tasks:predictions_results": masks > 0,
                "filter:tasks:annotations_results": False, "filter:tasks:cancelled_annotations": False,
                "filter:tasks:data.review": bool(raw["data"].get("review")),
            }  # fmt: skip
            if number in included and all(fits[name] for name in asked):
                versions = {version for version, _ in self.of(number)}
                told = {"predictions_model_versions": ",".join(versions), "total_predictions": len(self.of(number))}
                tasks.append({**raw, **told})
        return tasks

    def __call__(self, request: httpx.Request) -> httpx.Response:
        where, body = request.url.path, json.loads(request.content) if request.content else None
        if request.method != "GET":
            self.written.append((f"{request.method} {where}", body))
        number = int(where.strip("/").rpartition("/")[2]) if where.strip("/")[-1].isdigit() else 0
        match [request.method, *where.strip("/").split("/")[1:]]:
            case ["GET", "projects"]:
                answer: Any = {"results": [self.project], "next": None}
            case ["GET", "projects", "7"]:
                answer = self.project | {"parsed_label_config": {"tag": {"labels": list(self.params.region_ids)}}}
            case ["PATCH", "projects", "7"]:
                answer = self.project = self.project | body
            case ["GET", "tasks"]:
                self.before_listing()
                listed = self._listed(json.loads(request.url.params["query"]))
                answer = {"total": len(listed), "tasks": listed}
            case ["GET", "projects", "7", "export"]:
                answer = [self.tasks[int(task_id)] for task_id in request.url.params.get_list("ids[]")]
            case ["PATCH", "tasks", _]:
                answer = self.tasks[number] = self.tasks[number] | body
            case ["GET", "predictions"]:
                asked = int(request.url.params["task"])
                answer = [stored for stored in self.predictions.values() if stored["task"] == asked]
            case ["PATCH", "predictions", _]:
                answer = self.predictions[number] = self.predictions[number] | body
            case ["DELETE", "predictions", _]:
                answer = self.predictions.pop(number)
            case ["POST", "projects", "7", "import", "predictions"]:
                for fields in body[self.drops :]:
                    self._predict(fields["task"], fields)
                answer = {"created": len(body) - self.drops}
            case _:
                return httpx.Response(404, text=where)
        return httpx.Response(200, json=answer)
