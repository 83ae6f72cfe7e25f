"""Pre-processing and its inverse: against plain references that take no short cuts."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.segmentation.transforms import (
    classes_at_size,
    fitting_area,
    mask_at_photo_size,
    mask_size,
    normalize,
    resize_image,
    resize_mask,
)


def probabilities(channels: int, seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    """Smooth softmax planes, some classes so improbable that they win nowhere."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (channels, height, width)) - rng.uniform(0, 8, (channels, 1, 1))
    shares = np.exp(logits)
    return (shares / shares.sum(0)).astype(np.float32)


def enlarge_everything(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes])


@given(st.integers(1, 20), st.integers(0, 999), st.integers(1, 40), st.integers(1, 40))
def test_skipping_classes_that_cannot_win_changes_nothing(channels: int, seed: int, height: int, width: int) -> None:
    planes = probabilities(channels, seed)
    everything = enlarge_everything(planes, height, width)

    channel, confidence = classes_at_size(planes, height, width)

    np.testing.assert_array_equal(channel, everything.argmax(0))
    np.testing.assert_array_equal(confidence, everything.max(0))


def test_the_answer_has_the_size_and_types_of_index_masks() -> None:
    channel, confidence = classes_at_size(probabilities(3, 0), 17, 11)

    assert (channel.shape, channel.dtype) == ((17, 11), np.uint8)
    assert (confidence.shape, confidence.dtype) == ((17, 11), np.float32)


def test_a_tie_goes_to_background() -> None:
    channel, confidence = classes_at_size(np.full((4, 2, 2), 0.25, np.float32), 2, 2)

    assert not channel.any()
    assert (confidence == 0.25).all()


def test_normalising_is_per_channel_and_channels_first() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0], image[..., 2] = 255, 51

    values = normalize(image, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 0.1))

    assert (values.shape, values.dtype, values.flags["C_CONTIGUOUS"]) == ((3, 2, 3), np.float32, True)
    np.testing.assert_allclose(values[:, 0, 0], [1.0, -0.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (40, 50), (9, 13)])
def test_resized_masks_hold_only_values_of_the_mask(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 3, 254], np.uint8), (9, 13))

    resized = resize_mask(mask, *size)

    assert resized.shape == size
    assert set(np.unique(resized)) <= {0, 3, 254}


@pytest.mark.parametrize("size", [(4, 5), (40, 50)])
def test_resizing_keeps_an_even_colour(size: tuple[int, int]) -> None:
    image = np.full((9, 13, 3), (10, 200, 30), np.uint8)

    assert (resize_image(image, *size) == (10, 200, 30)).all()


def test_photo_and_mask_stay_aligned() -> None:
    mask = np.zeros((64, 48), np.uint8)
    mask[:32, 24:] = 7
    photo = np.repeat(mask[..., None] * 36, 3, axis=2)

    small_photo, small_mask = resize_image(photo, 16, 12), resize_mask(mask, 16, 12)

    np.testing.assert_array_equal(small_photo[..., 0] > 126, small_mask == 7)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_size_of_masks_never_exceeds_sixteen_megapixels(height: int, width: int) -> None:
    size = mask_size(height, width)

    assert size[0] * size[1] <= 16_000_000 or min(height, width) == 1
    assert size == (height, width) or height * width > 16_000_000


def test_a_mask_of_a_large_photo_has_the_photos_size() -> None:
    likelihood = np.zeros((10, 10), np.float32)
    likelihood[5:] = 1

    mask = mask_at_photo_size(likelihood, 0.5, 5000, 4000)

    assert (mask.shape, mask.dtype) == ((5000, 4000), bool)
    assert not mask[:2400].any()
    assert mask[2600:].all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([(480, 320), (32, 32), (320, 480)]))
def test_the_area_of_a_photo_lies_in_the_middle_and_touches_two_edges(
    height: int, width: int, size: tuple[int, int]
) -> None:
    area = fitting_area(height, width, *size)

    assert (area.height, area.width) <= size
    assert area.height == size[0] or area.width == size[1]
    assert 0 <= size[0] - area.height - 2 * area.top <= 1
    assert 0 <= size[1] - area.width - 2 * area.left <= 1
    assert area.height == max(1, area.height) == pytest.approx(area.width * height / width, abs=1 + height / width)


def test_a_photo_of_the_inputs_aspect_ratio_fills_it() -> None:
    area = fitting_area(960, 640, 480, 320)

    assert (area.top, area.left, area.height, area.width) == (0, 0, 480, 320)
    assert area.inside == (slice(0, 480), slice(0, 320))
