"""Nine people label at once for half an hour: two in browsers, seven by the requests that the page would send.

Each has an account of their own, takes photos from the label stream, corrects up to two damaged masks by clicks, and
submits. Some photos are skipped, some clicks are taken back, and some annotations are changed afterwards. Think times
are those of the keystroke-level model (Card, Moran, Newell 1980), spread as people's are. While they work, photos are
encoded ahead as often as the DAG `prelabel_images` does it; no other DAG runs.

At the end each annotation is compared with what its person had last. Rows of zeros are faults that did not occur.
MASKLOOP_BENCH_MINUTES shortens it, MASKLOOP_BENCH_CLICKS names the folder of a click model that answers, and
MASKLOOP_CCP a folder of real photos (photos/, masks/ and labels.csv).
"""

import logging
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
from playwright.sync_api import Error as BrowserError

from benchmarks._browser_labeler import BrowserLabeler
from benchmarks._journal import Journal, Submitted, compare, content_of, served_twice
from benchmarks._page_labeler import OpenTask, PageLabeler
from benchmarks._photos import photos_name
from benchmarks._scenes import Scene, make_scenes
from benchmarks._stack import local_stack
from benchmarks.harness import Row
from pipelines.errors import MaskloopError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.project import SEGMENT_ANYTHING_TITLE, find_project, list_backends
from pipelines.labelstudio.tasks import list_tasks
from pipelines.local_stack import supervisor
from pipelines.params import Params, load_params
from pipelines.prelabel.embed import embed_ahead
from pipelines.settings import Settings
from pipelines.training.click_simulation import next_click
from scripts.screenshots import chromium, log_in_to_label_studio

logger = logging.getLogger(__name__)
MINUTES = 30.0
_IN_BROWSERS, _BY_REQUESTS = 2, 7
_GOOD_IOU, _MOST_CLICKS, _DAMAGES = 0.85, 6, 2
# Seconds of a person: to look at a photo, to decide and point before a click, and to decide that the photo is done.
_LOOK_S, _AIM_S, _DONE_S = 6.0, 2.45, 1.35
_SPREAD = 0.4  # standard deviation of the logarithm of think times
_SKIPPED, _UNDONE, _UPDATED = 0.04, 0.1, 0.1  # shares of photos, of clicks, and of submitted photos
_REASON = "unreadable"
_SHORTEST_S = 12.0  # of a photo; so many photos are there that nobody runs out of them
_EMBED_EVERY_S, _MEMORY_EVERY_S = 600.0, 15.0
_WAITS = (
    "next task",
    "first click on a photo",
    "click on a photo already clicked",
    "submit",
    "draft",
    "update",
    "skip",
)
_IN_BROWSER = "click in a browser, until its mask is drawn"
_SERVICES = ("label-studio", "segment-anything", "segmentation")


class Person:
    """What makes one person different from the others: when they act and what they do by chance."""

    def __init__(self, number: int) -> None:
        self._chance = np.random.default_rng((620, number))

    def think(self, seconds: float) -> None:
        """Wait as a person does who needs so many seconds in the median."""
        time.sleep(seconds * float(self._chance.lognormal(0, _SPREAD)))

    def does(self, share: float) -> bool:
        """Return whether this time is one of a share of all times."""
        return float(self._chance.random()) < share


def run(minutes: float = float(os.environ.get("MASKLOOP_BENCH_MINUTES", MINUTES))) -> list[Row]:
    """Let nine people label on a stack of its own."""
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        return measure(settings, load_params(settings.params_path), stack.who_answers_clicks(), minutes)


def measure(settings: Settings, params: Params, answers: str, minutes: float) -> list[Row]:
    """Measure on a stack that is running; `answers` is the version that answers clicks."""
    people = _IN_BROWSERS + _BY_REQUESTS
    count = math.ceil(people * (minutes * 60 / _SHORTEST_S + 1))
    scenes = {scene.task: scene for scene in make_scenes(settings, params, count, _DAMAGES)}
    labels, journal = connect(settings), Journal()
    project = find_project(labels, params)
    everybody = [_sign_in(settings, params, labels, project, journal, number) for number in range(people)]
    with _memory(settings) as peaks, _embedding(labels, settings, params):
        until = time.monotonic() + 60 * minutes

        def work(number: int) -> None:
            in_browser = number < _IN_BROWSERS
            session = _label_in_browser if in_browser else _label_by_requests
            session(settings, params, everybody[number], scenes, journal, Person(number), until)

        with ThreadPoolExecutor(people) as pool:
            list(pool.map(work, range(people)))
    journal.end()
    for problem in journal.problems:
        logger.warning("%s", problem)
    stored = _stored(labels, project, params, {person.user: person.email for person in everybody})
    how = f"{people} people, {minutes:g} min, {photos_name()}, {answers}"
    return rows_of(journal, stored, peaks, how)


