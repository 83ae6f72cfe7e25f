"""DVC stage `split`: every photo to train, val or test, so that nothing leaks between them and no photo ever moves.

A group's side follows from a hash of its name. Photos that look alike share a side whatever their groups, and a label
that the test side would lack sends a new group there. As such decisions depend on what else there is, the sides of the
last version (data/before.parquet) hold for ever: only photos that were not in it are given one.
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

from pipelines.dataset.files import MANIFEST, PHOTOS, fresh, read_before
from pipelines.log import run_stage
from pipelines.params import SplitParams, load_params

logger = logging.getLogger(__name__)
EXCLUDED = "excluded"  # looks like photos on two sides; on either it would leak
_HASH_BITS = 64

Pairs = Sequence[tuple[str, str]]


def split_photos(table: pd.DataFrame, before: pd.DataFrame | None, params: SplitParams) -> pd.DataFrame:
    """Give the photos with `group`, `split` (`train`, `val`, `test` or `excluded`) and `division`.

    `table`: a row per photo with sha256, phash, class_ids and the catalogue's columns; `before`: the last version's
    result, or None. A division made by other shares, groups or salt is another division: its sides are not held on to.
    """
    division = hashlib.sha256(repr((params.group_by, params.test_share, params.val_share, params.salt)).encode())
    groups = [_group(row, params) for row in table.to_dict("records")]
    alike = near_duplicates(table["phash"], params.near_duplicate_bits)
    found = table.assign(group=groups, division=division.hexdigest()[:8])
    held = pd.DataFrame(columns=["sha256", "group", "split"]) if before is None else before
    if len(held) and held["division"].iloc[0] != found["division"].iloc[0]:
        logger.warning("the parameters of `split` changed: all photos are divided anew")
        held = held.iloc[:0]
    of_group = {group: side for group, side in zip(held["group"], held["split"], strict=True) if side != EXCLUDED}
    of_group = _with_new_groups(found, alike, of_group, params)
    found["split"] = _sides(found, alike, dict(zip(held["sha256"], held["split"], strict=True)), of_group)
    _tell(found, params)
    return found


def _sides(found: pd.DataFrame, alike: Pairs, placed: Mapping[str, str], of_group: Mapping[str, str]) -> list[str]:
    """Give each photo its old side, or its group's, or `excluded` when a look-alike is on another."""
    sides = [placed.get(photo, of_group[group]) for photo, group in zip(found["sha256"], found["group"], strict=True)]
    looks = found["phash"].tolist()
    near: dict[str, list[str]] = {look: [look] for look in looks if look}
    for one, other in alike:
        near[one].append(other)
        near[other].append(one)
    shown: dict[str, Counter[str]] = defaultdict(Counter)  # by look: how many photos on which side
    for look, side in zip(looks, sides, strict=True):
        shown[look][side] += 1
    new = [place for place, photo in enumerate(found["sha256"]) if photo not in placed]
    for place in sorted(new, key=lambda place: found["sha256"].iloc[place]):
        side = sides[place]
        around = {there for look in near.get(looks[place], ()) for there, photos in shown[look].items() if photos}
        if around - {side, EXCLUDED}:
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
        return "test"
    return "val" if position < params.test_share + params.val_share else "train"


def _with_new_groups(
    found: pd.DataFrame, alike: Pairs, of_group: Mapping[str, str], params: SplitParams
) -> dict[str, str]:
    """Add the sides of new groups: that of the groups they look like, or else by hash and by what test lacks."""
    sides, free = dict(of_group), []
    for family in _families(found, alike):
        old = Counter(sides[group] for group in family if group in sides)
        side = max(sorted(old), key=lambda one: old[one]) if old else side_of(min(family), params)
        sides.update({group: side for group in family if group not in sides})
        if not old and side != "test":
            free.append(family)
    labels: dict[str, set[int]] = defaultdict(set)
    for group, ids in zip(found["group"], found["class_ids"], strict=True):
        labels[group] |= set(ids)
    photos = Counter(label_id for ids in found["class_ids"] for label_id in ids)
    sizes = found["group"].value_counts()
    for label_id in sorted(photos, key=lambda one: (photos[one], one)):
        holders = sorted(group for group, ids in labels.items() if label_id in ids)
        if photos[label_id] < params.min_label_photos or any(sides[group] == "test" for group in holders):
            continue
        having = [family for family in free if any(group in family for group in holders)]
        # The rest must still teach the label.
        having = [family for family in having if not set(holders) <= set(family)]
        if having:
            chosen = min(having, key=lambda family: (sum(sizes[g] for g in family), _position(min(family), params)))
            sides.update(dict.fromkeys(chosen, "test"))
            free.remove(chosen)
    return sides


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
    logger.info("split: %s", dict(Counter(found["split"])))
    if excluded := int((found["split"] == EXCLUDED).sum()):
        logger.warning("%d photos look like photos on another side and are on none", excluded)
    photos = Counter(label_id for ids in found["class_ids"] for label_id in ids)
    tested = {label_id for ids in found.loc[found["split"] == "test", "class_ids"] for label_id in ids}
    if lacking := [str(one) for one in sorted(photos) if photos[one] >= params.min_label_photos and one not in tested]:
        logger.warning("no test photo shows the labels %s; the next new group that does goes there", ", ".join(lacking))


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
    found = split_photos(pd.read_parquet(PHOTOS), read_before(), load_params(Path("params.yaml")).split)
    found.to_parquet(fresh(MANIFEST), index=False)


if __name__ == "__main__":
    run_stage("split", main)
