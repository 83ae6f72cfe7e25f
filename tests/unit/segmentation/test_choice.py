"""Who answers which kind of prompts, before and after it was measured."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pipelines.records import PhotoAddress
from pipelines.segmentation.choice import ChosenSegmenter, kind_of, parse_answers
from pipelines.segmentation.interactive import GrabCutSegmenter
from pipelines.segmentation.prompts import Prompts

PHOTO = PhotoAddress("gs://a/b.jpg", 1)
NO_POINTS = np.zeros((0, 2), np.float32), np.zeros(0, bool)
POINT = np.array([[5, 5]], np.float32), np.array([True])
BOX = np.array([2, 2, 8, 8], np.float32)


@dataclass
class Named:
    """A segmenter whose masks say who made them."""

    version: str
    number: int
    ready: bool = True
    height: int = 10
    width: int = 10
    prepared: int = 0

    def set_image(self, address: PhotoAddress, open_photo: Any, *, use_prior: bool = False) -> "Named":
        self.prepared += 1
        return self

    def is_ready(self, address: PhotoAddress) -> bool:
        return self.ready

    def warm_up(self) -> None:
        """Nothing to load."""

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        return np.zeros((10, 10), bool), float(self.number)


def opened() -> Any:
    return nullcontext(np.zeros((10, 10, 3), np.uint8))


def answered_by(segmenter: ChosenSegmenter, prompts: Prompts) -> float:
    return segmenter.set_image(PHOTO, opened).predict(prompts)[1]


@pytest.mark.parametrize(
    ("prompts", "kind"),
    [
        (Prompts(*POINT, None, "coat"), "point"),
        (Prompts(*NO_POINTS, BOX, "coat"), "box"),
        (Prompts(*POINT, None, "coat", np.ones((10, 10), bool)), "edit"),
        (Prompts(*NO_POINTS, BOX, "coat", np.ones((10, 10), bool), redraws=True), "box"),
    ],
)
def test_kinds_of_prompts(prompts: Prompts, kind: str) -> None:
    assert kind_of(prompts) == kind


def test_before_anything_is_learned_grabcut_answers() -> None:
    segmenter = ChosenSegmenter(GrabCutSegmenter(), lambda: None, lambda: None, lambda: None, dict)

    assert segmenter.version == "grabcut"
    assert segmenter.by_kind == {"point": "grabcut", "box": "grabcut", "edit": "grabcut"}


def test_what_is_loaded_later_answers_from_then_on() -> None:
    loaded: list[Named] = []
    segmenter = ChosenSegmenter(
        GrabCutSegmenter(), lambda: loaded[0] if loaded else None, lambda: None, lambda: None, dict
    )
    assert segmenter.version == "grabcut"

    loaded.append(Named("clicks:v1", 1))

    assert segmenter.version == "clicks:v1"


def test_each_kind_of_prompts_is_answered_by_the_one_that_was_measured_best() -> None:
    measured = {"point": "clicks", "box": "sam", "edit": "clicks"}
    clicks, sam = Named("clicks:v2", 2), Named("sam:vit_b", 3)
    segmenter = ChosenSegmenter(GrabCutSegmenter(), lambda: clicks, lambda: sam, lambda: None, lambda: measured)

    assert answered_by(segmenter, Prompts(*POINT, None, "coat")) == 2
    assert answered_by(segmenter, Prompts(*NO_POINTS, BOX, "coat")) == 3
    assert answered_by(segmenter, Prompts(*POINT, None, "coat", np.ones((10, 10), bool))) == 2
    assert segmenter.version == "clicks:v2+sam:vit_b"


def test_what_was_measured_and_is_gone_is_replaced() -> None:
    clicks = Named("clicks:v2", 2)
    segmenter = ChosenSegmenter(GrabCutSegmenter(), lambda: clicks, lambda: None, lambda: None, lambda: {"box": "sam"})

    assert segmenter.by_kind["box"] == "clicks:v2"


@pytest.mark.parametrize(("loaded", "version"), [(True, "sam:vit_b+tuned"), (False, "sam:vit_b")])
def test_a_tuned_decoder_answers_where_it_was_measured_best_and_without_it_plain_sam(
    loaded: bool, version: str
) -> None:
    clicks, sam, tuned = Named("clicks:v2", 2), Named("sam:vit_b", 3), Named("sam:vit_b+tuned", 4)
    measured = {"point": "tuned_sam", "box": "clicks"}
    segmenter = ChosenSegmenter(
        GrabCutSegmenter(), lambda: clicks, lambda: sam, lambda: tuned if loaded else None, lambda: measured
    )

    assert segmenter.by_kind == {"point": version, "box": "clicks:v2", "edit": "sam:vit_b"}


def test_a_photo_is_ready_when_all_who_may_be_asked_have_it() -> None:
    clicks, sam = Named("clicks:v2", 2), Named("sam:vit_b", 3, ready=False)
    segmenter = ChosenSegmenter(
        GrabCutSegmenter(), lambda: clicks, lambda: sam, lambda: None, lambda: {"point": "clicks"}
    )

    assert not segmenter.is_ready(PHOTO)
    segmenter.prepare(PHOTO, opened)
    assert (clicks.prepared, sam.prepared) == (1, 1)
    sam.ready = True
    assert segmenter.is_ready(PHOTO)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"point": "somebody", "else": "sam"}'])
def test_answers_that_cannot_be_read_are_none(text: str) -> None:
    assert parse_answers(text) == {}


def test_answers_are_read_by_kind() -> None:
    answers = {"point": "clicks", "box": "sam", "edit": "tuned_sam"}
    assert parse_answers(json.dumps(answers)) == answers
