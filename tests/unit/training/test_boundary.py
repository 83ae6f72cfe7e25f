"""Outlines, against slow implementations of scipy, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pipelines.params import IGNORE
from pipelines.training.boundary import BAND, TOLERANCE, boundary_f, boundary_iou, count_bands, count_edges

CROSS, SQUARE = ndimage.generate_binary_structure(2, 1), np.ones((3, 3), bool)


def square(size: int, at: int, length: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[at : at + length, at : at + length] = value
    return mask


def blobs(random: np.random.Generator, shape: tuple[int, int], classes: int, ignore: float) -> np.ndarray:
    """A map of smooth regions, some of which reach the edge of the photo; a share of it is ignored."""
    heights = [ndimage.gaussian_filter(random.normal(size=shape), min(shape) / 9) for _ in range(classes)]
    mask = np.argmax(heights, axis=0).astype(np.uint8)
    unknown = ndimage.gaussian_filter(random.normal(size=shape), min(shape) / 12)
    return np.where(unknown > np.quantile(unknown, 1 - ignore), IGNORE, mask).astype(np.uint8) if ignore else mask


def slow_edges(predicted: np.ndarray, truth: np.ndarray, channel: int) -> list[int]:
    """After Csurka et al.: a boundary pixel has a 4-neighbour outside; distances are Euclidean ones between pixels."""
    known = truth != IGNORE
    edges = []
    for mask in ((predicted == channel) & known, (truth == channel) & known):
        edges.append(mask & ~ndimage.binary_erosion(mask | ~known, CROSS, border_value=1))
    reach = max(1.0, TOLERANCE * math.hypot(*truth.shape))
    counts = []
    for edge, other in (edges, edges[::-1]):
        far = ndimage.distance_transform_edt(~other) if other.any() else np.full(other.shape, np.inf)
        counts += [int(edge.sum()), int((edge & (far <= reach)).sum())]
    return counts


def slow_bands(predicted: np.ndarray, truth: np.ndarray, channel: int) -> list[int]:
    """After the code of Cheng et al.: a mask less itself eroded d times, with nothing beyond the photo."""
    known = truth != IGNORE
    times = max(1, round(BAND * math.hypot(*truth.shape)))
    bands = []
    for mask in ((predicted == channel) & known, (truth == channel) & known):
        bands.append(mask & ~ndimage.binary_erosion(mask | ~known, SQUARE, iterations=times, border_value=0))
    predicted_band, true_band = bands
    return [int((predicted_band & true_band).sum()), int(true_band.sum()), int(predicted_band.sum())]


@pytest.mark.parametrize("ignore", [0, 0.2])
@pytest.mark.parametrize("shape", [(130, 90), (60, 210), (17, 13)])
def test_both_measures_are_those_of_slow_implementations(shape: tuple[int, int], ignore: float) -> None:
    random = np.random.default_rng(sum(shape))
    for _ in range(5):
        truth, predicted = blobs(random, shape, 4, ignore), blobs(random, shape, 5, 0)
        predicted[: shape[0] // 2] = np.where(truth == IGNORE, 3, truth)[: shape[0] // 2]

        edges, bands = count_edges(predicted, truth, 6), count_bands(predicted, truth, 6)

        for channel in range(6):
            assert edges[channel].tolist() == slow_edges(predicted, truth, channel)
            assert bands[channel].tolist() == slow_bands(predicted, truth, channel)


pairs = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, IGNORE])),
    )
)


@given(pairs)
@settings(max_examples=300)
def test_so_they_are_on_the_smallest_and_raggedest_masks(pair: tuple[np.ndarray, np.ndarray]) -> None:
    edges, bands = count_edges(*pair, 3), count_bands(*pair, 3)

    for channel in range(3):
        assert edges[channel].tolist() == slow_edges(*pair, channel)
        assert bands[channel].tolist() == slow_bands(*pair, channel)


def test_an_outline_within_reach_is_right_and_one_beyond_is_not() -> None:
    truth = square(400, 100, 150)  # 0.75 % of the diagonal are 4.2 pixels
    scores = [boundary_f(count_edges(square(400, 100 + shift, 150), truth, 2))[1] for shift in (0, 2, 9)]

    assert scores[0] == scores[1] == 1
    assert 0 < scores[2] < 0.2, "a square that moved still crosses the true outline twice"


def test_edges_worked_out_by_hand() -> None:
    counts = count_edges(square(60, 10, 5), square(60, 10, 5) | square(60, 40, 3), 2)

    assert counts[1].tolist() == [16, 16, 16 + 8, 16]
    assert boundary_f(counts)[1] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))


def test_bands_worked_out_by_hand() -> None:
    truth, predicted = square(100, 0, 40), square(100, 0, 40)  # 2 % of the diagonal are 3 pixels
    predicted[:40, 36:40] = 0

    both, true, predicted_band = count_bands(predicted, truth, 2)[1]

    assert true == 40 * 40 - 34 * 34, "the photo cuts the square off at two edges"
    assert predicted_band == 40 * 36 - 34 * 30
    assert both == predicted_band - 34 * 3, "the band along the edge that moved lies inside of the true one"
    assert boundary_iou(np.array([both, true, predicted_band])) == pytest.approx(both / (true + predicted_band - both))


def test_an_outline_that_only_truth_or_prediction_has() -> None:
    nothing = np.zeros((40, 40), np.uint8)

    assert boundary_f(count_edges(nothing, square(40, 5, 9), 2)).tolist() == [0, 0]
    assert boundary_f(count_edges(square(40, 5, 9), nothing, 2)).tolist() == [0, 0]
    assert np.isnan(boundary_f(count_edges(nothing, nothing, 2))).all()
    assert boundary_iou(count_bands(square(40, 5, 9), nothing, 2))[1] == 0


def test_the_edge_of_the_photo_is_no_outline() -> None:
    assert count_edges(np.ones((30, 30), np.uint8), np.ones((30, 30), np.uint8), 2)[1].tolist() == [0, 0, 0, 0]


def test_what_is_ignored_changes_nothing_and_has_no_outline() -> None:
    truth = square(60, 10, 30)
    truth[20:50, 25:60] = IGNORE
    predicted = np.where(truth == IGNORE, 0, truth)
    other = np.where(truth == IGNORE, 1, truth)

    for count in (count_edges, count_bands):
        np.testing.assert_array_equal(count(predicted, truth, 2), count(other, truth, 2))
    assert boundary_f(count_edges(other, truth, 2)).tolist() == [1, 1]
    assert boundary_iou(count_bands(other, truth, 2)).tolist() == [1, 1]
