"""Heads on the features of an encoder: no photo is judged by one that learned from it or from its family."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.params import IGNORE, Params
from pipelines.quality import folds
from pipelines.quality.folds import (
    ENCODERS,
    Features,
    Read,
    assign_folds,
    predict_out_of_fold,
    probabilities,
    train_head,
)

COAT, DRESS = 3, 7
LABELS = {"coat": COAT, "hat": 5, "dress": DRESS}


@given(
    families=st.dictionaries(st.integers(0, 200).map(str), st.sampled_from("abcdefghij"), min_size=1, max_size=60),
    count=st.integers(1, 5),
)
def test_a_family_shares_a_fold_and_folds_are_about_as_large(families: dict[str, str], count: int) -> None:
    fold_of = assign_folds(families, count)

    assert set(fold_of) == set(families)
    assert set(fold_of.values()) <= set(range(count))
    assert len({(families[photo], fold) for photo, fold in fold_of.items()}) == len(set(families.values()))
    sizes = Counter(fold_of.values())
    largest = max(Counter(families.values()).values())
    assert max(sizes.values()) - min(sizes[fold] for fold in range(count)) <= largest


def test_folds_do_not_depend_on_the_order_of_photos() -> None:
    families = {str(number): f"family {number // 3}" for number in range(30)}
    assert assign_folds(families, 3) == assign_folds(dict(reversed(families.items())), 3)


def photo(name: str) -> np.ndarray:
    """A photo that is red at the top and blue below, with noise of its own."""
    pixels = np.random.default_rng(int(name)).integers(0, 60, (90, 60, 3)).astype(np.uint8)
    pixels[:45, :, 0] += 180
    pixels[45:, :, 2] += 180
    return pixels


def mask(name: str) -> np.ndarray:
    """A coat where a photo is red and a dress where it is blue."""
    drawn = np.full((90, 60), COAT, np.uint8)
    drawn[45:] = DRESS
    return drawn


def features_of(folder: Path, read_photo: Read, params: Params) -> Features:
    return Features(folder, read_photo, params.train, ENCODERS[0])


@pytest.fixture
def features(tmp_path: Path, params: Params) -> Features:
    return features_of(tmp_path, photo, params)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "_STEPS", 4)
    monkeypatch.setattr(folds, "_BATCH", 4)


class TestFeatures:
    def test_they_are_computed_once(self, tmp_path: Path, params: Params) -> None:
        read = []

        def reading(name: str) -> np.ndarray:
            read.append(name)
            return photo(name)

        first = features_of(tmp_path, reading, params).of("1")
        again = features_of(tmp_path, reading, params).of("1")

        assert read == ["1"]
        for stage, stage_again in zip(first, again, strict=True):
            assert stage.dtype == np.float16
            np.testing.assert_array_equal(stage, stage_again)

    def test_they_are_the_encoders_own_and_no_training_changes_them(self, features: Features, few_steps: None) -> None:
        before = [stage.copy() for stage in features.of("1")]
        train_head(["1", "2"], features, {"1": mask("1"), "2": mask("2")}, [COAT, DRESS], seed=0)
        for stage, stage_again in zip(before, features.of("1"), strict=True):
            np.testing.assert_array_equal(stage, stage_again)

    def test_those_of_other_photos_are_dropped(self, features: Features, tmp_path: Path) -> None:
        for name in "123":
            features.of(name)
        features.evict_all_but(["2", "4"])
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["2"]

    def test_no_more_are_kept_than_fit(
        self, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = sum(stage.nbytes for stage in features.of("1"))
        monkeypatch.setattr(folds, "_MAX_BYTES", 2 * size)
        expected = {name: features.of(name) for name in "234"}
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
        for name, stages in expected.items():
            for stage, stage_again in zip(stages, features.of(name), strict=True):
                np.testing.assert_array_equal(stage, stage_again)


class TestJudging:
    FAMILIES = {str(number): f"family {number // 2}" for number in range(8)}  # noqa: RUF012  # never changed

    def judged(self, features: Features, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        photos = predict_out_of_fold(self.FAMILIES, [features], masks.__getitem__, LABELS, 2)
        return {photo.sha256: photo.probabilities for photo in photos}

    def test_what_is_drawn_on_a_photo_says_nothing_of_what_is_seen_on_it_and_on_its_family(
        self, features: Features, few_steps: None
    ) -> None:
        masks = {name: mask(name) for name in self.FAMILIES}
        swapped = np.where(mask("2") == COAT, DRESS, COAT).astype(np.uint8)

        before, after = self.judged(features, masks), self.judged(features, {**masks, "2": swapped})

        assert set(before) == set(self.FAMILIES)
        fold = assign_folds(self.FAMILIES, 2)
        same = {name for name in before if np.array_equal(before[name], after[name])}
        assert {"2", "3"} <= same
        assert same == {name for name in self.FAMILIES if fold[name] == fold["2"]}, "others learned from it"

    def test_labels_that_nobody_drew_are_left_out(self, features: Features, few_steps: None) -> None:
        photos = list(predict_out_of_fold(self.FAMILIES, [features], mask, LABELS, 2))

        assert {tuple(photo.labels.items()) for photo in photos} == {(("coat", COAT), ("dress", DRESS))}
        for photo in photos:
            assert photo.probabilities.shape[0] == 3
            np.testing.assert_allclose(photo.probabilities.sum(axis=0), 1, rtol=1e-4)

    def test_one_family_judges_nobody(self, features: Features) -> None:
        assert list(predict_out_of_fold({"1": "a", "2": "a"}, [features], mask, LABELS, 3)) == []

    def test_the_same_photos_are_judged_alike(self, features: Features, few_steps: None) -> None:
        masks = {name: mask(name) for name in self.FAMILIES}
        before = torch.random.get_rng_state()
        first, second = self.judged(features, masks), self.judged(features, masks)
        for name in self.FAMILIES:
            np.testing.assert_array_equal(first[name], second[name])
        assert torch.equal(before, torch.random.get_rng_state()), "whoever draws numbers elsewhere is not disturbed"


def test_the_mean_of_all_encoders_counts(features: Features, few_steps: None, tmp_path: Path, params: Params) -> None:
    other = Features(tmp_path, photo, params.train, ENCODERS[1])
    families = {str(number): str(number) for number in range(4)}

    alone, too, both = (
        {judged.sha256: judged.probabilities for judged in predict_out_of_fold(families, used, mask, LABELS, 2)}
        for used in ([features], [other], [features, other])
    )

    for name in families:
        np.testing.assert_allclose(both[name], (alone[name] + too[name]) / 2, atol=1e-6)


def test_a_head_learns_what_masks_show(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "_STEPS", 60)
    monkeypatch.setattr(folds, "_BATCH", 4)
    names = [str(number) for number in range(8)]

    head = train_head(names, features, {name: mask(name) for name in names}, [COAT, DRESS], seed=0)

    seen = probabilities(head, features.of("20")).argmax(axis=0)
    assert (seen == np.repeat([1, 2], 30)[:, None]).mean() > 0.9


def test_what_nobody_could_name_is_not_learned(features: Features, few_steps: None) -> None:
    """Whatever stands below the ignored pixels, the head is the same."""
    names, hidden = ["1", "2"], np.zeros((90, 60), bool)
    hidden[60:] = True
    ignored = {name: np.where(hidden, IGNORE, mask(name)).astype(np.uint8) for name in names}
    unknown = {name: np.where(hidden, 99, mask(name)).astype(np.uint8) for name in names}

    with_ignored, with_unknown = (
        train_head(names, features, masks, [COAT, DRESS], seed=0) for masks in (ignored, unknown)
    )

    for first, second in zip(with_ignored.state_dict().values(), with_unknown.state_dict().values(), strict=True):
        assert torch.equal(first, second)
