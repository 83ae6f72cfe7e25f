"""Take the screenshots of docs/labelers.md: one photo labelled in the stream, as one of the demo's labelers sees it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, Page

from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.controls import BOX, POINT
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks, tasks_with_masks
from pipelines.params import load_params
from pipelines.settings import Settings
from scripts.editor import Editor

LABELER = "labeler-1@maskloop.local"
Box = Mapping[str, float]  # x, y, width and height in pixels of the screen
_RING = """({x, y, width, height}) => {
    const ring = document.createElement('div');
    ring.className = 'guide-ring';
    Object.assign(ring.style, {
        left: `${x - 6}px`, top: `${y - 6}px`, width: `${width + 12}px`, height: `${height + 12}px`, position: 'fixed',
        border: '4px solid #e4002b', borderRadius: '14px', boxSizing: 'border-box', pointerEvents: 'none', zIndex: 9999,
    });
    document.body.append(ring);
}"""
_NO_RINGS = "() => document.querySelectorAll('.guide-ring').forEach(ring => ring.remove())"


def take_pictures(browser: Browser, settings: Settings, folder: Path) -> None:
    """Write `labelers-*.jpg` into `folder`; the drafts drawn for them are deleted afterwards."""
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    camera = _Camera(browser.new_page(viewport={"width": 1360, "height": 860}), folder)
    page = camera.page
    page.goto(settings.url("label_studio") + "/user/login/")
    page.fill("input[name=email]", LABELER)
    page.fill("input[name=password]", settings.label_studio_password.get_secret_value())
    camera.shoot("login", "button[type=submit]")
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url, wait_until="domcontentloaded")
    page.goto(f"{settings.url('label_studio')}/projects/{project}/data")
    page.wait_for_selector("text=Label All Tasks", timeout=60_000)
    page.wait_for_timeout(4000)  # thumbnails of the photos
    camera.shoot("start", "text=Label All Tasks")
    with page.expect_response(lambda answer: "id=next_task" in answer.url) as served:
        page.get_by_text("Label All Tasks", exact=True).click()
        task = served.value.json()
    if not task["predictions"][0]["result"]:  # a blind task: the guide shows another one
        waiting = [other.id for other in list_tasks(labels, project) if not other.opened and other.prediction_versions]
        task = labels.get(f"/api/tasks/{min(tasks_with_masks(labels, project, waiting))}/")
        page.goto(f"{settings.url('label_studio')}/projects/{project}/data?task={task['id']}")
    page.wait_for_selector(".konvajs-content canvas", timeout=60_000)
    page.wait_for_timeout(5000)  # the editor draws strokes after the photo and does not signal when it is done
    with _drafts_deleted(labels, int(task["id"])):
        _label(camera, Editor(page, params, (task["data"]["height"], task["data"]["width"])), task)
    page.close()


class _Camera:
    """Screenshots of a page with red rings around the parts that the text explains."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self._folder = page, folder

    def shoot(self, name: str, *around: str | Box) -> None:
        """Write `labelers-NAME.jpg` with a ring around each selector's element and each box."""
        for place in around:
            box = self.page.locator(place).last.bounding_box() if isinstance(place, str) else place
            assert box is not None, f"{name}: there is no {place} to put a ring around"
            self.page.evaluate(_RING, dict(box))
        self.page.screenshot(path=self._folder / f"labelers-{name}.jpg", type="jpeg", quality=82)
        self.page.evaluate(_NO_RINGS)


def _label(camera: _Camera, editor: Editor, task: Mapping[str, Any]) -> None:
    page = camera.page
    camera.shoot("masks", ".lsf-outliner")
    first, second = sorted((_mask(r) for r in task["predictions"][0]["result"]), key=np.count_nonzero)[:-3:-1]
    label = max(task["predictions"][0]["result"], key=lambda r: np.count_nonzero(_mask(r)))["value"]["brushlabels"][0]
    camera.shoot("submit", "text=Submit")
    camera.shoot("tools", *(f"[aria-label={tool}]:visible" for tool in ("brush-tool", "magicwand", "eraser")))
    editor.delete_all_regions()
    editor.label(POINT, label)
    with page.expect_response("**/interactive-annotating*"):
        editor.click(*_deepest(first))
    editor.wait_for_answers()
    camera.shoot("point", _spot(editor, *_deepest(first)))
    with page.expect_response("**/interactive-annotating*"):
        editor.click(*_deepest(second), negative=True)
    editor.wait_for_answers()
    camera.shoot("not-this", _spot(editor, *_deepest(second)))
    editor.delete_all_regions()
    editor.label(BOX, label)
    x, y, width, height = cv2.boundingRect(first.astype(np.uint8))
    rows, columns = first.shape
    corners = (x / columns, y / rows, (x + width) / columns, (y + height) / rows)
    with page.expect_response("**/interactive-annotating*"):
        editor.drag(*corners)
    editor.wait_for_answers()
    (left, top), (right, bottom) = editor.at(*corners[:2]), editor.at(*corners[2:])
    camera.shoot("box", {"x": left, "y": top, "width": right - left, "height": bottom - top})


def _mask(region: Mapping[str, Any]) -> np.ndarray:
    return rle_to_mask(region["value"]["rle"], region["original_height"], region["original_width"])


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    """Return the point of a mask that is farthest from its border, as shares of width and height."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return float(x + 0.5) / mask.shape[1], float(y + 0.5) / mask.shape[0]


def _spot(editor: Editor, x: float, y: float) -> Box:
    left, top = editor.at(x, y)
    return {"x": left - 12, "y": top - 12, "width": 24, "height": 24}


@contextmanager
def _drafts_deleted(labels: LabelStudioClient, task: int) -> Iterator[None]:
    try:
        yield
    finally:
        for draft in labels.get(f"/api/tasks/{task}/drafts"):
            labels.delete(f"/api/drafts/{draft['id']}/")
