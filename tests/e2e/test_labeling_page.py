"""Label Studio in a real browser: a labeler opens a photo and sees the pre-label drawn where it belongs."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.gcs import client as gcs
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks, tasks_with_masks
from pipelines.params import load_params
from pipelines.photos.reader import PhotoReader
from pipelines.records import PhotoAddress
from scripts.screenshots import chromium, log_in_to_label_studio, open_task

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(900),
]  # the first test to ask for the stack waits for its start and both rounds


def test_a_pre_label_is_drawn_at_its_pixels(stack_after_two_rounds, tmp_path):
    settings = stack_after_two_rounds.settings
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    waiting = [t for t in list_tasks(labels, project) if not t.opened and t.prediction_versions]
    masks = tasks_with_masks(labels, project, [t.id for t in waiting])  # others are drawn without
    task = next(t for t in waiting if t.id in masks and t.image.width == 400)
    reader = PhotoReader(gcs.connect(settings), settings.source_bucket, 100)
    with reader.open(PhotoAddress(task.image.uri, task.image.generation)) as opened:
        photo = opened

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        log_in_to_label_studio(page, settings)
        open_task(page, settings, project, task.id)
        shown = page.locator(".konvajs-content").first.bounding_box()
        shot = page.screenshot(path=Path(os.environ.get("MASKLOOP_TEST_ARTEFACTS", tmp_path)) / "labeling.png")
        assert page.get_by_text("Submit", exact=True).is_visible()
        for tool in ("brush", "eraser"):
            assert page.locator(f"[aria-label*={tool} i]").count() > 0, tool

    drawn = crop_to_photo(shot, shown, photo)
    change = np.abs(drawn.astype(int) - photo).mean(axis=2)
    mask = predicted_mask(labels, task.id, task.image.height, task.image.width)
    around = np.ones((9, 9))  # strokes are antialiased: the border itself says little
    inside, outside = cv2.erode(mask.astype(np.uint8), around) > 0, cv2.dilate(mask.astype(np.uint8), around) == 0
    assert inside.mean() > 0.01
    assert np.median(change[inside]) > 3 * np.median(change[outside])


def predicted_mask(labels, task_id: int, height: int, width: int) -> np.ndarray:
    """Unite the regions of the task's prediction."""
    [prediction] = labels.get("/api/predictions/", task=task_id)
    masks = [rle_to_mask(region["value"]["rle"], height, width) for region in prediction["result"]]
    return np.any(masks, axis=0)


def crop_to_photo(shot: bytes, box: dict[str, float], photo: np.ndarray) -> np.ndarray:
    """Cut the canvas out of a screenshot and bring it to the photo's size."""
    picture = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
    x, y = round(box["x"]), round(box["y"])
    height = round(box["height"])
    width = round(height * photo.shape[1] / photo.shape[0])
    return cv2.resize(picture[y : y + height, x : x + width], photo.shape[1::-1], interpolation=cv2.INTER_AREA)
