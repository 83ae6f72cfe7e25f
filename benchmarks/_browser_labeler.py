"""A labeler in a browser of their own: the label stream with the page's own script, watched from outside."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from playwright.sync_api import Page, Request

from benchmarks._journal import Content, Journal, Submitted, content_of
from benchmarks._scenes import Scene
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.controls import SKIP_REASON
from pipelines.params import Params
from scripts.editor import Editor

_PATIENCE_MS = 60_000
_OPEN_TASK = "() => window.Htx?.annotationStore?.selected ? Number(window.Htx.task.id) : 0"


@dataclass
class BrowserLabeler:
    """One person's browser, logged in; the journal gets what the page waits for. `scenes` are the tasks by id."""

    page: Page
    person: str
    journal: Journal
    scenes: dict[int, Scene]
    params: Params
    _clicked: set[int] = field(default_factory=set)
    _task: int = 0

    def __post_init__(self) -> None:
        """Watch the page's requests and errors."""
        self.page.on("requestfinished", self._note)
        self.page.on("pageerror", lambda error: self.journal.problem(f"an error in {self.person}'s page: {error}"))

    def start(self, project_url: str) -> None:
        """Begin to label."""
        self.page.goto(f"{project_url}/data")
        self.page.get_by_text("Label All Tasks", exact=True).click()

    def open_next(self) -> tuple[Scene, Editor]:
        """Wait until the next task is open and its masks are drawn."""
        after = f"before => {{ const task = ({_OPEN_TASK})(); return task && task !== before && task; }}"
        self._task = int(
            self.page.wait_for_function(after, arg=self._task, timeout=_PATIENCE_MS, polling=100).json_value()
        )
        scene = self.scenes[self._task]
        editor = Editor(self.page, self.params, scene.image.shown_size)
        editor.wait_until_drawn(len(scene.proposed))
        return scene, editor

    def click(self, editor: Editor, region_id: str, x: float, y: float, *, positive: bool) -> None:
        """Change a region by a click at (x, y), shares of width and height."""
        self.journal.count("clicks")
        times = editor.timed_click(region_id, x, y, negative=not positive)
        editor.wait_for_answers()
        if times.drawn_s is None:
            self.journal.problem(f"after a click on task {self._task} no new mask was drawn in the browser")
        else:
            self.journal.waited("click in a browser, until its mask is drawn", times.drawn_s)

    def send(self, scene: Scene, editor: Editor, press: Callable[[], None], reason: str = "") -> None:
        """Submit by `press`, or skip with this reason, and note what the page held before."""
        content = self._content(scene, editor)
        if reason:
            text = [{"type": "textarea", "from_name": SKIP_REASON, "value": {"text": [reason]}}]
            content |= content_of(text, self.params.compile.alpha_threshold)
        self.journal.sending(self.person)
        press()
        self.journal.stored(scene.task, Submitted(self.person, content, skipped=bool(reason)))

    def skip(self, reason: str) -> None:
        """Press Skip and choose a reason."""
        self.page.get_by_text("Skip", exact=True).click()
        with self.page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            self.page.locator(f".maskloop-skip [data-reason='{reason}']").click()

    def mask(self, scene: Scene, editor: Editor, region_id: str) -> np.ndarray:
        """Return a mask as the page holds it, (H, W) bool; an empty one when the region is gone."""
        region = editor.masks().get(region_id)
        shape = scene.truth.shape
        return rle_to_mask(region["rle"], *shape) if region else np.zeros(shape, bool)

    def _content(self, scene: Scene, editor: Editor) -> Content:
        height, width = scene.truth.shape
        regions = [
            {
                "id": name, "type": "brushlabels", "original_height": height, "original_width": width,
                "value": {"rle": region["rle"], "brushlabels": [region["label"]]},
            }
            for name, region in editor.masks().items()
        ]  # fmt: skip
        return content_of(regions, self.params.compile.alpha_threshold)

    def _note(self, request: Request) -> None:
        seconds = request.timing["responseEnd"] / 1000
        response = request.response()
        if response is None or request.method != "POST":
            return
        if not response.ok:
            self.journal.problem(f"{self.person}: {request.url} answered HTTP {response.status}")
        elif "id=next_task" in request.url:
            self.journal.served(int(response.json()["id"]), self.person)
            self.journal.waited("next task", seconds)
        elif "interactive-annotating" in request.url:
            first = self._task not in self._clicked
            self._clicked.add(self._task)
            self.journal.waited("first click on a photo" if first else "click on a photo already clicked", seconds)
        elif "/annotations" in request.url and "/drafts" not in request.url:
            skips = bool((request.post_data_json or {}).get("was_cancelled"))
            self.journal.waited("skip" if skips else "submit", seconds)
