"""Twenty corrections by a simulated labeler in headless Chromium, on a real Label Studio with the stack's own services.

Each photo comes with a pre-label of which one mask is damaged as a weak model would. The labeler picks the label once,
by its key, and clicks in the middle of the largest wrong part of the mask that the page holds then, until its IoU is
0.85, ten clicks are made, or a click changed nothing. Actions are that key and the clicks; nothing else is done. Then
one Ctrl+Z must go back exactly one click, no other region may have changed, and what is submitted must compile to the
mask that the page held.

The peer is the stock editor with the same backend: its points go to the backend as its smart tool sends them, all
together and without the mask, through the same Label Studio. Its actions are those points, and taking the smart tool,
picking the label, accepting the new mask, selecting the old one and deleting it.

Photos are those of MASKLOOP_CCP (a folder with photos/, masks/ and labels.csv) where it is set, drawn ones elsewhere.
MASKLOOP_BENCH_CLICKS names the folder of a click model that answers, MASKLOOP_BENCH_PHOTOS another number of photos.
"""

import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page
from rich.progress import track

from benchmarks._photos import photos_name
from benchmarks._scenes import Scene, make_scenes
from benchmarks._stack import local_stack
from benchmarks.harness import Row
from pipelines.contract import SEGMENT_ANYTHING
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.controls import IMAGE, POINT
from pipelines.labelstudio.project import SEGMENT_ANYTHING_TITLE, find_project, list_backends
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.schema import RegionJson
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params, load_params
from pipelines.services import ask_service
from pipelines.settings import Settings
from pipelines.training.click_simulation import next_click
from scripts.editor import ClickTimes, Editor
from scripts.screenshots import chromium, log_in_to_label_studio

logger = logging.getLogger(__name__)
_PHOTOS = int(os.environ.get("MASKLOOP_BENCH_PHOTOS", "20"))
_GOOD_IOU, _MOST_CLICKS = 0.85, 10
_OTHER_ACTIONS = 1  # the label's key
_BRUSH = "brushlabels"
_STOCK_ACTIONS = 5  # the smart tool, the label, accepting the new mask, selecting and deleting the old one


@dataclass
class Correction:
    """What the correction of one garment took and gave."""

    ious: list[float]  # before and after each click
    times: list[ClickTimes] = field(default_factory=list)
    other_regions_changed: int = 0
    undo_is_one_click: bool = True
    submitted_as_shown: bool = True

    @property
    def clicks(self) -> int:
        """Return how many clicks were made."""
        return len(self.ious) - 1

    @property
    def is_corrected(self) -> bool:
        """Return whether the mask is good enough."""
        return self.ious[-1] >= _GOOD_IOU


def run() -> list[Row]:
    """Correct masks on a stack of its own."""
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        return measure(settings, load_params(settings.params_path), stack.who_answers_clicks())


def measure(settings: Settings, params: Params, answers: str) -> list[Row]:
    """Measure on a stack that is running; `answers` is the version that answers clicks."""
    scenes = make_scenes(settings, params, _PHOTOS, damages=1)
    labels = connect(settings)
    project = find_project(labels, params)
    for scene in track(scenes, "photos are encoded ahead", transient=True):
        task = {"id": scene.task, "data": task_data(scene.image, {})}
        ask_service(settings, SEGMENT_ANYTHING, "/embed", {"tasks": [task], "compute": True}, timeout_s=300)
    corrections = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        log_in_to_label_studio(page, settings)
        for scene in track(scenes, "correcting", transient=True):
            page.goto(f"{settings.url('label_studio')}/projects/{project}/data?task={scene.task}")
            corrections.append(_correct(page, labels, params, scene))
            logger.info("task %d: %s", scene.task, corrections[-1])
    stock = [_stock_correction(labels, project, params, scene) for scene in track(scenes, "the peer", transient=True)]
    return rows_of(corrections, stock, f"{photos_name()}, {answers}")


