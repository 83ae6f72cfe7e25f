"""The labelers' guide is followed: its steps are read from the page, in each language, and done in a real browser.

A step is the text after a comment `<!-- step: NAME -->`; what it prints in bold is a word that the page must show.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

from pipelines.demo.photos import draw_photo
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.predictions import UNCERTAIN, with_reason
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.remarks import read_remarks
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import Params, load_params
from pipelines.records import RegionMask
from pipelines.settings import PROJECT_ROOT, Settings
from scripts.editor import Editor
from scripts.screenshots import chromium, log_in_to_label_studio, open_task
from tests.integration.test_smart_tools import around, garments, inside, jpeg

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

GUIDES = {"en-GB": "labelers.md", "it-IT": "labelers.it.md"}
KEYS = "1234567890qrtyuiopasdfgjkl"  # beside the labels, in their order
STEPS = ("pick point", "add", "take away", "relabel", "box", "brush", "buttons", "doubt", "submit", "skip")
IN_THE_STREAM = ("skip",)  # Label Studio has this button only there
DOUBTS = {"en-GB": "dress or skirt?", "it-IT": "vestito o gonna?"}
REASONS = {"en-GB": ("Unreadable", "unreadable"), "it-IT": ("Nessun capo", "no garment")}  # as shown, and as stored
WHY = {"en-GB": "Why this photo: the computer is unsure here", "it-IT": "Perché questa foto: qui il computer è incerto"}
_STEP = re.compile(r"<!-- step: ([a-z ]+) -->\n(.*?)(?=\n\n|\n<!-- )", re.DOTALL)


def steps_of(guide: str) -> dict[str, list[str]]:
    """Return the bold words of each step, sentences left out."""
    text = (PROJECT_ROOT / "docs" / guide).read_text(encoding="utf-8")
    return {
        name: [word for word in re.findall(r"\*\*([^*]+)\*\*", body) if len(word) < 20 and not re.search("[?.]", word)]
        for name, body in _STEP.findall(text)
    }


@pytest.mark.parametrize("guide", GUIDES.values())
def test_each_step_stands_in_the_guide_once_and_in_order(guide: str) -> None:
    assert tuple(steps_of(guide)) == STEPS


@pytest.mark.parametrize("language", GUIDES)
def test_the_guide_is_followed_word_by_word(stack_after_two_rounds, language: str) -> None:
    settings = stack_after_two_rounds.settings
    params, labels = load_params(settings.params_path), connect(settings)
    drawn = draw_photo(4243, params.label_ids)
    place = list(GUIDES).index(language)
    data = jpeg(drawn.image, 1, 50 - place)  # bytes that no other test uploads
    bucket = gcs.connect(settings)
    name = f"{settings.source_prefix}guide-{language}.jpg"
    ref = gcs.put(bucket, settings.source_bucket, name, data, "image/jpeg")
    stack_after_two_rounds.run("ingest")
    project = find_project(labels, params)
    [task] = [task for task in list_tasks(labels, project) if task.image.uri == ref.uri]
    largest, second = garments(drawn.mask)
    garment, other = drawn.mask == largest, drawn.mask == second
    label, other_label = params.label_names[largest], params.label_names[second]
    missing, leaked = damage(garment, other)
    before = region_json(RegionMask(label, garment & ~missing | leaked, 0.6), "damaged")
    right = region_json(RegionMask(other_label, other, 0.9), "right")
    prediction = with_reason({"result": [before, right], "model_version": "clothing:v1"}, UNCERTAIN)
    labels.post("/api/predictions/", {"task": task.id, **prediction})
    words = steps_of(GUIDES[language])

    with chromium() as browser:
        page = browser.new_context(locale=language, viewport={"width": 1500, "height": 1000}).new_page()
        log_in_to_label_studio(page, settings)
        open_task(page, settings, project, task.id)
        editor = Editor(page, params, drawn.mask.shape)
        page.wait_for_selector(".maskloop-bar")
        for step in STEPS:
            if step not in IN_THE_STREAM:
                shows(page, step, words[step])
        assert page.get_by_text(WHY[language]).is_visible()

        editor.label("point", label)
        asked(editor, lambda: editor.click(*inside(missing)))
        grown = editor.masks()["damaged"]
        asked(editor, lambda: editor.click(*inside(leaked), negative=True))
        assert editor.regions() == [label, other_label], "the same two regions"
        for name in ("damaged", "right"):
            assert name in editor.masks()
        assert editor.masks()["damaged"]["origin"] == "prediction-changed"
        assert editor.masks()["right"]["origin"] == "prediction", "what nobody clicked on stays"
        assert editor.masks()["damaged"]["rle"] != grown["rle"]
        page.keyboard.press("Control+z")
        page.wait_for_timeout(500)
        assert editor.masks()["damaged"]["rle"] == grown["rle"], "one undo takes back one click"
        relabel(editor, params, garment & ~missing & ~leaked, label)
        for key in "zxch":  # h takes the hand; none of them picks a label
            page.keyboard.press(key)
        page.keyboard.press(KEYS[list(params.region_ids).index(label)])
        asked(editor, lambda: editor.drag(*around(garment)))
        assert editor.regions() == [label, other_label], "the box redraws the mask that is there"
        buttons(page, editor)
        page.get_by_placeholder(words["doubt"][0]).fill(DOUBTS[language])
        editor.submit()
        skipped = skip(page, settings, project, words["skip"], REASONS[language][0])
    assert skipped != task.id, "what was submitted is not served again"
    annotations = labels.get(f"/api/tasks/{task.id}/annotations/")
    assert len(annotations) == 1, [{**one, "result": [part["type"] for part in one["result"]]} for one in annotations]
    [stored] = annotations
    assert sorted(region["type"] for region in stored["result"]) == ["brushlabels", "brushlabels", "textarea"]

    remarks = {remark.task: str(remark) for remark in read_remarks(labels, project)}
    assert remarks[task.id] == f"doubt: {DOUBTS[language]}"
    assert remarks[skipped] == f"skipped: {REASONS[language][1]}"
    listed = stack_after_two_rounds.run("remarks")
    assert DOUBTS[language] in listed
    assert REASONS[language][1] in listed
    [shown] = labels.get("/api/tasks", project=project, query=json.dumps(only(task.id)))["tasks"]
    assert f"doubt: {DOUBTS[language]}" in shown["data"]["review"]
    stack_after_two_rounds.run("remarks", "--again", str(skipped))
    [waiting] = list_tasks(labels, project, only=[skipped])
    assert waiting.is_open
    assert waiting.skipped_count == 0


def only(task_id: int) -> dict[str, Any]:
    """Return the query that selects one task."""
    return {"selectedItems": {"all": False, "included": [task_id]}}


def shows(page: Page, step: str, words: Sequence[str]) -> None:
    """Check that the page shows each word of a step: as text, or in an empty field."""
    for word in words:
        places = page.get_by_text(word, exact=True).or_(page.get_by_placeholder(word))
        assert places.first.is_visible(), f"{step}: the page shows no {word!r}"


def relabel(editor: Editor, params: Params, garment: np.ndarray, label: str) -> None:
    """Give the damaged mask another label by a click with Shift, which asks no model, and take that back."""
    before, names = editor.masks()["damaged"], editor.regions()
    another = next(name for name in params.label_ids if name not in names)
    editor.label("point", another)
    editor.relabel(*inside(garment))
    assert editor.regions() == [another, *names[1:]]
    assert editor.masks()["damaged"]["rle"] == before["rle"], "its outline stays"
    editor.undo()
    assert editor.regions() == names, "one undo takes it back"
    editor.label("point", label)
    editor.relabel(*inside(garment))
    assert editor.regions() == names, "it has this label"
    assert editor.page.locator(".maskloop-message").count() == 1, "which the page says"


def skip(page: Page, settings: Settings, project: int, words: Sequence[str], reason: str) -> int:
    """Skip the next photo of the label stream for a reason; returns its task's id."""
    page.goto(f"{settings.url('label_studio')}/projects/{project}/data")
    with page.expect_response(lambda answer: "id=next_task" in answer.url) as served:
        page.get_by_text("Label All Tasks", exact=True).click()
    page.wait_for_selector(".maskloop-bar")
    page.wait_for_timeout(2500)
    shows(page, "skip", words)
    page.get_by_text(words[0], exact=True).click()
    with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
        page.get_by_text(reason, exact=True).click()
    return int(served.value.json()["id"])


