"""GrabCut as an interactive segmenter."""

from contextlib import nullcontext

import numpy as np

from pipelines.records import PhotoAddress
from pipelines.segmentation.interactive import GrabCutSegmenter
from pipelines.segmentation.prompts import Prompts


def test_grabcut_answers_behind_the_same_interface() -> None:
    photo = np.full((60, 50, 3), 120, np.uint8)
    photo[20:40, 15:35] = 200, 30, 30
    box = Prompts(np.zeros((0, 2), np.float32), np.zeros(0, bool), np.array([10, 15, 40, 45], np.float32), "coat")

    segmenter, address = GrabCutSegmenter(), PhotoAddress("gs://a/b.jpg", 1)

    assert not segmenter.is_ready(address)
    mask, score = segmenter.set_image(address, lambda: nullcontext(photo)).predict(box)

    np.testing.assert_array_equal(mask, photo[..., 0] == 200)
    assert score > 0.5
    assert segmenter.is_ready(address)


def test_grabcut_reads_a_photo_and_asks_the_champion_once_and_keeps_the_last_ones() -> None:
    asked: list[str] = []
    segmenter = GrabCutSegmenter(lambda address: asked.append(address.uri) or {}, max_items=2)
    photo = np.zeros((4, 4, 3), np.uint8)

    for name in ("a", "b", "a", "c", "a", "b"):
        segmenter.set_image(PhotoAddress(name, 1), lambda: nullcontext(photo), use_prior=True)

    assert asked == ["a", "b", "c", "b"]


def test_the_prior_is_left_out_unless_it_is_asked_for() -> None:
    coat = {"coat": np.full((4, 4), 255, np.uint8)}
    segmenter, address = GrabCutSegmenter(lambda address: coat), PhotoAddress("a", 1)
    photo = np.zeros((4, 4, 3), np.uint8)

    with_prior = segmenter.set_image(address, lambda: nullcontext(photo), use_prior=True)

    assert with_prior.prior == coat
    assert segmenter.set_image(address, lambda: nullcontext(photo)).prior == {}