def rows_of(corrections: Sequence[Correction], stock: Sequence[Correction], how: str) -> list[Row]:
    """Return the rows of what was measured; `how` names the photos and who answered."""
    count = len(corrections)
    good, stock_good = _corrected_share(corrections), _corrected_share(stock)
    times = [time for correction in corrections for time in correction.times]
    drawn = [time.drawn_s for time in times if time.drawn_s is not None]
    name = f"garments corrected to IoU {_GOOD_IOU} in {_MOST_CLICKS} clicks ({how})"
    rows = [Row(name, good, stock_good, good / stock_good if stock_good else None, "share", count)]
    if actions := _actions(corrections, _OTHER_ACTIONS):
        peer = _actions(stock, _STOCK_ACTIONS)
        ratio = peer / actions if peer else None
        rows.append(Row("actions per corrected garment, median", actions, peer, ratio, "actions", round(good * count)))
    if drawn:
        for percent in (50, 95):
            name = f"a click, until its mask is drawn, p{percent}"
            rows.append(Row(name, float(np.percentile(drawn, percent)), None, None, "s", len(drawn)))
    before, after = (statistics.mean(c.ious[place] for c in corrections) for place in (0, -1))
    alone: list[tuple[str, float, str, int]] = [
        ("IoU of the damaged masks before, mean", before, "IoU", count),
        ("IoU of the corrected masks, mean", after, "IoU", count),
        ("clicks after which no new mask was drawn", len(times) - len(drawn), "clicks", len(times)),
        ("other regions that changed", sum(c.other_regions_changed for c in corrections), "regions", count),
        ("undos that did not go back one click", sum(not c.undo_is_one_click for c in corrections), "undos", count),
        (
            "submitted masks that differ from what the page showed",
            sum(not c.submitted_as_shown for c in corrections), "masks", count,
        ),
    ]  # fmt: skip
    return [*rows, *(Row(name, value, None, None, unit, rounds) for name, value, unit, rounds in alone)]


def _corrected_share(corrections: Sequence[Correction]) -> float:
    return sum(correction.is_corrected for correction in corrections) / len(corrections)


def _actions(corrections: Sequence[Correction], others: int) -> float | None:
    """Return the median of all actions, over the corrected garments; `others` are those that are no clicks.

    None when no garment was corrected.
    """
    counts = [correction.clicks + others for correction in corrections if correction.is_corrected]
    return float(statistics.median(counts)) if counts else None


def _correct(page: Page, labels: LabelStudioClient, params: Params, scene: Scene) -> Correction:
    """Correct the damaged mask of the task that the page is opening, and submit."""
    editor, [label] = Editor(page, params, scene.image.shown_size), scene.damaged
    region, wanted = scene.region_of(label), scene.truth == params.label_ids[label]
    editor.wait_until_drawn(len(scene.proposed))
    first = last = shown = editor.masks()
    mask = _mask(shown.get(region), scene)
    correction = Correction([scene.iou(mask, params.label_ids[label])])
    editor.pick(label)
    click: tuple[int, int, bool] | None = None
    while not correction.is_corrected and correction.clicks < _MOST_CLICKS:
        previous, click = click, next_click(mask, wanted, judged=scene.judged)
        if click in (None, previous):  # nobody clicks again where a click changed nothing
            break
        assert click is not None
        last = shown
        correction.times.append(editor.timed_click(region, *_shares(click, scene), negative=not click[2]))
        editor.wait_for_answers()
        shown = editor.masks()
        mask = _mask(shown.get(region), scene)
        correction.ious.append(scene.iou(mask, params.label_ids[label]))
    if correction.clicks:
        editor.undo()
        correction.undo_is_one_click = editor.masks() == last
        editor.redo()
        shown = editor.masks()
    editor.submit()
    [annotation] = labels.get(f"/api/tasks/{scene.task}/annotations/")
    stored: Sequence[RegionJson] = annotation["result"]
    correction.other_regions_changed = changed_regions(first, shown, stored, region)
    correction.submitted_as_shown = _is_as_shown(shown, stored, params, scene)
    return correction


