"""DVC stage `split`: every photo to train, val or test, so that nothing leaks between them and no photo ever moves.

A group's side follows from a hash of its name. Groups whose photos look alike are a family and share a side. As that
depends on what else there is, the sides of the last version (data/before.parquet) hold for ever: only photos that were
not in it are given one. Photos of the sides test and val are handed out without masks, so a photo's side is known
before it is labelled (`sides_of`), and no photo that was drawn from a model's masks comes to these sides.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.log import run_stage
from pipelines.params import SplitParams, load_params
from pipelines.records import PhotoTask

logger = logging.getLogger(__name__)
TRAIN, VAL, TEST = "train", "val", "test"
BLIND_SIDES = (TEST, VAL)  # what models are judged by, and chosen by
EXCLUDED = "excluded"  # on either side it would leak, or judge a model by masks that a model drew
_DERIVED = ("group", "family", "split", "division", "test_full")
_ENOUGH_FAMILIES = 5  # new ones, from which a side must not stay empty because of chance
_HASH_BITS = 64

Pairs = Sequence[tuple[str, str]]
Family = Sequence[str]  # its groups, sorted


def split_photos(table: pd.DataFrame, before: pd.DataFrame | None, params: SplitParams) -> pd.DataFrame:
    """Return the photos with `group`, `family`, `split`, `division` and `test_full`.

    `table`: a row per photo with sha256, phash, class_ids, the catalogue's columns and, unless all are blind, `blind`;
    `before`: the last version's result, or None. `split` is `train`, `val`, `test` or `excluded`. Photos of one
    `family` (its first group's name) look alike or share a group. `test_full` is the last version's, the same in all
    rows: new families then go to train. A division made by other shares, groups or salt is another division: its sides
    are not held on to.
    """
    found = _divide(table, before, params)
    if before is not None and not _is_held(before, found["division"].iloc[0]):
        logger.warning("the parameters of `split` changed: all photos are divided anew")
    _tell(found, params)
    return found


def sides_of(photos: Sequence[PhotoTask], manifest: pd.DataFrame | None, params: SplitParams) -> dict[str, str]:
    """Return the side of each photo by SHA-256: those of the newest `manifest`, and these, labelled or not.

    Photos that are not in the manifest are divided as if all were labelled and blind, by what `split_photos` does.
    """
    wanted = ["sha256", "phash", "class_ids", "blind", *(f"meta_{column}" for column in params.group_by)]
    labelled = pd.DataFrame(columns=["sha256"]) if manifest is None else manifest.assign(blind=is_blind(manifest))
    rows: dict[str, Mapping[Hashable, object]] = {
        str(row["sha256"]): row for row in labelled.reindex(columns=wanted, fill_value="").to_dict("records")
    }
    for photo in photos:
        catalog = [photo.metadata.get(column, "") for column in params.group_by]
        fields = [photo.image.sha256, photo.image.phash, [], True, *catalog]
        rows.setdefault(photo.image.sha256, dict(zip(wanted, fields, strict=True)))
    if not rows:
        return {}
    found = _divide(pd.DataFrame(list(rows.values()), columns=wanted), manifest, params)
    return dict(zip(found["sha256"], found["split"], strict=True))


def is_blind(table: pd.DataFrame) -> "pd.Series[bool]":
    """Tell of each row of a manifest whether no model drew any of its mask.

    Versions published before that was recorded name the model that a mask started from.
    """
    if "blind" in table.columns:
        return table["blind"].astype(bool)
    if "prediction_version" in table.columns:
        return table["prediction_version"].fillna("") == ""
    return pd.Series(True, table.index)


def is_marked_full(manifest: pd.DataFrame) -> bool:
    """Tell whether the test side has stopped growing by a version's manifest."""
    return "test_full" in manifest.columns and bool(manifest["test_full"].any())


def _divide(table: pd.DataFrame, before: pd.DataFrame | None, params: SplitParams) -> pd.DataFrame:
    made_by = repr((params.group_by, params.test_share, params.val_share, params.salt))
    division = hashlib.sha256(made_by.encode()).hexdigest()[:8]
    found = table.assign(group=[_group(row, params) for row in table.to_dict("records")])
    alike = near_duplicates(found["phash"], params.near_duplicate_bits)
    families = _families(found, alike)
    found["family"] = found["group"].map({group: family[0] for family in families for group in family})
    held = before if before is not None and _is_held(before, division) else pd.DataFrame(columns=["sha256", *_DERIVED])
    full = is_marked_full(held)
    of_group = {group: side for group, side in zip(held["group"], held["split"], strict=True) if side != EXCLUDED}
    of_group = _with_new_groups(found, families, of_group, params, full=full)
    found["split"] = _sides(found, alike, dict(zip(held["sha256"], held["split"], strict=True)), of_group)
    return found.assign(division=division, test_full=full)


def _is_held(before: pd.DataFrame, division: str) -> bool:
    return bool(len(before)) and before["division"].iloc[0] == division


def _sides(found: pd.DataFrame, alike: Pairs, placed: Mapping[str, str], of_group: Mapping[str, str]) -> list[str]:
    """Give each photo its old side, or its group's.

    A new photo is `excluded` when a look-alike is on another side, or when its group judges models and it is not blind.
    """
    photos, blind = found["sha256"].tolist(), is_blind(found).tolist()
    sides = [placed.get(photo, of_group[group]) for photo, group in zip(photos, found["group"], strict=True)]
    looks = found["phash"].tolist()
    near: dict[str, list[str]] = {look: [look] for look in looks if look}
    for one, other in alike:
        near[one].append(other)
        near[other].append(one)
    shown: dict[str, Counter[str]] = defaultdict(Counter)  # by look: how many photos on which side
    for look, side in zip(looks, sides, strict=True):
        shown[look][side] += 1
    new = [place for place, photo in enumerate(photos) if photo not in placed]
    for place in sorted(new, key=lambda place: photos[place]):
        side = sides[place]
        around = {there for look in near.get(looks[place], ()) for there, count in shown[look].items() if count}
        if around - {side, EXCLUDED} or (side in BLIND_SIDES and not blind[place]):
            sides[place] = EXCLUDED
            shown[looks[place]][side] -= 1
    return sides


def near_duplicates(hashes: Iterable[str], most_bits: int) -> list[tuple[str, str]]:
    """Give the pairs of different perceptual hashes (16 hex digits) that differ in few bits; empty ones are left out.

    Two hashes that differ in at most `most_bits` agree wholly in one of `most_bits` + 1 bands, so only those that do
    are compared: Manku, Jain, Das Sarma: «Detecting Near-Duplicates for Web Crawling» (2007).
    """
    names = sorted({text for text in hashes if text})
    values = np.array([int(text, 16) for text in names], np.uint64)
    pairs: set[tuple[str, str]] = set()
    for low, high in pairwise(np.linspace(0, _HASH_BITS, most_bits + 2).astype(int)):
        band = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")  # within a band's value the names stay in order
        for step in range(1, len(names)):
            here, there = order[:-step], order[step:]
            equal = band[here] == band[there]
            if not equal.any():
                break
            here, there = here[equal], there[equal]
            near = np.bitwise_count(values[here] ^ values[there]) <= most_bits
            pairs |= {(names[one], names[other]) for one, other in zip(here[near], there[near], strict=True)}
    return sorted(pairs)


def side_of(group: str, params: SplitParams) -> str:
    """Give the side that a group's name alone leads to: its hash as a number in 0..1 against the shares."""
    position = _position(group, params)
    if position < params.test_share:
        return TEST
    return VAL if position < params.test_share + params.val_share else TRAIN


def _with_new_groups(
    found: pd.DataFrame, families: Sequence[Family], of_group: Mapping[str, str], params: SplitParams, *, full: bool
) -> dict[str, str]:
    """Add the sides of new groups: that of the groups they look like, or else by hash and by what a side lacks.

    A new family some photo of which was drawn from a model's masks is for training; so are all once test is full.
    """
    sides = dict(of_group)
    not_blind = set(found.loc[~is_blind(found), "group"])
    new, blind = 0, []
    for family in families:
        old = Counter(sides[group] for group in family if group in sides)
        is_clean = not_blind.isdisjoint(family)
        if old:
            side = max(sorted(old), key=lambda one: old[one])
        else:
            side = side_of(family[0], params) if is_clean and not full else TRAIN
            new += 1
            blind += [family] if is_clean else []
        sides.update({group: side for group in family if group not in sides})
    if new >= _ENOUGH_FAMILIES and not full:
        _fill_empty_sides(sides, families, blind, params)
    _cover_labels(found, sides, blind, params)
    return sides


def _fill_empty_sides(
    sides: dict[str, str], families: Sequence[Family], blind: Sequence[Family], params: SplitParams
) -> None:
    """Give a side that chance left empty the nearest blind training family, unless that is the only one."""
    names = {family[0] for family in blind}
    for side in BLIND_SIDES if params.val_share else (TEST,):
        training = [family for family in families if sides[family[0]] == TRAIN]
        free = [family for family in training if family[0] in names]
        if free and len(training) > 1 and not any(sides[group] == side for family in families for group in family):
            nearest = min(free, key=lambda family: _position(family[0], params))  # training lies above both
            sides.update(dict.fromkeys(nearest, side))


def _cover_labels(found: pd.DataFrame, sides: dict[str, str], blind: Sequence[Family], params: SplitParams) -> None:
    """Send new blind families to the test side for labels with support that it lacks."""
    free = [family for family in blind if sides[family[0]] != TEST]
    labels: dict[str, set[int]] = defaultdict(set)
    for group, ids in zip(found["group"], found["class_ids"], strict=True):
        labels[group] |= set(ids)
    photos = Counter(label_id for ids in found["class_ids"] for label_id in ids)
    sizes = found["group"].value_counts()
    for label_id in sorted(photos, key=lambda one: (photos[one], one)):
        holders = sorted(group for group, ids in labels.items() if label_id in ids)
        if photos[label_id] < params.min_label_photos or any(sides[group] == TEST for group in holders):
            continue
        having = [family for family in free if any(group in family for group in holders)]
        # The rest must still teach the label.
        having = [family for family in having if not set(holders) <= set(family)]
        if having:
            chosen = min(having, key=lambda family: (sum(sizes[g] for g in family), _position(family[0], params)))
            sides.update(dict.fromkeys(chosen, TEST))
            free.remove(chosen)


def _families(found: pd.DataFrame, alike: Pairs) -> list[list[str]]:
    """Give groups that must share a side because photos of theirs look alike, each family and all of them sorted."""
    looks = [(group, f"look {look}") for group, look in zip(found["group"], found["phash"], strict=True) if look]
    links = [*((f"group {group}", look) for group, look in looks), *((f"look {a}", f"look {b}") for a, b in alike)]
    nodes = sorted({f"group {group}" for group in found["group"]} | {node for link in links for node in link})
    number = {node: place for place, node in enumerate(nodes)}
    ends = np.array([(number[one], number[other]) for one, other in links], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), ends.T), shape=(len(nodes), len(nodes)))
    _, family = connected_components(graph, directed=False)
    members: dict[int, list[str]] = defaultdict(list)
    for node, belongs in zip(nodes, family, strict=True):
        if node.startswith("group "):
            members[int(belongs)].append(node.removeprefix("group "))
    return sorted(members.values())


