"""The labelers' guide is followed: its steps are read from the page, in each language, and done in a real browser.

A step is the text after a comment `<!-- step: NAME -->`; what it prints in bold is a word that the page must show.
"""

import re
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

from pipelines.demo.photos import draw_photo
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.records import RegionMask
from pipelines.settings import PROJECT_ROOT
from scripts.editor import Editor
from scripts.screenshots import chromium, log_in_to_label_studio, open_task
from tests.integration.test_smart_tools import around, garments, inside, jpeg

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

GUIDES = {"en-GB": "labelers.md", "it-IT": "labelers.it.md"}
KEYS = "1234567890qrtyuiopasdfgjkl"  # beside the labels, in their order
STEPS = ("pick point", "add", "take away", "box", "brush", "buttons", "submit")
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
    labels.post("/api/predictions/", {"task": task.id, "result": [before, right], "model_version": "clothing:v1"})
    words = steps_of(GUIDES[language])

    with chromium() as browser:
        page = browser.new_context(locale=language, viewport={"width": 1500, "height": 1000}).new_page()
        log_in_to_label_studio(page, settings)
        open_task(page, settings, project, task.id)
        editor = Editor(page, params, drawn.mask.shape)
        page.wait_for_selector(".maskloop-bar")
        for step in STEPS:
            for word in words[step]:
                assert page.get_by_text(word, exact=True).first.is_visible(), f"{step}: the page shows no {word!r}"

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
        for key in "zxch":  # h takes the hand; none of them picks a label
            page.keyboard.press(key)
        page.keyboard.press(KEYS[list(params.region_ids).index(label)])
        asked(editor, lambda: editor.drag(*around(garment)))
        assert editor.regions() == [label, other_label], "the box redraws the mask that is there"
        buttons(page, editor)
        editor.submit()
    [stored] = labels.get(f"/api/tasks/{task.id}/annotations/")
    assert sorted(region["type"] for region in stored["result"]) == ["brushlabels", "brushlabels"]


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
