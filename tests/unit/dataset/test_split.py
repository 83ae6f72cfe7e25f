"""The split: no photo ever moves, groups stay together, and the shares come out."""

from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.split import side_of, split_photos
from pipelines.params import SplitParams

PARAMS = SplitParams(group_by=("collection",), test_share=0.2, val_share=0.1, salt="maskloop")


def manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([{"sha256": f"photo-{place}", **row} for place, row in enumerate(rows)])


def sides(table: pd.DataFrame, params: SplitParams = PARAMS) -> dict[str, str]:
    return dict(split_photos(table, params)[["sha256", "split"]].itertuples(index=False))


@pytest.fixture
def photos_of_five_collections() -> pd.DataFrame:
    return manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])


@given(shown=st.sets(st.integers(0, 39), min_size=1))
def test_a_photo_keeps_its_side_whatever_others_there_are(shown: set[int]) -> None:
    everything = manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])
    some = everything.iloc[sorted(shown)]
    assert sides(some).items() <= sides(everything).items()


def test_photos_of_a_group_share_a_side(photos_of_five_collections: pd.DataFrame) -> None:
    found = split_photos(photos_of_five_collections, PARAMS)
    assert (found.groupby("group")["split"].nunique() == 1).all()
    assert found["group"].nunique() == 5


@given(salt=st.text(max_size=8), test=st.floats(0.05, 0.5), val=st.floats(0, 0.4))
def test_shares_come_out_over_many_groups(salt: str, test: float, val: float) -> None:
    params = SplitParams(group_by=(), test_share=test, val_share=val, salt=salt)
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
    assert list(split_photos(table, PARAMS)["group"]) == ["photo-0", "photo-1", "Autumn"]


def test_a_column_that_the_catalogue_lacks_groups_nothing() -> None:
    assert list(split_photos(manifest([{}, {}]), PARAMS)["group"]) == ["photo-0", "photo-1"]


def test_several_columns_make_one_group() -> None:
    params = PARAMS.model_copy(update={"group_by": ("collection", "year")})
    table = manifest([{"meta_collection": "Autumn", "meta_year": "1999"}, {"meta_collection": "Autumn"}])
    assert list(split_photos(table, params)["group"]) == ["Autumn / 1999", "photo-1"]
