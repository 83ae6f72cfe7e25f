"""How long labelers wait in the editor for a photo of 2000 by 3000 pixels with 15 masks.

Ours shows a copy of `ingest.editor_megapixels`, the peer the photo at its own size, as Label Studio alone would. Both
are opened in headless Chromium on a real Label Studio in turns, each time as a new task: it is opened until all masks
are drawn, one mask is changed by a stroke of the eraser, the stroke is undone, and with a new stroke the masks are
submitted. Each submitted annotation is compiled: masks that nobody touched must be what was proposed.
"""

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import cv2
import numpy as np
import psutil
from playwright.sync_api import Page, Response
from rich.progress import track

from benchmarks._stack import local_stack
from benchmarks.harness import Row
from pipelines.gcs import client as gcs
from pipelines.ingest.intake import PhotoIntake
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.project import connect_copies, find_project
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.render import prediction_json
from pipelines.labelstudio.tasks import create_tasks, list_tasks
from pipelines.params import Params, load_params
from pipelines.photos.copies import resample_mask
from pipelines.records import ImageRef, Prediction, RegionScore
from pipelines.settings import Settings
from scripts.editor import MASKS_DRAWN
from scripts.screenshots import chromium, log_in_to_label_studio

logger = logging.getLogger(__name__)
_HEIGHT, _WIDTH, _MASKS, _ROUNDS = 3000, 2000, 15, 3
_PATIENCE_MS, _PAUSE_MS, _DRAFT_POLLS = 600_000, 500, 240
_STEPS = ("open until all masks are drawn", "a stroke on one mask", "undo", "a stroke, and submit")
_TOUCHES = "() => window.Htx.annotationStore.selected.regions.reduce((sum, r) => sum + (r.touches?.length ?? 0), 0)"


def run() -> list[Row]:
    """Open, change and submit the same masks at both sizes in turns."""
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        return measure(settings, load_params(settings.params_path))


def measure(settings: Settings, params: Params) -> list[Row]:
    """Measure on a stack that is running."""
    labels = connect(settings)
    megapixels = {"ours": params.ingest.editor_megapixels, "peer": 0.0}
    times: dict[str, list[list[tuple[float, float]]]] = {way: [] for way in megapixels}
    same: list[float] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        log_in_to_label_studio(page, settings)
        for number in track(range(_ROUNDS + 1), "editing", transient=True):
            for way in sorted(megapixels, reverse=bool(number % 2)):
                task, image, proposed = _task(labels, settings, params, megapixels[way], f"{way}-{number}")
                steps = _edit(page, settings, find_project(labels, params), task)
                logger.info("%s %d: %s", way, number, steps)
                if number:  # the first round fills caches
                    times[way].append(steps)
                    same.append(_untouched(labels, task, image, proposed, params))
    return [
        *_rows(times),
        Row("masks that nobody touched, IoU with what was proposed", min(same), None, None, "IoU", len(same)),
    ]


