"""The split: no photo ever moves, groups stay together, and the shares come out."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dataset.families import near_duplicates
from pipelines.dataset.split import BLIND_SPLITS, is_blind, split_of_group, split_photos, splits_of
from pipelines.params import SplitParams
from pipelines.records import ImageRef, PhotoTask

PARAMS = SplitParams(
    group_by=("collection",), test_share=0.2, val_share=0.1, salt="maskloop", near_duplicate_bits=6, min_label_photos=5
)


def manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Photos that look like no others and show nothing, unless stated."""
    defaults = {"phash": "", "class_ids": []}
    return pd.DataFrame([{"sha256": f"photo-{place}", **defaults, **row} for place, row in enumerate(rows)])


def divide(table: pd.DataFrame, before: pd.DataFrame | None = None, params: SplitParams = PARAMS) -> pd.DataFrame:
    return split_photos(table, before, params)


def splits(table: pd.DataFrame, before: pd.DataFrame | None = None, params: SplitParams = PARAMS) -> dict[str, str]:
    return dict(divide(table, before, params)[["sha256", "split"]].itertuples(index=False))


def groups_in(split: str, count: int) -> list[str]:
    """Collections whose names alone lead to this split."""
    names = (f"{split} {n}" for n in range(1000))
    return [name for name in names if split_of_group(name, PARAMS) == split][:count]


def group_in(split: str) -> str:
    """A collection whose name alone leads to this split."""
    return groups_in(split, 1)[0]


@pytest.fixture
def photos_of_five_collections() -> pd.DataFrame:
    return manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])


@given(shown=st.sets(st.integers(0, 39), min_size=1))
def test_a_photo_keeps_its_split_whatever_others_there_are(shown: set[int]) -> None:
    everything = manifest([{"meta_collection": f"collection {place % 5}"} for place in range(40)])
    some = everything.iloc[sorted(shown)]
    assert splits(some).items() <= splits(everything).items()


def test_photos_of_a_group_share_a_split(photos_of_five_collections: pd.DataFrame) -> None:
    assigned = divide(photos_of_five_collections)
    assert (assigned.groupby("group")["split"].nunique() == 1).all()
    assert assigned["group"].nunique() == 5


@given(salt=st.text(max_size=8), test=st.floats(0.05, 0.5), val=st.floats(0, 0.4))
def test_shares_come_out_over_many_groups(salt: str, test: float, val: float) -> None:
    params = PARAMS.model_copy(update={"test_share": test, "val_share": val, "salt": salt})
    counts = Counter(split_of_group(f"group {n}", params) for n in range(2000))
    for split, share in (("test", test), ("val", val), ("train", 1 - test - val)):
        assert abs(counts[split] / 2000 - share) < 0.06  # more than five standard deviations


def test_splits_never_change_with_the_program() -> None:
    assert [split_of_group(name, PARAMS) for name in ("Autumn", "Spring", "Été", "")] == [
        "test",
        "train",
        "test",
        "test",
    ]


def test_another_salt_gives_another_split() -> None:
    other = PARAMS.model_copy(update={"salt": "pepper"})
    assert [split_of_group(str(n), PARAMS) for n in range(50)] != [split_of_group(str(n), other) for n in range(50)]


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


TRAIN, VAL, TEST = group_in("train"), group_in("val"), group_in("test")
HASH, SIMILAR, OTHER = "00000000ffffffff", "10000000fffffff1", "0f0f0f0f0f0f0f0f"  # SIMILAR differs from HASH in 4 bits


def test_photos_that_look_alike_share_a_split_whatever_their_collections() -> None:
    table = manifest([{"meta_collection": TRAIN, "phash": HASH}, {"meta_collection": TEST, "phash": SIMILAR}])
    assert len(set(splits(table).values())) == 1
    table["phash"] = [HASH, OTHER]
    assert splits(table) == {"photo-0": "train", "photo-1": "test"}


def test_the_last_version_holds_when_a_look_alike_comes_later() -> None:
    first = divide(manifest([{"meta_collection": TRAIN, "phash": HASH}]))
    both = manifest([{"meta_collection": TRAIN, "phash": HASH}, {"meta_collection": TEST, "phash": SIMILAR}])
    assert splits(both, first) == {"photo-0": "train", "photo-1": "train"}


