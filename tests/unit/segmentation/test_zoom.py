"""Windows show what they are asked to show, lie in the photo, and are shared by clicks on one garment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.segmentation.transforms import Area
from pipelines.segmentation.zoom import rectangle_of, whole, window_around

ASPECT = 1.5


@given(
    st.integers(8, 3000), st.integers(8, 3000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.sampled_from([0.5, 1.0, 1.5]),
)  # fmt: skip
def test_a_window_holds_what_it_shows(
    height: int, width: int, x: float, y: float, across: float, down: float, aspect: float
) -> None:
    x1, y1 = x * (width - 1), y * (height - 1)
    x2, y2 = x1 + 1 + across * (width - 1 - x1), y1 + 1 + down * (height - 1 - y1)

    window = window_around((x1, y1, x2, y2), height, width, aspect)

    assert 0 <= window.left <= x1
    assert 0 <= window.top <= y1
    assert x2 <= window.left + window.width <= width
    assert y2 <= window.top + window.height <= height


def test_a_small_garment_fills_its_window() -> None:
    window = window_around((200, 700, 240, 760), 830, 550, ASPECT)

    assert 1.3 < window.height / 60 < 2.8
    assert window.height / window.width == pytest.approx(ASPECT, abs=0.05)


def test_what_fills_the_photo_is_seen_in_the_whole_of_it() -> None:
    assert window_around((60, 40, 480, 800), 830, 550, ASPECT) == whole(830, 550)


def test_windows_are_never_smaller_than_an_eighth_of_the_photo() -> None:
    assert window_around((300, 300, 301, 301), 830, 550, ASPECT).height >= 830 / 8.1


def test_clicks_that_move_a_mask_a_little_share_a_window() -> None:
    windows = {window_around((200 + d, 200 - d, 300 + d, 350), 830, 550, ASPECT) for d in (0, 1, 2, 3)}

    assert len(windows) <= 2


def test_a_rectangle_holds_mask_and_points() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:6, 7:9] = True

    assert rectangle_of(mask, [(12.0, 1.0)]) == (7, 1, 13, 6)
    assert rectangle_of(None, [(12.0, 1.0)]) == (12, 1, 13, 2)
    assert rectangle_of(np.zeros((2, 2), bool), []) is None


def test_a_window_selects_rows_and_columns() -> None:
    assert Area(2, 3, 4, 5).inside == (slice(2, 6), slice(3, 8))
