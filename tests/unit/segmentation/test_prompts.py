"""Prompts: pixels of the photo, or an error that says what to do."""

import numpy as np
import pytest

from pipelines.errors import PromptError
from pipelines.segmentation.prompts import Prompts, to_pixels

NO_POINTS = np.zeros((0, 2), np.float32)
ONE_POINT = np.array([[3, 4]], np.float32)


@pytest.mark.parametrize(("points", "positive"), [(NO_POINTS, []), (ONE_POINT, [False])])
def test_prompts_that_select_nothing_are_refused(points: np.ndarray, positive: list[bool]) -> None:
    with pytest.raises(PromptError, match="click inside the garment or draw a box"):
        Prompts(points, np.array(positive, bool), None, "coat")


def test_a_box_alone_or_a_point_alone_is_enough() -> None:
    Prompts(NO_POINTS, np.zeros(0, bool), np.array([1, 1, 5, 5], np.float32), "coat")
    Prompts(ONE_POINT, np.array([True]), None, "coat")


@pytest.mark.parametrize(
    ("percent", "pixel"), [((0, 0), (0, 0)), ((50, 50), (15, 10)), ((100, 100), (29, 19)), ((-1, 101), (0, 19))]
)
def test_percent_become_pixels(percent: tuple[float, float], pixel: tuple[float, float]) -> None:
    assert to_pixels(*percent, height=20, width=30) == pixel


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_no_place(value: float) -> None:
    with pytest.raises(PromptError, match="no place on the photo"):
        to_pixels(value, 3, height=20, width=30)
