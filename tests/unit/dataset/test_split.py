"""The split: no photo ever moves, groups stay together, and the shares come out."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.split import near_duplicates, side_of, split_photos
from pipelines.params import SplitParams

PARAMS = SplitParams(
    group_by=("collection",), test_share=0.2, val_share=0.1, salt="maskloop", near_duplicate_bits=6, min_label_photos=5
)


def manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Photos that look like no others and show nothing, unless told."""
    untold = {"phash": "", "class_ids": []}
    return pd.DataFrame([{"sha256": f"photo-{place}", **untold, **row} for place, row in enumerate(rows)])


def divide(table: pd.DataFrame, before: pd.DataFrame | None = None, params: SplitParams = PARAMS) -> pd.DataFrame:
    return split_photos(table, before, params)


def sides(table: pd.DataFrame, before: pd.DataFrame | None = None, params: SplitParams = PARAMS) -> dict[str, str]:
    return dict(divide(table, before, params)[["sha256", "split"]].itertuples(index=False))


def group_on(side: str) -> str:
    """A collection that its name alone leads to this side."""
    return next(f"{side} {n}" for n in range(1000) if side_of(f"{side} {n}", PARAMS) == side)


@pytest.fixture
def photos_of_five_collections() -> pd.DataFrame:
    return manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])


@given(shown=st.sets(st.integers(0, 39), min_size=1))
def test_a_photo_keeps_its_side_whatever_others_there_are(shown: set[int]) -> None:
    everything = manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])
    some = everything.iloc[sorted(shown)]
    assert sides(some).items() <= sides(everything).items()


def test_photos_of_a_group_share_a_side(photos_of_five_collections: pd.DataFrame) -> None:
    found = divide(photos_of_five_collections)
    assert (found.groupby("group")["split"].nunique() == 1).all()
    assert found["group"].nunique() == 5


@given(salt=st.text(max_size=8), test=st.floats(0.05, 0.5), val=st.floats(0, 0.4))
def test_shares_come_out_over_many_groups(salt: str, test: float, val: float) -> None:
    params = PARAMS.model_copy(update={"test_share": test, "val_share": val, "salt": salt})
    found = Counter(side_of(f"group {n}", params) for n in range(2000))
    for side, share in (("test", test), ("val", val), ("train", 1 - test - val)):
        assert abs(found[side] / 2000 - share) < 0.06  # more than five standard deviations


def test_sides_never_change_with_the_program() -> None:
    assert [side_of(name, PARAMS) for name in ("Autumn", "Spring", "Été", "")] == ["test", "train", "test", "test"]


def test_another_salt_gives_another_division() -> None:
    other = PARAMS.model_copy(update={"salt": "pepper"})
    assert [side_of(str(n), PARAMS) for n in range(50)] != [side_of(str(n), other) for n in range(50)]


@pytest.mark.parametrize("value", ["", "–", None, float("nan")])
def test_a_photo_without_the_group_is_its_own_group(value: Any) -> None:
    table = manifest([{"meta_collection": value}, {"meta_collection": value}, {"meta_collection": "Autumn"}])
    assert list(divide(table)["group"]) == ["photo-0", "photo-1", "Autumn"]


def test_a_column_that_the_catalogue_lacks_groups_nothing() -> None:
    assert list(divide(manifest([{}, {}]))["group"]) == ["photo-0", "photo-1"]


def test_several_columns_make_one_group() -> None:
    params = PARAMS.model_copy(update={"group_by": ("collection", "year")})
    table = manifest([{"meta_collection": "Autumn", "meta_year": "1999"}, {"meta_collection": "Autumn"}])
    assert list(divide(table, params=params)["group"]) == ["Autumn / 1999", "photo-1"]


TRAIN, VAL, TEST = group_on("train"), group_on("val"), group_on("test")
LOOK, ALIKE, OTHER = "00000000ffffffff", "10000000fffffff1", "0f0f0f0f0f0f0f0f"  # ALIKE differs from LOOK in 4 bits


def test_photos_that_look_alike_share_a_side_whatever_their_collections() -> None:
    table = manifest([{"meta_collection": TRAIN, "phash": LOOK}, {"meta_collection": TEST, "phash": ALIKE}])
    assert len(set(sides(table).values())) == 1
    table["phash"] = [LOOK, OTHER]
    assert sides(table) == {"photo-0": "train", "photo-1": "test"}


