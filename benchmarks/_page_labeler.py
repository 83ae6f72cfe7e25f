"""A labeler who sends to Label Studio what its page with our script sends, request by request, without a browser.

Clicks, drafts, submit, update and skip have the bodies of the page (`pipelines/labelstudio_site/page/editor.js`, and
the Data Manager of Label Studio 1.23).
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks._journal import Journal, Submitted, content_of
from pipelines.demo.labelers import Labeler
from pipelines.labelstudio.controls import IMAGE, POINT, SKIP_REASON
from pipelines.labelstudio.schema import RegionJson

_PROMPT_WIDTH = 0.3


@dataclass
class OpenTask:
    """A task as the page holds it: regions by id, drafts, and which clicks led to which mask."""

    task: dict[str, Any]
    regions: dict[str, RegionJson]
    opened: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    draft: int | None = None
    annotation: int | None = None  # once it is submitted
    clicks: int = 0
    texts: list[dict[str, Any]] = field(default_factory=list)
    prompts_of: dict[tuple[str, bytes], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """Return the task's id."""
        return int(self.task["id"])

    @property
    def result(self) -> list[Any]:
        """Return what a draft or an annotation holds."""
        return [*self.regions.values(), *self.texts]


class PageLabeler(Labeler):
    """One person's session; every request is timed in the journal."""

    def __init__(
        self, url: str, email: str, password: str, project: int, backend: int, journal: Journal, alpha_threshold: int
    ) -> None:
        super().__init__(url, email, password)
        self._project, self._backend, self._journal, self._alpha = project, backend, journal, alpha_threshold
        self.user = int(self._checked(self._http.get("/api/current-user/whoami"))["id"])

    def open_next(self) -> OpenTask | None:
        """Take the next task of the label stream and its photo; None when none is left."""
        with self._journal.timed("next task"):
            task = self.next_task(self._project)
        if task is None:
            return None
        self._journal.served(int(task["id"]), self.email)
        photo = self._http.get(task["data"][IMAGE])
        if not photo.is_success:
            self._journal.problem(f"the photo of task {task['id']}: HTTP {photo.status_code}")
        proposed = task["predictions"][0]["result"] if task["predictions"] else []
        for region in proposed:
            region["origin"] = "prediction"
        return OpenTask(task, {region["id"]: region for region in proposed})

    def click(self, open_task: OpenTask, region_id: str, x: float, y: float, *, positive: bool) -> RegionJson | None:
        """Change a region by a click at (x, y) percent; return the region as it was, None when no mask came back."""
        region = open_task.regions[region_id]
        prompts = [*open_task.prompts_of.get(_state(region), []), _prompt(region, x, y, positive)]
        body = {"task": open_task.id, "context": {"result": [{**region, "from_clicks": False}, *prompts]}}
        self._journal.count("clicks")
        with self._journal.timed("click on a photo already clicked" if open_task.clicks else "first click on a photo"):
            answer = self._checked(self._post(f"/api/ml/{self._backend}/interactive-annotating", body))
        open_task.clicks += 1
        regions = (answer.get("data") or {}).get("result") or []
        if answer.get("errors") or not regions:
            self._journal.problem(f"a click on task {open_task.id} got no mask: {str(answer)[:200]}")
            return None
        if regions[0]["id"] != region_id:
            self._journal.problem(f"a click on region {region_id} of task {open_task.id} got {regions[0]['id']}")
        value = {**region["value"], "rle": regions[0]["value"]["rle"]}
        changed: RegionJson = {**region, "value": value, "origin": "prediction-changed"}  # type: ignore[typeddict-item]  # rle
        open_task.regions[region_id] = changed
        open_task.prompts_of[_state(changed)] = prompts
        return region

    def save_draft(self, open_task: OpenTask) -> None:
        """Save the state, as the page does after each change."""
        body = self._body(open_task)
        with self._journal.timed("draft"):
            if open_task.draft:
                self._checked(self._send("PATCH", f"/api/drafts/{open_task.draft}/", body))
                return
            of_annotation = f"/annotations/{open_task.annotation}" if open_task.annotation else ""
            path = f"/api/tasks/{open_task.id}{of_annotation}/drafts"
            open_task.draft = int(self._checked(self._post(path, body, project=self._project))["id"])

    def submit_open(self, open_task: OpenTask) -> None:
        """Submit the task, or update its annotation when it is submitted already."""
        body = self._body(open_task)
        if open_task.annotation:
            with self._journal.timed("update"):
                self._checked(self._send("PATCH", f"/api/annotations/{open_task.annotation}/", body))
        else:
            self._create(open_task, body, "submit")
        self._note(open_task)

    def skip(self, open_task: OpenTask, reason: str) -> None:
        """Skip the task for a reason."""
        text = {
            "id": f"skip-{open_task.id}", "type": "textarea", "from_name": SKIP_REASON, "to_name": IMAGE,
            "origin": "manual", "value": {"text": [reason]},
        }  # fmt: skip
        open_task.texts.append(text)
        self._create(open_task, {**self._body(open_task), "was_cancelled": True}, "skip")
        self._note(open_task, skipped=True)

    def _create(self, open_task: OpenTask, body: dict[str, Any], what: str) -> None:
        self._journal.sending(self.email)
        with self._journal.timed(what):
            path = f"/api/tasks/{open_task.id}/annotations"
            open_task.annotation = int(self._checked(self._post(path, body, project=self._project))["id"])
        open_task.draft = None  # Label Studio deletes it with the submission

    def _note(self, open_task: OpenTask, *, skipped: bool = False) -> None:
        self._journal.stored(
            open_task.id, Submitted(self.email, content_of(open_task.result, self._alpha), skipped=skipped)
        )

    def _body(self, open_task: OpenTask) -> dict[str, Any]:
        parent = next((prediction["id"] for prediction in open_task.task["predictions"]), None)
        return {
            "lead_time": time.monotonic() - open_task.opened, "result": open_task.result, "draft_id": open_task.draft,
            "parent_prediction": parent, "parent_annotation": None, "started_at": open_task.started_at,
            "project": self._project,
        }  # fmt: skip

    def _send(self, method: str, path: str, body: Any) -> Any:
        headers = {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": str(self._http.base_url)}
        return self._http.request(method, path, json=body, headers=headers)


def _state(region: RegionJson) -> tuple[str, bytes]:
    return region["id"], bytes(region["value"]["rle"])


def _prompt(region: RegionJson, x: float, y: float, positive: bool) -> dict[str, Any]:
    return {
        "id": f"point{time.monotonic_ns()}", "type": "keypointlabels", "from_name": POINT, "to_name": IMAGE,
        "original_width": region["original_width"], "original_height": region["original_height"], "image_rotation": 0,
        "is_positive": positive,
        "value": {"x": x, "y": y, "width": _PROMPT_WIDTH, "keypointlabels": region["value"]["brushlabels"]},
    }  # fmt: skip
