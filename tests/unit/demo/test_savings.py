"""What masks saved in a round: means of pairs, their interval, and the picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.demo.labelers import correct, seconds_by_hand
from pipelines.demo.savings import PhotoTime, Saving, draw_savings, saving_of
from pipelines.params import IGNORE, Params


def test_a_round_without_masks_saves_nothing_that_could_be_told() -> None:
    saving = saving_of([PhotoTime(90, 90, False), PhotoTime(70, 70, False)])
    assert saving == Saving(0, None, None, None, 80, 80)
    assert str(saving) == "no photo had masks; each took 80 s"


def test_photos_that_were_drawn_blind_are_in_the_seconds_alone() -> None:
    times = [PhotoTime(30, 90, True), PhotoTime(60, 90, True), PhotoTime(120, 90, True), PhotoTime(90, 90, False)]
    saving = saving_of(times)
    assert (saving.photos, saving.minutes, saving.seconds, saving.by_hand) == (3, pytest.approx(1 / 3), 75, 90)
    assert saving.low is not None
    assert saving.high is not None
    assert saving.low < 0 < saving.high, "one photo cost time"
    assert saving_of(times[::-1]) == saving
    assert str(saving) == f"masks saved 0.33 min per photo (95 %: {saving.low:.2f} … {saving.high:.2f}) on 3 photos"


def test_two_photos_have_no_interval() -> None:
    saving = saving_of([PhotoTime(30, 90, True), PhotoTime(60, 90, True)])
    assert (saving.minutes, saving.low, saving.high) == (0.75, None, None)
    assert str(saving) == "masks saved 0.75 min per photo on 2 photos"


def test_a_round_of_no_photos_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photo"):
        saving_of([])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator, held = np.random.default_rng(7), 0
    for _ in range(400):
        saved = generator.gamma(4, 15, 24)  # seconds, 60 on average
        saving = saving_of([PhotoTime(120 - one, 120, True) for one in saved])
        assert saving.low is not None
        assert saving.high is not None
        held += saving.low <= 1 <= saving.high
    assert 0.91 <= held / 400 <= 0.985


def test_drawing_by_hand_takes_what_a_photo_without_masks_takes(two_labels: Params) -> None:
    truth = np.zeros((30, 20), np.uint8)
    assert seconds_by_hand(truth, two_labels) == correct([], truth, two_labels)[1]
    truth[:9], truth[9:12], truth[20:] = 3, 7, IGNORE
    assert seconds_by_hand(truth, two_labels) == correct([], truth, two_labels)[1]


def test_the_picture_is_drawn_with_and_without_masks(tmp_path: Path) -> None:
    first = Saving(0, None, None, None, 94, 94)
    second = Saving(40, 0.6, 0.5, 0.7, 50, 92)
    third = Saving(2, 0.8, None, None, 40, 92)
    for rounds in ([(20, 0.4, first)], [(20, 0.4, first), (40, 0.6, second), (60, 0.7, third)]):
        draw_savings(rounds, tmp_path / "demo" / "curve.png")
        with Image.open(tmp_path / "demo" / "curve.png") as picture:
            assert picture.size == (1080, 408)