def rows_of(
    journal: Journal, stored: Mapping[int, Sequence[Submitted]], peaks: Mapping[str, float], how: str
) -> list[Row]:
    """Return the rows of what was measured; `how` names people, time, photos and who answered."""
    faults = compare(journal.submitted, stored)
    skipped = sum(state.skipped for state in journal.submitted.values())
    alone: list[tuple[str, float, str]] = [
        (f"photos submitted ({how})", len(journal.submitted) - skipped, "photos"),
        ("photos skipped", skipped, "photos"),
        ("annotations changed afterwards", journal.counts["updates"], "annotations"),
        ("clicks", journal.counts["clicks"], "clicks"),
        ("clicks taken back", journal.counts["undos"], "clicks"),
        ("annotations lost", faults.lost, "annotations"),
        ("regions and texts that differ from what their person had last", faults.differing, "regions"),
        ("annotations doubled", faults.doubled, "annotations"),
        ("tasks that two people had at once", served_twice(journal.holds), "tasks"),
        ("requests that failed, and clicks without a mask", len(journal.problems), "times"),
    ]
    rows = [Row(name, value, None, None, unit, 1) for name, value, unit in alone]
    for what in (*_WAITS, _IN_BROWSER):
        if seconds := journal.seconds.get(what):
            rows += [
                Row(f"{what}, p{percent}", float(np.percentile(seconds, percent)), None, None, "s", len(seconds))
                for percent in (50, 95, 99)
            ]
    return [*rows, *(Row(f"peak memory, {name}", used, None, None, "MB", 1) for name, used in peaks.items())]


def _sign_in(
    settings: Settings, params: Params, labels: LabelStudioClient, project: int, journal: Journal, number: int
) -> PageLabeler:
    [backend] = [b["id"] for b in list_backends(labels, project) if b["title"] == SEGMENT_ANYTHING_TITLE]
    password = settings.label_studio_password.get_secret_value()
    return PageLabeler(
        settings.url("label_studio"), f"labeler-{number}@maskloop.local", password, project, backend, journal,
        params.compile.alpha_threshold,
    )  # fmt: skip


def _label_by_requests(
    _: Settings, params: Params, labeler: PageLabeler, scenes: Mapping[int, Scene], journal: Journal, person: Person,
    until: float,
) -> None:  # fmt: skip
    while time.monotonic() < until:
        try:
            open_task = labeler.open_next()
            if open_task is None:
                journal.problem("no photo was left in the queue")
                return
            _label(params, labeler, open_task, scenes[open_task.id], journal, person)
        except (MaskloopError, httpx.HTTPError) as error:
            journal.problem(f"{labeler.email}: {error}")


def _label(
    params: Params, labeler: PageLabeler, open_task: OpenTask, scene: Scene, journal: Journal, person: Person
) -> None:
    person.think(_LOOK_S)
    if person.does(_SKIPPED):
        labeler.skip(open_task, _REASON)
        return
    for label in scene.damaged:
        _correct(params, labeler, open_task, scene, label, journal, person, _MOST_CLICKS)
    person.think(_DONE_S)
    labeler.submit_open(open_task)
    if person.does(_UPDATED) and scene.damaged:
        person.think(_LOOK_S)
        _correct(params, labeler, open_task, scene, scene.damaged[0], journal, person, 1, until_iou=1.0)
        journal.count("updates")
        labeler.submit_open(open_task)


