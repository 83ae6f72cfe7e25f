"""A photo of many megapixels in a real editor: people draw on its copy, and the dataset's mask has the photo's size."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from pipelines.demo.photos import draw_photo
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.render import prediction_json
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.photos.copies import resample_mask
from pipelines.records import Prediction, RegionScore, Task
from pipelines.settings import Settings
from scripts.editor import Editor
from scripts.screenshots import chromium, log_in_to_label_studio, open_task
from tests.conftest import Stack
from tests.integration.test_smart_tools import garments, inside

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

TURNED = 6  # EXIF orientation: browsers turn the file's pixels clockwise


def large_photo(image: np.ndarray, seed: int) -> bytes:
    """Return the photo three times as large as it is drawn, stored lying on its side."""
    pixels = image.repeat(3, axis=0).repeat(3, axis=1)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = TURNED
    lying = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    lying.save(file, "JPEG", quality=90, exif=exif, comment=f"large {seed}".encode())
    return file.getvalue()


def test_people_draw_on_the_copy_and_the_mask_has_the_photos_size(stack_after_two_rounds: Stack) -> None:
    settings = stack_after_two_rounds.settings
    params, labels, bucket = load_params(settings.params_path), connect(settings), gcs.connect(settings)
    drawn = draw_photo(4711, params.label_ids)
    data = large_photo(drawn.image, 1)
    ref = gcs.put(bucket, settings.source_bucket, f"{settings.source_prefix}large.jpg", data, "image/jpeg")
    small = params.model_copy(update={"ingest": params.ingest.model_copy(update={"editor_megapixels": 0.5})})
    ingest(bucket, labels, settings, small)
    project = find_project(labels, params)
    [task] = [task for task in list_tasks(labels, project) if task.image.uri == ref.uri]
    height, width = drawn.mask.shape
    assert (task.image.height, task.image.width) == (3 * height, 3 * width)
    assert task.image.shown_size[0] * task.image.shown_size[1] <= 500_000
    truth = drawn.mask.repeat(3, axis=0).repeat(3, axis=1)
    largest, second = garments(drawn.mask)
    shown = np.where(np.isin(truth, (largest, second)), truth, 0).astype(np.uint8)
    proposed = resample_mask(shown, *task.image.shown_size)
    regions = tuple(RegionScore(params.label_names[label_id], label_id, 0.8) for label_id in (largest, second))
    prediction = prediction_json(Prediction(proposed, regions, 0.8, "clothing:v1"))
    labels.post("/api/predictions/", {"task": task.id, **prediction})

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        edit(page, settings, project, task, params.label_names[largest], inside(truth == largest))

    [annotation] = labels.get(f"/api/tasks/{task.id}/annotations/")
    result = annotation["result"]
    assert {(r["original_height"], r["original_width"]) for r in result} == {task.image.shown_size}
    untouched = [region for region in result if region.get("origin") == "prediction"]
    assert [region["value"]["brushlabels"] for region in untouched] == [[params.label_names[second]]]
    mask = compile_regions(untouched, params.region_ids, task.image.height, task.image.width, 128).mask
    wanted = resample_mask(proposed, task.image.height, task.image.width) == second
    np.testing.assert_array_equal(mask == second, wanted)
    assert (wanted & (truth == second)).sum() / (wanted | (truth == second)).sum() > 0.97


def edit(page: Page, settings: Settings, project: int, task: Task, label: str, place: tuple[float, float]) -> None:
    """Open the task, click once into a garment, and submit."""
    log_in_to_label_studio(page, settings)
    open_task(page, settings, project, task.id)
    params = load_params(settings.params_path)
    editor = Editor(page, params, task.image.shown_size)
    page.wait_for_selector(".maskloop-bar")
    page.wait_for_function("() => window.Htx.annotationStore.selected.regions.length === 2", timeout=60_000)
    natural = page.evaluate(
        "() => { const photo = window.Htx.annotationStore.selected.names.get('image');"
        " return [photo.naturalHeight, photo.naturalWidth]; }"
    )
    assert tuple(natural) == task.image.shown_size, "the photo stands upright"
    editor.label("point", label)
    with page.expect_response("**/interactive-annotating*", timeout=120_000) as answer:
        editor.click(*place)
    [region] = answer.value.json()["data"]["result"]
    assert (region["original_height"], region["original_width"]) == task.image.shown_size
    editor.wait_for_answers()
    editor.submit()
