"""A labeler's tools in a real browser: smart point, «not this», smart box, brush, and submit; then the sync has it."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.split import split_of_group
from pipelines.demo.photos import draw_photo
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.controls import BOX, POINT
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from scripts.editor import Editor
from scripts.screenshots import chromium, log_in_to_label_studio, open_task

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

SEEDS = {1: 4243, 6: 4254}  # drawn photos by their EXIF orientation, each with two garments of one part
TURN_BACK = {1: None, 6: Image.Transpose.ROTATE_90}  # EXIF orientation → how the pixels lie in the file


@pytest.fixture
def settings(stack_after_two_rounds):
    return stack_after_two_rounds.settings


@pytest.fixture
def params(settings):
    return load_params(settings.params_path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_labeler_corrects_a_photo_and_the_dataset_has_it(
    stack_after_two_rounds, settings, params, orientation, tmp_path
):
    drawn = draw_photo(SEEDS[orientation], params.label_ids)
    labels, project = connect(settings), find_project(connect(settings), params)
    name = f"{settings.source_prefix}smart-{orientation}.jpg"
    # Photos of the other splits come without masks; a photo that no catalogue knows is its own group.
    files = (jpeg(drawn.image, orientation, quality) for quality in range(95, 60, -1))
    data = next(file for file in files if split_of_group(sha256_hex(file), params.split) == "train")
    there = gcs.put(gcs.connect(settings), settings.source_bucket, name, data, "image/jpeg")
    stack_after_two_rounds.run("ingest")
    stack_after_two_rounds.run("prelabel")
    [task] = [t for t in list_tasks(labels, project) if t.image.uri == there.uri]
    assert (task.image.height, task.image.width) == drawn.mask.shape
    largest, second = garments(drawn.mask)
    names = params.label_names

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        log_in_to_label_studio(page, settings)
        open_task(page, settings, project, task.id)
        editor = Editor(page, params, drawn.mask.shape)
        assert editor.regions(), "the pre-label is there"
        for tool in ("brush-tool", "eraser", "magicwand"):
            assert page.locator(f"[aria-label={tool}]").first.is_visible(), tool
        editor.delete_all_regions()

        editor.label(POINT, names[largest])
        with page.expect_response("**/interactive-annotating*") as first:
            editor.click(*inside(drawn.mask == largest))
        editor.wait_for_answers()
        with page.expect_response("**/interactive-annotating*") as narrowed:
            editor.click(*aside(drawn.mask == second, drawn.mask == largest), negative=True)
        editor.wait_for_answers()
        page.screenshot(path=artefact(tmp_path, f"smart-point-{orientation}.png"))
        editor.label(BOX, names[second])
        with page.expect_response("**/interactive-annotating*"):
            editor.drag(*around(drawn.mask == second))
        editor.wait_for_answers()
        page.screenshot(path=artefact(tmp_path, f"smart-box-{orientation}.png"))
        assert editor.regions() == [names[largest], names[second]]
        asked = [
            [(region["type"], region.get("is_positive")) for region in prompts(answer)] for answer in (first, narrowed)
        ]
        point = "keypointlabels"
        assert asked == [[(point, True)], [("brushlabels", None), (point, True), (point, False)]]
        editor.submit()

    stack_after_two_rounds.run("sync")
    mask = Dataset(settings.workspace_path).read_mask(task.image.sha256)
    assert mask.shape == drawn.mask.shape
    for label_id in (largest, second):
        got, true = mask == label_id, drawn.mask == label_id
        assert (got & true).sum() / (got | true).sum() > 0.7, names[label_id]


def jpeg(image: np.ndarray, orientation: int, quality: int) -> bytes:
    """Store the photo as a camera does that was held this way."""
    picture, exif, file = Image.fromarray(image), Image.Exif(), io.BytesIO()
    turn = TURN_BACK[orientation]
    exif[0x0112] = orientation
    (picture if turn is None else picture.transpose(turn)).save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()


def garments(mask: np.ndarray) -> tuple[int, int]:
    """Give the two largest labels that are one part each: what lies in two parts takes a click for each."""
    whole = {label: garment for label in np.unique(mask) if label and parts(garment := mask == label) == 1}
    second, largest = sorted(whole, key=lambda label: whole[label].sum())[-2:]
    return int(largest), int(second)


def parts(garment: np.ndarray) -> int:
    count, _, stats, _ = cv2.connectedComponentsWithStats(garment.astype(np.uint8), connectivity=8)
    return int((stats[1:count, cv2.CC_STAT_AREA] > 0.05 * garment.sum()).sum())


def inside(garment: np.ndarray) -> tuple[float, float]:
    """Give the place of a garment that is farthest from its border, as shares of width and height."""
    distance = cv2.distanceTransform(garment.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), garment.shape)
    return (x + 0.5) / garment.shape[1], (y + 0.5) / garment.shape[0]


def aside(garment: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Give a place well inside a garment and far from the middle of another: there the editor shows its buttons."""
    rows, columns = np.nonzero(cv2.erode(garment.astype(np.uint8), np.ones((15, 15))))
    farthest = np.abs(columns - np.nonzero(other)[1].mean()).argmax()
    return (columns[farthest] + 0.5) / garment.shape[1], (rows[farthest] + 0.5) / garment.shape[0]


def around(garment: np.ndarray) -> tuple[float, float, float, float]:
    """Give a box around a garment, a little larger than it."""
    x, y, width, height = cv2.boundingRect(garment.astype(np.uint8))
    rows, columns = garment.shape
    return (
        max(2, x - 4) / columns, max(2, y - 4) / rows,
        min(columns - 3, x + width + 4) / columns, min(rows - 3, y + height + 4) / rows,
    )  # fmt: skip


def prompts(answer) -> list[dict]:
    return answer.value.request.post_data_json["context"]["result"]


def artefact(folder: Path, name: str) -> Path:
    return Path(os.environ.get("MASKLOOP_TEST_ARTEFACTS", folder)) / name
