"""Which photos must share a split: those of a group, and groups whose photos look alike, which form a family."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.params import SplitParams
from pipelines.records import IMPORTED_GROUP

GROUP_BEFORE = f"meta_{IMPORTED_GROUP}"
_HASH_BITS = 64

Pairs = Sequence[tuple[str, str]]
Family = Sequence[str]  # its groups, sorted


def group_of(row: Mapping[Hashable, object], params: SplitParams) -> str:
    """Return a photo's group: the one that it was imported with, or that of the catalogue, or the photo alone."""
    imported = str(row.get(GROUP_BEFORE, ""))
    return imported if _is_known(imported) else _catalog_group(row, params) or str(row["sha256"])


def _catalog_group(row: Mapping[Hashable, object], params: SplitParams) -> str:
    """Return the values of `split.group_by`; empty unless all are known."""
    values = [str(row.get(f"meta_{column}", "")) for column in params.group_by]
    return " / ".join(values) if all(map(_is_known, values)) else ""


def _is_known(value: str) -> bool:
    return value not in ("", "–", "nan", "None")


def near_duplicates(hashes: Iterable[str], max_bits: int) -> list[tuple[str, str]]:
    """Return the pairs of different perceptual hashes (16 hex digits) that differ in at most `max_bits` bits.

    Empty hashes are left out. Two hashes that differ in so few bits agree wholly in one of `max_bits` + 1 bands, so
    only those that do are compared: Manku, Jain, Das Sarma, "Detecting Near-Duplicates for Web Crawling" (2007).
    """
    names = sorted({text for text in hashes if text})
    values = np.array([int(text, 16) for text in names], np.uint64)
    pairs: set[tuple[str, str]] = set()
    for low, high in pairwise(np.linspace(0, _HASH_BITS, max_bits + 2).astype(int)):
        band = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")  # within a band's value the names stay in order
        for step in range(1, len(names)):
            left, right = order[:-step], order[step:]
            equal = band[left] == band[right]
            if not equal.any():
                break
            left, right = left[equal], right[equal]
            near = np.bitwise_count(values[left] ^ values[right]) <= max_bits
            pairs |= {(names[a], names[b]) for a, b in zip(left[near], right[near], strict=True)}
    return sorted(pairs)


def find_families(
    photos: pd.DataFrame, similar: Pairs, params: SplitParams, excluded: Sequence[bool]
) -> list[list[str]]:
    """Return the groups that must share a split, each family and the list sorted.

    Their photos look alike, or share a group of the catalogue although they were imported with other groups. `excluded`
    tells for each photo whether it was imported as such: these look like photos of several splits, and join no groups.
    """
    hashes = [
        (group, f"hash {text}")
        for group, text, is_excluded in zip(photos["group"], photos["phash"], excluded, strict=True)
        if text and not is_excluded
    ]
    joining = {node for _, node in hashes}
    links = [(f"group {group}", node) for group, node in hashes]
    links += [(f"hash {a}", f"hash {b}") for a, b in similar if {f"hash {a}", f"hash {b}"} <= joining]
    if GROUP_BEFORE in photos.columns:
        rows = zip(photos["group"], photos.to_dict("records"), strict=True)
        links += [
            (f"group {group}", f"catalogue {text}") for group, row in rows if (text := _catalog_group(row, params))
        ]
    nodes = sorted({f"group {group}" for group in photos["group"]} | {node for link in links for node in link})
    number = {node: index for index, node in enumerate(nodes)}
    ends = np.array([(number[a], number[b]) for a, b in links], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), ends.T), shape=(len(nodes), len(nodes)))
    _, components = connected_components(graph, directed=False)
    members: dict[int, list[str]] = defaultdict(list)
    for node, component in zip(nodes, components, strict=True):
        if node.startswith("group "):
            members[int(component)].append(node.removeprefix("group "))
    return sorted(members.values())