def _tell(found: pd.DataFrame, params: SplitParams) -> None:
    blind = is_blind(found)
    counts = {side: f"{int(here.sum())} photos, {int((here & blind).sum())} of them blind, in "
              f"{found.loc[here, 'family'].nunique()} families"
              for side in (TRAIN, VAL, TEST) if (here := found["split"] == side).any()}  # fmt: skip
    logger.info("split: %s", "; ".join(f"{side}: {text}" for side, text in counts.items()))
    if excluded := int((found["split"] == EXCLUDED).sum()):
        logger.warning(
            "%d photos look like photos on another side, or would judge models by masks that a model drew; they are on "
            "no side",
            excluded,
        )
    photos = Counter(label_id for ids in found["class_ids"] for label_id in ids)
    tested = {label_id for ids in found.loc[found["split"] == TEST, "class_ids"] for label_id in ids}
    if lacking := [str(one) for one in sorted(photos) if photos[one] >= params.min_label_photos and one not in tested]:
        logger.warning(
            "no test photo shows the labels %s; the next new group of blind photos that does goes there",
            ", ".join(lacking),
        )


def _position(group: str, params: SplitParams) -> float:
    digest = hashlib.sha256(f"{params.salt}\n{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _group(row: Mapping[Hashable, object], params: SplitParams) -> str:
    values = [str(row.get(f"meta_{column}", "")) for column in params.group_by]
    return (
        " / ".join(values) if values and all(v not in ("", "–", "nan", "None") for v in values) else str(row["sha256"])
    )


def main() -> None:
    """Run the stage in the current folder."""
    dataset = Dataset(Path.cwd())
    table = split_photos(dataset.photos(), dataset.before(), load_params(Path("params.yaml")).split)
    dataset.write_table(MANIFEST, table)


if __name__ == "__main__":
    run_stage("split", main)