def test_a_photo_between_two_splits_is_excluded_and_stays_there() -> None:
    old = [{"meta_collection": TRAIN, "phash": HASH}, {"meta_collection": TEST, "phash": OTHER}]
    first = divide(manifest(old))
    table = manifest([*old, {"meta_collection": TEST, "phash": SIMILAR}])

    second = divide(table, first)

    assert second["split"].tolist() == ["train", "test", "excluded"]
    assert splits(table, second) == splits(table, first)


@settings(deadline=None)
@given(data=st.data())
def test_no_photo_moves_and_nothing_leaks_however_the_archive_grows(data: st.DataObject) -> None:
    hashes = [HASH, SIMILAR, OTHER, "0f0f0f0f0f0f0f0e", "aaaaaaaaaaaaaaaa", ""]
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({
                "meta_collection": st.sampled_from([TRAIN, VAL, TEST, "Autumn", "–"]),
                "phash": st.sampled_from(hashes), "class_ids": st.lists(st.integers(1, 3), max_size=2, unique=True),
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
        of_hash = placed[placed["phash"] != ""].groupby("phash")["split"].agg(set).to_dict()
        assert all(len(splits_of_hash) == 1 for splits_of_hash in of_hash.values())
        assert all(of_hash[a] == of_hash[b] for a, b in near_duplicates(of_hash, 6))


def test_a_label_with_support_appears_in_test_and_is_still_taught() -> None:
    on_train = groups_in("train", 3)
    rows = [{"meta_collection": group, "class_ids": [9]} for group in on_train for _ in range(2)]
    assigned = divide(manifest(rows))
    assert set(assigned["split"]) == {"train", "test"}
    assert assigned["split"].value_counts()["test"] == 2, "one group is enough"

    assert set(divide(manifest(rows[:4]))["split"]) == {"train"}, "four photos are no support"
    one_group = divide(manifest([{"meta_collection": TRAIN, "class_ids": [9]}] * 6))
    assert set(one_group["split"]) == {"train"}, "nobody could learn it"


def test_a_label_of_old_photos_gets_its_test_photos_from_new_groups() -> None:
    on_train = groups_in("train", 2)
    old = [{"meta_collection": on_train[0], "class_ids": [9]}] * 6
    first = divide(manifest(old))
    second = divide(manifest([*old, {"meta_collection": on_train[1], "class_ids": [9]}]), first)
    assert second["split"].tolist() == ["train"] * 6 + ["test"]


def test_other_parameters_make_another_split(caplog: pytest.LogCaptureFixture) -> None:
    table = manifest([{"meta_collection": f"collection {n}"} for n in range(40)])
    first, other = divide(table), PARAMS.model_copy(update={"salt": "pepper"})
    assert splits(table, first, other) == splits(table, None, other) != splits(table, first)
    assert "assigned anew" in caplog.text


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


# Blind splits


def shown_masks(table: pd.DataFrame, photos: set[str]) -> pd.DataFrame:
    """The table as if these photos had been drawn from a model's masks."""
    return table.assign(blind=[photo not in photos for photo in table["sha256"]])


def task_of(row: dict[str, Any]) -> PhotoTask:
    image = ImageRef("gs://archive/a.jpg", 1, row["sha256"], 4, 6, row["phash"])
    return PhotoTask(1, image, {"collection": row["meta_collection"]})


def test_a_new_family_that_was_drawn_from_masks_is_for_training() -> None:
    table = manifest([{"meta_collection": TEST}, {"meta_collection": TEST}, {"meta_collection": VAL}])
    assert set(splits(table).values()) == {"test", "val"}
    assert splits(shown_masks(table, {"photo-1"})) == {"photo-0": "train", "photo-1": "train", "photo-2": "val"}


def test_a_photo_drawn_from_masks_never_joins_a_split_that_judges() -> None:
    first = divide(manifest([{"meta_collection": TEST}]))
    table = manifest([{"meta_collection": TEST}] * 3)

    second = divide(shown_masks(table, {"photo-1"}), first)

    assert second["split"].tolist() == ["test", "excluded", "test"]
    assert splits(table, second)["photo-1"] == "excluded", "also when somebody draws it blind later"


def test_photos_of_earlier_versions_keep_the_split_they_were_published_in() -> None:
    first = divide(manifest([{"meta_collection": TEST}])).assign(prediction_version="clothing:v1")
    again = divide(first, first.drop(columns=["family", "test_full"]))
    assert again["split"].tolist() == ["test"]
    assert not is_blind(again).any()


def test_what_is_blind_is_known_as_far_back_as_versions_go() -> None:
    table = pd.DataFrame({"sha256": ["a", "b"], "prediction_version": ["", "clothing:v1"], "blind": [False, True]})
    assert is_blind(table).tolist() == [False, True]
    assert is_blind(table.drop(columns="blind")).tolist() == [True, False]
    assert is_blind(table[["sha256"]]).tolist() == [True, True]


def test_families_are_named_by_their_first_group_and_groups_without_look_alikes_by_themselves() -> None:
    rows = [
        {"meta_collection": "b", "phash": HASH},
        {"meta_collection": "a", "phash": SIMILAR},
        {"meta_collection": "c"},
    ]
    assert divide(manifest(rows))["family"].tolist() == ["a", "a", "c"]


def test_a_full_test_split_gets_no_new_families_but_keeps_its_own() -> None:
    first = divide(manifest([{"meta_collection": TEST}, {"meta_collection": VAL}]))
    assert not first["test_full"].any()
    more = [name for split in BLIND_SPLITS for name in groups_in(split, 1000)][:9]
    table = manifest([{"meta_collection": name} for name in (TEST, VAL, TEST, VAL, *sorted({*more} - {TEST, VAL}))])

    second = divide(table, first.assign(test_full=True))

    assert second["split"].tolist()[:4] == ["test", "val", "test", "val"]
    assert set(second["split"][4:]) == {"train"}
    assert second["test_full"].all()
    assert divide(table, second)["test_full"].all(), "it never grows again"
    anew = divide(table, second, PARAMS.model_copy(update={"salt": "pepper"}))
    assert not anew["test_full"].any(), "another configuration has another test split"


def test_a_label_only_sends_blind_families_to_the_test_split() -> None:
    on_train = groups_in("train", 3)
    table = manifest([{"meta_collection": group, "class_ids": [9]} for group in on_train for _ in range(2)])
    drawn_from_masks = set(table.loc[table["meta_collection"] != on_train[2], "sha256"])
    assigned = divide(shown_masks(table, drawn_from_masks))
    assert set(assigned.loc[assigned["split"] == "test", "meta_collection"]) == {on_train[2]}
    assert set(divide(shown_masks(table, set(table["sha256"])))["split"]) == {"train"}


def test_splits_that_chance_left_empty_get_the_nearest_families_once_there_are_five() -> None:
    on_train = groups_in("train", 5)
    table = manifest([{"meta_collection": group} for group in on_train])

    assigned = divide(table)

    assert Counter(assigned["split"]) == {"train": 3, "test": 1, "val": 1}
    assert divide(table.iloc[::-1])["split"].tolist() == assigned["split"].tolist()[::-1]
    assert set(divide(table.iloc[:4])["split"]) == {"train"}, "of so few none can be spared"
    chosen = assigned.loc[assigned["split"] == "test", "sha256"]
    other = divide(shown_masks(table, set(chosen)))
    assert other.loc[other["split"] == "test", "sha256"].tolist() != chosen.tolist(), "only a blind one can judge"
    assert set(divide(shown_masks(table, set(table["sha256"])))["split"]) == {"train"}
    without_val = divide(table, params=PARAMS.model_copy(update={"val_share": 0.0}))
    assert Counter(without_val["split"])["val"] == 0


def test_the_split_of_a_photo_is_known_before_anybody_draws_it() -> None:
    first = divide(manifest([{"meta_collection": TRAIN, "phash": HASH}]))
    rows = [
        {"sha256": "like-it", "meta_collection": TEST, "phash": SIMILAR}, {"sha256": "other", "meta_collection": VAL},
        {"sha256": "of no collection", "meta_collection": "–"},
    ]  # fmt: skip
    assigned = splits_of([task_of({"phash": "", **row}) for row in rows], first, PARAMS)

    assert {photo: assigned[photo] for photo in ("photo-0", "like-it", "other")} == {
        "photo-0": "train", "like-it": "train", "other": "val",
    }  # fmt: skip
    assert assigned["of no collection"] == split_of_group("of no collection", PARAMS)
    assert splits_of([], None, PARAMS) == {}


ARCHIVE = st.lists(
    st.fixed_dictionaries({
        "meta_collection": st.sampled_from([TRAIN, VAL, TEST, *(f"collection {n}" for n in range(6)), "–"]),
        "phash": st.sampled_from([HASH, SIMILAR, OTHER, "0f0f0f0f0f0f0f0e", "aaaaaaaaaaaaaaaa", *[""] * 8]),
    }),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(deadline=None)
@given(data=st.data(), rows=ARCHIVE)
def test_no_photo_whose_masks_were_shown_ever_judges_a_model(data: st.DataObject, rows: list[dict[str, Any]]) -> None:
    """People open photos in the split that they have at that time, and submit them then or much later.

    Now and then somebody sees masks that other programs put there.
    """
    labels = st.lists(st.integers(1, 3), max_size=2, unique=True)
    archive = manifest([{**row, "class_ids": data.draw(labels)} for row in rows])
    seen: dict[str, bool] = {}  # photos that somebody opened, and whether with masks
    submitted: set[str] = set()
    before, known = None, {}
    for _ in range(3):
        present = archive.iloc[: data.draw(st.integers(1, len(archive)))]
        open_now = [row for row in present.to_dict("records") if row["sha256"] not in submitted]
        splits_before = splits_of([task_of(row) for row in open_now], before, PARAMS)
        for row in open_now:
            if row["sha256"] not in seen and data.draw(st.booleans()):
                is_in_blind_split = splits_before[row["sha256"]] in BLIND_SPLITS
                seen[row["sha256"]] = not is_in_blind_split or data.draw(st.sampled_from([False, False, True]))
        submitted |= {photo for photo in sorted(seen) if data.draw(st.booleans())}
        if not submitted:
            continue
        table = archive[archive["sha256"].isin(submitted)].reset_index(drop=True)
        before = divide(shown_masks(table, {photo for photo, masks in seen.items() if masks}), before)
        if data.draw(st.booleans()):
            before = before.assign(test_full=True)
        now = dict(before[["sha256", "split"]].itertuples(index=False))
        assert known.items() <= now.items(), "no photo moves"
        known = now
        assert not [photo for photo, split_now in now.items() if split_now in BLIND_SPLITS and seen[photo]]


@settings(deadline=None)
@given(data=st.data(), rows=ARCHIVE, is_full=st.booleans())
def test_a_photo_gets_the_split_in_which_it_was_served(
    data: st.DataObject, rows: list[dict[str, Any]], is_full: bool
) -> None:
    """As long as its family stays the same; `train` photos come with masks, the others without."""
    first = [{"meta_collection": name, "sha256": f"first-{name}"} for name in (TRAIN, VAL, TEST)]
    before = divide(manifest(first)).assign(test_full=is_full)
    archive = manifest([*first, *({**row, "sha256": f"photo-{place}"} for place, row in enumerate(rows))])
    submitted = {row["sha256"] for row in first}
    masks: set[str] = set()
    for _ in range(3):
        open_now = archive[~archive["sha256"].isin(submitted)].to_dict("records")
        splits_before = splits_of([task_of(row) for row in open_now], before, PARAMS)
        new = {row["sha256"] for row in open_now if data.draw(st.booleans())}
        masks |= {photo for photo in new if splits_before[photo] not in BLIND_SPLITS}
        submitted |= new
        table = archive[archive["sha256"].isin(submitted)].reset_index(drop=True)
        before = divide(shown_masks(table, masks), before)
        of_all = families(divide(archive, before))
        of_these = families(before)
        for photo, assigned in before.loc[before["sha256"].isin(new), ["sha256", "split"]].itertuples(index=False):
            if of_these[photo] == of_all[photo] and splits_before[photo] != "excluded":
                assert assigned == splits_before[photo]


def families(table: pd.DataFrame) -> dict[str, set[str]]:
    """Each photo's family as the groups in it."""
    groups = table.groupby("family")["group"].agg(set)
    return {photo: groups[family] for photo, family in zip(table["sha256"], table["family"], strict=True)}


IMPORTED = {"meta_imported_split": "", "meta_imported_group": ""}
ALIKE = ("00000000000000ff", "000000000000000f")  # 4 bits apart


def imported(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Photos of which some bring a split or a group of another dataset; `NaN` stands where a photo brings none."""
    table = manifest([{"meta_collection": "", **row} for row in rows])
    names = {"came": "meta_imported_split", "of": "meta_imported_group"}
    return table.rename(columns=names).assign(
        **{column: table.rename(columns=names).get(column, np.nan) for column in IMPORTED}
    )


class TestImportedPhotos:
    @pytest.mark.parametrize("split", ["train", "val", "test", "excluded"])
    def test_they_keep_their_split_and_their_group(self, split: str) -> None:
        table = imported([{"came": split, "of": f"group {n}"} for n in range(20)] + [{}] * 20)
        assigned = divide(table)
        assert set(assigned["split"][:20]) == {split}
        assert assigned["group"][:20].tolist() == [f"group {n}" for n in range(20)]
        assert assigned["group"][20:].tolist() == assigned["sha256"][20:].tolist()

    def test_splits_are_known_before_they_are_labelled(self) -> None:
        images = [ImageRef(f"gs://a/{n}", 1, f"photo-{n}", 9, 9) for n in range(9)]
        tasks = [PhotoTask(n, image, {"imported_split": "test"}) for n, image in enumerate(images)]
        assert set(splits_of(tasks, None, PARAMS).values()) == {"test"}
        published = divide(manifest([{"meta_collection": f"{n}", "sha256": f"old {n}"} for n in range(9)]))
        assert {splits_of(tasks, published, PARAMS)[image.sha256] for image in images} == {"test"}

    def test_what_a_dataset_assigned_is_assigned_again_from_an_export(self) -> None:
        """Photos of two splits that look alike only through a photo that was excluded for that reason."""
        far = "ffffffffffffffff"
        middle, other = "00000000000003ff", "0000000000003fff"
        rows = [{"phash": ALIKE[1]}, {"phash": other}, {"phash": middle}, *[{"phash": far}] * 2]
        before = imported([
            {**row, "came": split, "of": f"group {n}"}
            for n, (row, split) in enumerate(zip(rows, ["test", "train", "excluded", "val", "val"], strict=True))
        ])  # fmt: skip
        assert divide(before)["split"].tolist() == ["test", "train", "excluded", "val", "val"]

    @pytest.mark.parametrize(("first", "second", "together"), [("train", "test", "test"), ("val", "train", "val")])
    def test_the_more_protective_split_wins_among_photos_that_look_alike(
        self, first: str, second: str, together: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        table = imported([{"came": first, "phash": ALIKE[0]}, {"came": second, "phash": ALIKE[1]}, {"phash": ALIKE[0]}])
        assert set(divide(table)["split"]) == {together}
        assert "1 imported photos are in another split than before" in caplog.text

    def test_an_own_photo_that_looks_like_an_imported_one_follows_it(self) -> None:
        for number in range(20):
            rows = [{"phash": f"{number:02x}ff00000000000f"}, {"came": "test", "phash": f"{number:02x}ff0000000000ff"}]
            assert set(divide(imported(rows))["split"]) == {"test"}

    def test_a_test_photo_is_never_trained_on_when_its_likes_are_published_for_training(self) -> None:
        old = imported([{"phash": ALIKE[0], "came": "train", "of": "Spring"}])
        published = divide(old)
        table = pd.concat([old, imported([
            {"sha256": "alike", "phash": ALIKE[1], "came": "test", "of": "other"},
            {"sha256": "same group", "came": "test", "of": "Spring"},
            {"sha256": "free", "came": "test", "of": "third"},
        ])], ignore_index=True)  # fmt: skip
        assert divide(table, published)["split"].tolist() == ["train", "excluded", "excluded", "test"]

    def test_a_training_photo_joins_the_test_split_of_its_group(self) -> None:
        old = imported([{"came": "test", "of": "Spring"}])
        table = pd.concat([old, imported([{"sha256": "new", "came": "train", "of": "Spring"}])], ignore_index=True)
        assert divide(table, divide(old))["split"].tolist() == ["test", "test"]

    def test_what_was_published_before_it_was_imported_stays_and_holds_its_group(self) -> None:
        old = manifest([{"meta_collection": group_in("train")}])
        again = imported([{"meta_collection": group_in("train"), "came": "test", "of": "Spring"}])
        table = pd.concat([again, imported([{"sha256": "new", "came": "test", "of": "Spring"}])], ignore_index=True)
        assert divide(table, divide(old))["split"].tolist() == ["train", "excluded"]

    def test_a_group_of_the_catalogue_holds_photos_of_several_imported_groups_together(self) -> None:
        rows = [
            {"meta_collection": group_in("train"), "came": "test", "of": "a"},
            {"meta_collection": group_in("train")},
        ]
        assert set(divide(imported(rows))["split"]) == {"test"}

    def test_a_full_test_split_still_takes_imported_test_photos(self) -> None:
        old = divide(manifest([{"meta_collection": group_in("test")}])).assign(test_full=True)
        table = pd.concat([old, imported([{"sha256": "new", "came": "test"}])], ignore_index=True)
        assert divide(table, old)["split"].tolist() == ["test", "test"]

    def test_an_unknown_split_is_none(self) -> None:
        rows = [{"meta_collection": group_in("train"), "came": "holdout"}]
        assert divide(imported(rows))["split"].tolist() == ["train"]
