"""Pictures of an evaluation: the worst photos first, colours as in Label Studio."""

from pathlib import Path

import cv2
import numpy as np

from pipelines.dataset.dataset import Dataset
from pipelines.params import Params
from pipelines.segmentation.model import load_model
from pipelines.training.confusion import Confusion
from pipelines.training.plots import draw_confusion, draw_overlays, paint

Splits = dict[str, list[str]]


def test_the_worst_photos_come_first_and_no_more_than_asked(
    dataset: Dataset, splits: Splits, model_that_sees_coats: Path, two_labels: Params, tmp_path: Path
) -> None:
    two = two_labels.model_copy(update={"evaluate": two_labels.evaluate.model_copy(update={"overlays": 2})})
    good, bad, middling = splits["test"]

    draw_overlays(load_model(model_that_sees_coats), dataset, {good: 0.9, bad: 0.1, middling: 0.5}, two, tmp_path)

    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert names == [f"overlay-00-miou-0.10-{bad[:8]}.jpg", f"overlay-01-miou-0.50-{middling[:8]}.jpg"]
    height, width, _ = cv2.imread(str(tmp_path / names[0])).shape
    assert (height, width) == (420, 3 * 350)


def test_labels_are_painted_in_their_colours_and_background_is_left(two_labels: Params) -> None:
    photo = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[0, 0] = 3  # too small for its name to stand on it

    painted = paint(photo, mask, two_labels, opacity=1)

    assert painted[0, 0].tolist() == [0x1F, 0x77, 0xB4]
    np.testing.assert_array_equal(painted[1:], photo[1:])


def test_the_confusion_matrix_becomes_a_picture(tmp_path: Path) -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1]]), np.array([[0, 0]]))

    draw_confusion(confusion, ["background", "coat", "dress"], tmp_path / "confusion.png")

    assert cv2.imread(str(tmp_path / "confusion.png")) is not None
