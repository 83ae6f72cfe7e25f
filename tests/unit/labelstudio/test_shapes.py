"""Outlines to pixels: a pixel belongs to a shape when its centre does."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.labelstudio.shapes import ellipse_mask, fill, polygon_mask, rectangle_mask

HEIGHT, WIDTH = 30, 40


def centres() -> np.ndarray:
    """(HEIGHT * WIDTH, 2) as x, y."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.column_stack([x.ravel(), y.ravel()])


@given(
    points=st.lists(
        st.tuples(st.floats(-20, 60, allow_subnormal=False), st.floats(-20, 50, allow_subnormal=False)),
        min_size=3, max_size=3,
    )
)  # fmt: skip
def test_a_triangle_holds_the_pixels_whose_centres_it_holds(points: list[tuple[float, float]]) -> None:
    outline = np.array(points)
    ahead = np.roll(outline, -1, axis=0) - outline
    offsets = centres()[:, np.newaxis] - outline
    sides = ahead[:, 0] * offsets[..., 1] - ahead[:, 1] * offsets[..., 0]  # (pixels, 3): left or right of each edge
    told = (np.abs(sides) > 1e-6).all(axis=1)  # where a centre lies on an edge, both answers are right
    inside = (sides > 0).all(axis=1) | (sides < 0).all(axis=1)
    np.testing.assert_array_equal(fill(outline, HEIGHT, WIDTH).ravel()[told], inside[told])


def test_neighbours_share_an_edge_without_gap_or_overlap() -> None:
    corners = np.array([[3.2, 1.7], [33.8, 4.1], [30.5, 27.9], [5.5, 22.2]])
    middle = np.array([17.3, 12.9])
    parts = [fill(np.array([corners[n], corners[(n + 1) % 4], middle]), HEIGHT, WIDTH) for n in range(4)]
    np.testing.assert_array_equal(sum(part.astype(int) for part in parts), fill(corners, HEIGHT, WIDTH).astype(int))


def test_an_outline_within_an_outline_is_a_hole() -> None:
    outer, inner = [[0, 0], [40, 0], [40, 30], [0, 30], [0, 0]], [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    mask = fill(np.array([*outer, *inner], float), HEIGHT, WIDTH)
    assert mask.sum() == HEIGHT * WIDTH - 100
    assert not mask[10:20, 10:20].any()


def test_a_shape_beyond_the_photo_is_cut_off() -> None:
    assert polygon_mask({"points": [[-50, -50], [150, -50], [150, 150], [-50, 150]]}, HEIGHT, WIDTH).all()
    assert not polygon_mask({"points": [[110, 0], [150, 0], [150, 90]]}, HEIGHT, WIDTH).any()


def test_a_rectangle_turns_clockwise_around_its_first_corner() -> None:
    value = {"x": 50, "y": 50, "width": 25, "height": 10, "rotation": 90}  # 10 × 3 pixels at (20, 15)
    mask = rectangle_mask(value, HEIGHT, WIDTH)
    assert mask[15:25, 17:20].all()
    assert mask.sum() == 30


@pytest.mark.parametrize("rotation", [0, 30, 90, 200])
def test_an_ellipse_turns_around_its_centre(rotation: float) -> None:
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": rotation}  # 10 and 6 pixels
    mask = ellipse_mask(value, HEIGHT, WIDTH)
    rows, columns = np.nonzero(mask)
    assert mask.sum() == pytest.approx(math.pi * 10 * 6, rel=0.03)
    assert (rows.mean(), columns.mean()) == pytest.approx((14.5, 19.5), abs=0.01)
    along = np.cov(np.stack([columns, rows]))
    main = np.linalg.eigh(along)[1][:, 1]
    expected = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    assert abs(float(main @ expected)) == pytest.approx(1, abs=0.01)
