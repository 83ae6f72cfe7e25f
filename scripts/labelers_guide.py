"""Take the pictures of docs/labelers.md: one photo labelled in the stream, as one of the demo's labelers sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Locator, Page

from pipelines.labelstudio.brush import rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.interface import BOX, POINT
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.settings import Settings
from scripts.editor import Editor

LABELER = "labeler-1@maskloop.local"
_RING = """([x, y, width, height]) => {
    const ring = document.createElement('div');
    ring.className = 'guide-ring';
    Object.assign(ring.style, {
        position: 'fixed', left: `${x - 6}px`, top: `${y - 6}px`, width: `${width + 12}px`, height: `${height + 12}px`,
        border: '4px solid #e4002b', borderRadius: '14px', boxSizing: 'border-box', pointerEvents: 'none', zIndex: 99999,
    });
    document.body.append(ring);
}"""
_NO_RINGS = "() => document.querySelectorAll('.guide-ring').forEach(ring => ring.remove())"


def take(browser: Browser, settings: Settings, folder: Path) -> Iterator[str]:
    """Write `labelers-*.jpg` into `folder` and give their names; what was drawn for them is thrown away again."""
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    page = browser.new_page(viewport={"width": 1360, "height": 860})

    def shoot(name: str, *around: Locator | tuple[float, float, float, float]) -> str:
        for place in around:
            box = place.bounding_box() if isinstance(place, Locator) else None
            assert box is not None or not isinstance(place, Locator), f"{name}: nothing to put a ring around"
            page.evaluate(_RING, [box["x"], box["y"], box["width"], box["height"]] if box else list(place))  # type: ignore[call-overload]  # a tuple here
        page.screenshot(path=folder / f"labelers-{name}.jpg", type="jpeg", quality=82)
        page.evaluate(_NO_RINGS)
        return f"labelers-{name}.jpg"

    page.goto(settings.url("label_studio") + "/user/login/")
    page.fill("input[name=email]", LABELER)
    page.fill("input[name=password]", settings.label_studio_password.get_secret_value())
    yield shoot("login", page.locator("button[type=submit]"))
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url, wait_until="domcontentloaded")
    page.goto(f"{settings.url('label_studio')}/projects/{project}/data")
    start = page.get_by_text("Label All Tasks", exact=True)
    start.wait_for(timeout=60_000)
    page.wait_for_timeout(3000)  # thumbnails
    yield shoot("start", start)

    with page.expect_response(lambda answer: "id=next_task" in answer.url) as handed:
        start.click()
    task = handed.value.json()
    page.wait_for_selector(".konvajs-content canvas", timeout=60_000)
    page.wait_for_timeout(5000)  # the editor draws strokes after the photo, without any sign of being done
    with _nothing_left_behind(labels, int(task["id"])):
        yield from _edit(page, Editor(page, params, (task["data"]["height"], task["data"]["width"])), task, shoot)  # type: ignore[arg-type]  # a nested function
    page.close()


def _edit(page: Page, editor: Editor, task: dict, shoot) -> Iterator[str]:  # type: ignore[no-untyped-def,type-arg]  # as above
    yield shoot("masks", page.locator(".lsf-outliner").first)
    largest = max(task["predictions"][0]["result"], key=_pixels)
    label = largest["value"]["brushlabels"][0]
    mask = rle_to_mask(largest["value"]["rle"], largest["original_height"], largest["original_width"])
    x, y = _deepest(mask)
    editor.delete_all_regions()
    editor.auto_annotation(accept=False)
    yield shoot("auto-annotation", page.get_by_text("Auto-Annotation", exact=True))
    editor.smart_tool(POINT)
    editor.label(POINT, label)
    with page.expect_response("**/interactive-annotating*"):
        editor.click(x, y)
    page.wait_for_timeout(1500)
    yield shoot("point", _spot(editor, x, y), page.locator(".lsf-auto-accept__action_type_accept"))
    editor.accept()
    editor.smart_tool(BOX)
    editor.label(BOX, label)


def _spot(editor: Editor, x: float, y: float) -> tuple[float, float, float, float]:
    left, top = editor.at(x, y)
    return left - 14, top - 14, 28, 28


def _pixels(region: dict) -> int:  # type: ignore[type-arg]  # Label Studio's JSON
    return int(rle_to_mask(region["value"]["rle"], region["original_height"], region["original_width"]).sum())


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return float(x + 0.5) / mask.shape[1], float(y + 0.5) / mask.shape[0]


@contextmanager
def _nothing_left_behind(labels: LabelStudioClient, task: int) -> Iterator[None]:
    try:
        yield
    finally:
        for draft in labels.get(f"/api/tasks/{task}/drafts"):
            labels.delete(f"/api/drafts/{draft['id']}/")