def test_the_last_version_holds_when_a_look_alike_comes_later() -> None:
    first = divide(manifest([{"meta_collection": TRAIN, "phash": LOOK}]))
    both = manifest([{"meta_collection": TRAIN, "phash": LOOK}, {"meta_collection": TEST, "phash": ALIKE}])
    assert sides(both, first) == {"photo-0": "train", "photo-1": "train"}


def test_a_photo_between_two_sides_is_on_neither_and_stays_there() -> None:
    old = [{"meta_collection": TRAIN, "phash": LOOK}, {"meta_collection": TEST, "phash": OTHER}]
    first = divide(manifest(old))
    table = manifest([*old, {"meta_collection": TEST, "phash": ALIKE}])

    second = divide(table, first)

    assert second["split"].tolist() == ["train", "test", "excluded"]
    assert sides(table, second) == sides(table, first)


@given(data=st.data())
def test_no_photo_moves_and_nothing_leaks_however_the_archive_grows(data: st.DataObject) -> None:
    looks = [LOOK, ALIKE, OTHER, "0f0f0f0f0f0f0f0e", "aaaaaaaaaaaaaaaa", ""]
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({
                "meta_collection": st.sampled_from([TRAIN, VAL, TEST, "Autumn", "–"]),
                "phash": st.sampled_from(looks), "class_ids": st.lists(st.integers(1, 3), max_size=2, unique=True),
            }),
            min_size=1, max_size=25,
        )
    )  # fmt: skip
    known: dict[str, str] = {}
    before = None
    for size in sorted(data.draw(st.sets(st.integers(1, len(rows)), min_size=1, max_size=4))):
        before = divide(manifest(rows[:size]), before)
        now = dict(before[["sha256", "split"]].itertuples(index=False))
        assert known.items() <= now.items()
        known = now
        placed = before[before["split"] != "excluded"]
        assert (placed.groupby("group")["split"].nunique() == 1).all()
        of_look = placed[placed["phash"] != ""].groupby("phash")["split"].agg(set).to_dict()
        assert all(len(on) == 1 for on in of_look.values())
        assert all(of_look[one] == of_look[other] for one, other in near_duplicates(of_look, 6))


def test_a_label_with_support_appears_in_test_and_is_still_taught() -> None:
    on_train = [f"train {n}" for n in range(1000) if side_of(f"train {n}", PARAMS) == "train"][:3]
    rows = [{"meta_collection": group, "class_ids": [9]} for group in on_train for _ in range(2)]
    found = divide(manifest(rows))
    assert set(found["split"]) == {"train", "test"}
    assert found["split"].value_counts()["test"] == 2, "one group is enough"

    assert set(divide(manifest(rows[:4]))["split"]) == {"train"}, "four photos are no support"
    one_group = divide(manifest([{"meta_collection": TRAIN, "class_ids": [9]}] * 6))
    assert set(one_group["split"]) == {"train"}, "nobody could learn it"


def test_a_label_of_old_photos_gets_its_test_photos_from_new_groups() -> None:
    on_train = [f"train {n}" for n in range(1000) if side_of(f"train {n}", PARAMS) == "train"][:2]
    old = [{"meta_collection": on_train[0], "class_ids": [9]}] * 6
    first = divide(manifest(old))
    second = divide(manifest([*old, {"meta_collection": on_train[1], "class_ids": [9]}]), first)
    assert second["split"].tolist() == ["train"] * 6 + ["test"]


def test_other_parameters_make_another_division(caplog: pytest.LogCaptureFixture) -> None:
    table = manifest([{"meta_collection": f"collection {n}"} for n in range(40)])
    first, other = divide(table), PARAMS.model_copy(update={"salt": "pepper"})
    assert sides(table, first, other) == sides(table, None, other) != sides(table, first)
    assert "divided anew" in caplog.text


def test_near_duplicates_are_found_as_by_comparing_all_with_all() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 1 << 63, 300, dtype=np.uint64)
    values[200:] = values[:100]
    for place in range(100, 300):  # near ones: up to eight bits turned
        for bit in rng.integers(0, 64, rng.integers(0, 9)):
            values[place] ^= np.uint64(1) << np.uint64(bit)
    hashes = [f"{value:016x}" for value in values.tolist()]
    distance = np.bitwise_count(values[:, None] ^ values)
    wanted = {tuple(sorted((hashes[a], hashes[b]))) for a, b in np.argwhere((distance <= 6) & (distance > 0)).tolist()}
    assert near_duplicates(["", *hashes, hashes[0]], 6) == sorted(wanted)
    assert len(wanted) > 20