def _rows(times: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> list[Row]:
    """Return medians of each step, and of the browser's processor time of all steps together."""
    rows = []
    for place, name in enumerate(_STEPS):
        rows.append(_row(name, {way: [steps[place][0] for steps in rounds] for way, rounds in times.items()}))
    worked = {way: [sum(used for _, used in steps) for steps in rounds] for way, rounds in times.items()}
    return [*rows, _row("processor time of the browser for all of it", worked)]


def _row(name: str, values: Mapping[str, Sequence[float]]) -> Row:
    ours, peer = (statistics.median(values[way]) for way in ("ours", "peer"))
    return Row(f"{_MASKS} masks on {_WIDTH}×{_HEIGHT}: {name}", ours, peer, peer / ours, "s", len(values["ours"]))


def _task(
    labels: LabelStudioClient, settings: Settings, params: Params, megapixels: float, name: str
) -> tuple[int, ImageRef, np.ndarray]:
    """Make a task of a new photo with a prediction; return it with the photo and the proposed (h, w) index mask."""
    chance = np.random.default_rng(list(name.encode()))
    coarse = chance.integers(0, 255, (60, 40, 3), dtype=np.uint8)
    photo = cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    bucket = gcs.connect(settings)
    data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    ref = gcs.put(bucket, settings.source_bucket, f"{settings.source_prefix}editor-{name}.jpg", data, "image/jpeg")
    intake = PhotoIntake(bucket, 100, settings.target_bucket, editor_megapixels=megapixels)
    image, _ = intake.read(ref)
    assert isinstance(image, ImageRef), image
    project = find_project(labels, params)
    if image.shown:
        connect_copies(labels, project, settings)
    create_tasks(labels, project, [(image, {})])
    [task] = [task.id for task in list_tasks(labels, project) if task.image.sha256 == image.sha256]
    mask = resample_mask(_masks(list(params.label_ids.values())[:_MASKS]), *image.shown_size)
    regions = tuple(RegionScore(params.label_names[label_id], label_id, 0.9) for label_id in np.unique(mask[mask > 0]))
    labels.post("/api/predictions/", {"task": task, **prediction_json(Prediction(mask, regions, 0.9, "bench:v1"))})
    return task, image, mask


def _masks(label_ids: list[int]) -> np.ndarray:
    """Return a (height, width) uint8 index mask: a blob with a wavy outline for each label, in rows of three."""
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    for place, label_id in enumerate(label_ids):
        row, column = divmod(place, 3)
        centre = np.array([(column + 0.5) * _WIDTH / 3, (row + 0.5) * _HEIGHT / 5])
        radius = _WIDTH * (0.13 + 0.012 * np.sin(9 * angle + place) + 0.004 * np.sin(47 * angle))
        outline = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        cv2.fillPoly(mask, [outline.round().astype(np.int32)], int(label_id))
    return mask


def _edit(page: Page, settings: Settings, project: int, task: int) -> list[tuple[float, float]]:
    """Return the seconds of each of `_STEPS`, and the processor seconds that the browser used for it."""
    url = f"{settings.url('label_studio')}/projects/{project}/data?task={task}"
    saved: list[str] = []

    def note(answer: Response) -> None:
        if "draft" in answer.url:
            saved.append(answer.url)

    page.on("response", note)

    def drawn() -> None:
        page.wait_for_function(MASKS_DRAWN, arg=_MASKS, timeout=_PATIENCE_MS, polling=100)

    def open_task() -> None:
        page.goto(url, timeout=_PATIENCE_MS)
        drawn()

    def changed_by(act: Callable[[], None]) -> None:
        before = page.evaluate(_TOUCHES)
        act()
        page.wait_for_function(f"before => ({_TOUCHES})() !== before", arg=before, timeout=_PATIENCE_MS, polling=50)
        drawn()

    def stroke() -> None:
        shown = page.locator(".konvajs-content").first.bounding_box()
        assert shown is not None
        across, y = shown["height"] * _WIDTH / _HEIGHT, shown["y"] + shown["height"] * 0.1
        page.mouse.move(shown["x"] + across * 0.12, y)
        page.mouse.down()
        page.mouse.move(shown["x"] + across * 0.2, y, steps=4)
        page.mouse.up()

    def submit() -> None:
        changed_by(stroke)
        with page.expect_response(
            lambda answer: "/annotations" in answer.url and answer.request.method == "POST", timeout=_PATIENCE_MS
        ):
            page.get_by_text("Submit", exact=True).click(timeout=_PATIENCE_MS)

    times = [_seconds(open_task)]
    page.locator(".lsf-outliner-item:visible").first.click(timeout=_PATIENCE_MS)
    page.keyboard.press("e")
    page.wait_for_timeout(_PAUSE_MS)
    for step in (lambda: changed_by(stroke), lambda: changed_by(lambda: page.keyboard.press("Control+z")), submit):
        drafts = len(saved)
        times.append(_seconds(step))
        for _ in range(_DRAFT_POLLS):  # the draft is saved after each change, and must not count for the next step
            if len(saved) > drafts or step is submit:
                break
            page.wait_for_timeout(_PAUSE_MS)
    page.remove_listener("response", note)
    return times


def _seconds(step: Callable[[], None]) -> tuple[float, float]:
    begun, worked = time.perf_counter(), _processor_seconds()
    step()
    return time.perf_counter() - begun, _processor_seconds() - worked


def _processor_seconds() -> float:
    """Return what this process's browser has used of the processor so far."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def _untouched(labels: LabelStudioClient, task: int, image: ImageRef, proposed: np.ndarray, params: Params) -> float:
    """Return the worst IoU, at the photo's size, of the masks that the stroke did not touch with what was proposed."""
    [annotation] = labels.get(f"/api/tasks/{task}/annotations/")
    regions = [region for region in annotation["result"] if region.get("origin") == "prediction"]
    assert len(regions) == _MASKS - 1, f"{len(regions)} of {_MASKS} masks are untouched"
    wanted = resample_mask(proposed, image.height, image.width)
    worst = 1.0
    for region in regions:
        label_id = params.label_ids[region["value"]["brushlabels"][0]]
        mask = compile_regions([region], params.region_ids, image.height, image.width, 128).mask == label_id
        worst = min(worst, float((mask & (wanted == label_id)).sum() / (mask | (wanted == label_id)).sum()))
    return worst