def damage(garment: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a part of the garment that its mask lacks, and a part of another garment that it covers by mistake."""
    missing, leaked = np.zeros(garment.shape, np.uint8), np.zeros(garment.shape, np.uint8)
    height, width = garment.shape
    for canvas, where in ((missing, garment), (leaked, other)):
        x, y = inside(where)
        cv2.circle(canvas, (int(x * width), int(y * height)), 22, 1, -1)
    return (missing > 0) & garment, (leaked > 0) & other


def asked(editor: Editor, act: Callable[[], None]) -> None:
    """Act, and wait until the answer is shown."""
    with editor.page.expect_response("**/interactive-annotating*") as answer:
        act()
    assert answer.value.ok
    editor.wait_for_answers()


def buttons(page: Page, editor: Editor) -> None:
    """Press the three buttons: masks as outlines and back, and all masks cleared and brought back."""
    view = page.locator("[data-maskloop=view]")
    shown = [view.inner_text()]
    for _ in range(4):
        view.click()
        shown.append(view.inner_text())
    assert len(set(shown)) == 4
    assert shown[0] == shown[-1]
    count = len(editor.regions())
    page.locator("[data-maskloop=clear]").click()
    page.wait_for_timeout(300)
    assert editor.regions() == []
    page.keyboard.press("Control+z")
    page.wait_for_timeout(500)
    assert len(editor.regions()) == count