def changed_regions(
    first: Mapping[str, Any], shown: Mapping[str, Any], stored: Sequence[RegionJson], corrected: str
) -> int:
    """Count the regions that differ although nobody corrected them: byte for byte on the page, and as submitted.

    `first` and `shown` are what the page held before and after, by id; `stored` is what was submitted. The editor
    encodes masks again: the same bits, without the whole byte of padding that other encoders add to full bytes.
    """
    submitted = {region["id"]: _unpadded(region["value"]["rle"]) for region in stored if region["type"] == _BRUSH}
    same = {
        name
        for name in first.keys() & shown.keys() & submitted.keys()
        if first[name] == shown[name] and _unpadded(first[name]["rle"]) == submitted[name]
    }
    return len((first.keys() | shown.keys() | submitted.keys()) - same - {corrected})


def _unpadded(rle: Sequence[int]) -> bytes:
    """Return brush RLE without a whole byte of padding at its end."""
    return bytes(rle).removesuffix(b"\0")


def _is_as_shown(
    shown: Mapping[str, Mapping[str, Any]], stored: Sequence[RegionJson], params: Params, scene: Scene
) -> bool:
    """Return whether what was submitted compiles to the same (H, W) index mask as what the page held."""
    height, width = scene.truth.shape
    held: list[RegionJson] = [
        {
            "id": name, "type": _BRUSH, "from_name": "", "to_name": "",
            "original_height": height, "original_width": width,
            "value": {"rle": region["rle"], "brushlabels": [region["label"]]},
        }
        for name, region in shown.items()
    ]  # fmt: skip
    size = scene.image.height, scene.image.width
    how = params.compile.alpha_threshold, params.compile.strongest
    first, second = (compile_regions(result, params.region_ids, *size, *how).mask for result in (held, stored))
    return np.array_equal(first, second)


def _mask(region: Mapping[str, Any] | None, scene: Scene) -> NDArray[np.bool_]:
    """Return a region of the page as (H, W) mask; an empty one when it is no longer there."""
    return rle_to_mask(region["rle"], *scene.truth.shape) if region else np.zeros(scene.truth.shape, bool)


def _shares(click: tuple[int, int, bool], scene: Scene) -> tuple[float, float]:
    height, width = scene.truth.shape
    return (click[0] + 0.5) / width, (click[1] + 0.5) / height


def _stock_correction(labels: LabelStudioClient, project: int, params: Params, scene: Scene) -> Correction:
    """Draw the garment anew by points, as the smart tool of the stock editor does."""
    [label] = scene.damaged
    wanted, mask = scene.truth == params.label_ids[label], np.zeros(scene.truth.shape, bool)
    [backend] = [b["id"] for b in list_backends(labels, project) if b["title"] == SEGMENT_ANYTHING_TITLE]
    correction = Correction([0.0])
    points: list[dict[str, Any]] = []
    while not correction.is_corrected and correction.clicks < _MOST_CLICKS:
        click = next_click(mask, wanted, judged=scene.judged)
        if click is None:
            break
        points.append(_point(click, label, scene, len(points)))
        body = {"task": scene.task, "context": {"result": points}}
        regions = labels.post(f"/api/ml/{backend}/interactive-annotating", body)["data"]["result"]
        if regions:
            mask = rle_to_mask(regions[0]["value"]["rle"], *scene.truth.shape)
        correction.ious.append(scene.iou(mask, params.label_ids[label]))
    return correction


def _point(click: tuple[int, int, bool], label: str, scene: Scene, number: int) -> dict[str, Any]:
    (x, y), (height, width) = _shares(click, scene), scene.truth.shape
    return {
        "id": f"point-{number}", "type": "keypointlabels", "from_name": POINT, "to_name": IMAGE,
        "original_width": width, "original_height": height, "image_rotation": 0, "is_positive": click[2],
        "value": {"x": 100 * x, "y": 100 * y, "width": 0.3, "keypointlabels": [label]},
    }  # fmt: skip