def _correct(
    params: Params, labeler: PageLabeler, open_task: OpenTask, scene: Scene, label: str, journal: Journal,
    person: Person, most: int, until_iou: float = _GOOD_IOU,
) -> None:  # fmt: skip
    """Correct one mask by clicks; some are taken back, and made again."""
    region_id, label_id = scene.region_of(label), params.label_ids[label]
    height, width = scene.truth.shape
    for _ in range(most):
        mask = rle_to_mask(open_task.regions[region_id]["value"]["rle"], height, width)
        click = next_click(mask, scene.truth == label_id, judged=scene.judged)
        if click is None or scene.iou(mask, label_id) >= until_iou:
            return
        person.think(_AIM_S)
        x, y = 100 * (click[0] + 0.5) / width, 100 * (click[1] + 0.5) / height
        before = labeler.click(open_task, region_id, x, y, positive=click[2])
        if before is None:
            return
        labeler.save_draft(open_task)
        if person.does(_UNDONE):
            person.think(_AIM_S)
            open_task.regions[region_id] = before
            journal.count("undos")
            labeler.save_draft(open_task)


def _label_in_browser(
    settings: Settings, params: Params, labeler: PageLabeler, scenes: Mapping[int, Scene], journal: Journal,
    person: Person, until: float,
) -> None:  # fmt: skip
    own = settings.model_copy(update={"label_studio_email": labeler.email})
    project = find_project(connect(settings), params)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        log_in_to_label_studio(page, own)
        at_work = BrowserLabeler(page, labeler.email, journal, dict(scenes), params)
        try:
            at_work.start(f"{settings.url('label_studio')}/projects/{project}")
            while time.monotonic() < until:
                _label_page(params, at_work, journal, person)
        except BrowserError as error:
            journal.problem(f"{labeler.email} in the browser: {error}")


def _label_page(params: Params, at_work: BrowserLabeler, journal: Journal, person: Person) -> None:
    """Label the photo that is open in a browser."""
    scene, editor = at_work.open_next()
    person.think(_LOOK_S)
    if person.does(_SKIPPED):
        at_work.send(scene, editor, lambda: at_work.skip(_REASON), _REASON)
        return
    height, width = scene.truth.shape
    for label in scene.damaged:
        region_id, label_id = scene.region_of(label), params.label_ids[label]
        editor.label("point", label)
        for _ in range(_MOST_CLICKS):
            mask = at_work.mask(scene, editor, region_id)
            click = next_click(mask, scene.truth == label_id, judged=scene.judged)
            if click is None or scene.iou(mask, label_id) >= _GOOD_IOU:
                break
            person.think(_AIM_S)
            x, y = (click[0] + 0.5) / width, (click[1] + 0.5) / height
            at_work.click(editor, region_id, x, y, positive=click[2])
            if person.does(_UNDONE):
                person.think(_AIM_S)
                editor.undo()
                journal.count("undos")
    person.think(_DONE_S)
    at_work.send(scene, editor, editor.submit)


@contextmanager
def _memory(settings: Settings) -> Iterator[dict[str, float]]:
    """Yield the highest memory so far of the services that labelers use, and of all processes together, in MB."""
    peaks: dict[str, float] = defaultdict(float)

    def sample() -> None:
        used = supervisor.memory_mb(settings)
        for name in _SERVICES:
            peaks[name] = max(peaks[name], used.get(name, 0.0))
        peaks["all services"] = max(peaks["all services"], sum(used.values()))

    with _repeated(sample, _MEMORY_EVERY_S):
        yield peaks


@contextmanager
def _embedding(labels: LabelStudioClient, settings: Settings, params: Params) -> Iterator[None]:
    """Encode the next photos once before, and then in the background as often as the DAG does."""
    embed_ahead(labels, settings, params)
    with _repeated(lambda: embed_ahead(connect(settings), settings, params), _EMBED_EVERY_S):
        yield


@contextmanager
def _repeated(act: Callable[[], object], every_s: float) -> Iterator[None]:
    """Act every few seconds in a thread of its own."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            act()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _stored(
    labels: LabelStudioClient, project: int, params: Params, emails: Mapping[int, str]
) -> dict[int, list[Submitted]]:
    """Return what Label Studio holds, by task."""
    stored: dict[int, list[Submitted]] = {}
    for task in list_tasks(labels, project):
        if task.annotation_count or task.skipped_count:
            stored[task.id] = [
                Submitted(
                    emails.get(raw["completed_by"], str(raw["completed_by"])),
                    content_of(raw["result"], params.compile.alpha_threshold), skipped=bool(raw["was_cancelled"]),
                )
                for raw in labels.get(f"/api/tasks/{task.id}/annotations/")
            ]  # fmt: skip
    return stored
