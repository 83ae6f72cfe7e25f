"""Outlines through border pixels, filled as ultralytics and others fill polygons."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from pipelines.exchange.outlines import border, borders
from pipelines.settings import PROJECT_ROOT

REAL_MASKS = PROJECT_ROOT.parent / "shared" / "data" / "ccp" / "masks"


def filled(rings: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Fill rings one by one: holes of one may hold another."""
    mask = np.zeros(shape, np.uint8)
    for ring in rings:
        cv2.fillPoly(mask, [ring.astype(np.int32)], 1)
    return mask.astype(bool)


def ring_with_holes() -> np.ndarray:
    """A (20, 30) part with a hole at its edge, one behind another, and an island in one of them."""
    mask = np.ones((20, 30), bool)
    mask[2:18, 3:9] = mask[5:9, 11:20] = mask[10:17, 12:28] = False
    mask[12:15, 15:20] = True
    return mask


@settings(max_examples=400)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_any_mask_is_its_borders_filled(mask: np.ndarray) -> None:
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    rings = borders(mask)
    assert len(rings) == count - 1
    for ring in rings:
        assert len(ring) >= 3, "two pairs of numbers are a box to YOLO"
        x, y = ring[0]
        np.testing.assert_array_equal(filled([ring], mask.shape), parts == parts[y, x])


@given(size=st.integers(1, 9))
def test_small_shapes_have_three_corners(size: int) -> None:
    for mask in (np.ones((1, size), bool), np.ones((size, 1), bool), np.eye(size, dtype=bool)):
        assert len(border(mask)) >= 3
        np.testing.assert_array_equal(filled([border(mask)], mask.shape), mask)


def test_holes_are_cut_within_the_mask() -> None:
    mask = ring_with_holes()
    np.testing.assert_array_equal(filled(borders(mask), mask.shape), mask)


def test_an_empty_mask_has_no_border() -> None:
    assert borders(np.zeros((3, 3), bool)) == []


def test_parts_are_joined_by_the_shortest_lines() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:30, 2:20] = mask[10:35, 24:40] = mask[3:9, 45:58] = True
    mask[12:20, 6:12] = False
    drawn = filled([border(mask)], mask.shape)
    assert drawn[mask].all()
    assert np.count_nonzero(drawn & ~mask) <= 4 + 6


@pytest.mark.skipif(not REAL_MASKS.exists(), reason="without real masks")
def test_real_masks_come_back_to_the_pixel() -> None:
    paths = sorted(Path(REAL_MASKS).iterdir())[::100]
    for path in paths:
        labels = np.asarray(Image.open(path))
        for label in np.unique(labels[labels > 0]):
            mask = labels == label
            np.testing.assert_array_equal(filled(borders(mask), mask.shape), mask)
