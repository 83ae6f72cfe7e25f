"""DVC stage `split`: assign every photo to train, val or test, so that nothing leaks and no photo ever moves.

A group's split follows from a hash of its name. Groups whose photos look alike form a family and share a split. As that
depends on which other photos there are, assignments of the last version (data/before.parquet) are permanent: only
photos that were not in it are assigned. Photos of test and val are served without masks, so a photo's split is known
before it is labelled (`splits_of`), and no photo that was drawn from a model's masks joins these splits.

Imported photos bring the split and the group of the dataset that they come from. A group takes the most protective
split that one of its photos brings: test before val before train. An imported photo of test or val never joins a split
that is less protective: where its group is published in such a split already, the photo is excluded.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.families import GROUP_BEFORE, Family, Pairs, find_families, group_of, near_duplicates
from pipelines.dataset.files import MANIFEST
from pipelines.log import run_stage
from pipelines.params import SplitParams, load_params
from pipelines.records import IMPORTED_GROUP, IMPORTED_SPLIT, PhotoTask

logger = logging.getLogger(__name__)
TRAIN, VAL, TEST = "train", "val", "test"
BLIND_SPLITS = (TEST, VAL)  # what models are judged by, and chosen by
EXCLUDED = "excluded"  # in any split it would leak, or judge a model by masks that a model drew
_DERIVED = ("group", "family", "split", "division", "test_full")
_MIN_NEW_FAMILIES = 5  # from this number on, chance must not leave a split empty
PROTECTION = {TRAIN: 0, VAL: 1, TEST: 2}  # what an import must not lower
_SPLIT_BEFORE = f"meta_{IMPORTED_SPLIT}"


def split_photos(table: pd.DataFrame, before: pd.DataFrame | None, params: SplitParams) -> pd.DataFrame:
    """Return the photos with `group`, `family`, `split`, `division` and `test_full`.

    `table`: a row per photo with sha256, phash, class_ids, the catalogue's columns and, unless all are blind, `blind`,
    and for imported photos `meta_imported_split` and `meta_imported_group`;
    `before`: the last version's result, or None. `split` is `train`, `val`, `test` or `excluded`. Photos of one
    `family` (its first group's name) look alike or share a group. `test_full` is the last version's, the same in all
    rows: new families then go to train. `division` is a hash of shares, group columns and salt; assignments of a
    version with another one are not kept.
    """
    photos = _assign(table, before, params)
    if before is not None and not _is_permanent(before, photos["division"].iloc[0]):
        logger.warning("the parameters of `split` changed: all photos are assigned anew")
    _log_splits(photos, params)
    return photos


def splits_of(photos: Sequence[PhotoTask], manifest: pd.DataFrame | None, params: SplitParams) -> dict[str, str]:
    """Return the split of each photo by SHA-256: of those in the newest `manifest`, and of `photos`, labelled or not.

    Photos that are not in the manifest are assigned as `split_photos` does it, as if all were labelled and blind.
    """
    columns = dict.fromkeys((*params.group_by, IMPORTED_SPLIT, IMPORTED_GROUP))
    wanted = ["sha256", "phash", "class_ids", "blind", *(f"meta_{column}" for column in columns)]
    labelled = pd.DataFrame(columns=["sha256"]) if manifest is None else manifest.assign(blind=is_blind(manifest))
    rows: dict[str, Mapping[Hashable, object]] = {
        str(row["sha256"]): row for row in labelled.reindex(columns=wanted, fill_value="").to_dict("records")
    }
    for photo in photos:
        metadata = [photo.metadata.get(column, "") for column in columns]
        fields = [photo.image.sha256, photo.image.phash, [], True, *metadata]
        rows.setdefault(photo.image.sha256, dict(zip(wanted, fields, strict=True)))
    if not rows:
        return {}
    assigned = _assign(pd.DataFrame(list(rows.values()), columns=wanted), manifest, params)
    return dict(zip(assigned["sha256"], assigned["split"], strict=True))


def is_blind(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each row of a manifest whether no model drew any of its mask.

    Versions published before that was recorded name the model that a mask started from.
    """
    if "blind" in table.columns:
        return table["blind"].astype(bool)
    if "prediction_version" in table.columns:
        return table["prediction_version"].fillna("") == ""
    return pd.Series(True, table.index)


def is_marked_full(manifest: pd.DataFrame) -> bool:
    """Return whether the test split has stopped growing, by a version's manifest."""
    return "test_full" in manifest.columns and bool(manifest["test_full"].any())


def most_protective(splits: Iterable[str]) -> str:
    """Return test rather than val, val rather than train, and any of these rather than another text; or ""."""
    return max(splits, key=lambda split: PROTECTION.get(split, -1), default="")


def _imported_splits(photos: pd.DataFrame) -> list[str]:
    """Return for each photo the split that it was imported with; empty when there is none."""
    if _SPLIT_BEFORE not in photos.columns:
        return [""] * len(photos)
    return [split if split in (*PROTECTION, EXCLUDED) else "" for split in photos[_SPLIT_BEFORE]]


def _assign(table: pd.DataFrame, before: pd.DataFrame | None, params: SplitParams) -> pd.DataFrame:
    settings = repr((params.group_by, params.test_share, params.val_share, params.salt))
    split_config = hashlib.sha256(settings.encode()).hexdigest()[:8]
    photos = table.assign(group=[group_of(row, params) for row in table.to_dict("records")])
    similar = near_duplicates(photos["phash"], params.near_duplicate_bits)
    excluded = [split == EXCLUDED for split in _imported_splits(photos)]
    families = find_families(photos, similar, params, excluded)
    photos["family"] = photos["group"].map({group: family[0] for family in families for group in family})
    if before is None or not _is_permanent(before, split_config):
        before = pd.DataFrame(columns=["sha256", *_DERIVED])
    full = is_marked_full(before)
    assigned = dict(zip(before["sha256"], before["split"], strict=True))
    splits = {group: split for group, split in zip(before["group"], before["split"], strict=True) if split != EXCLUDED}
    splits = {**_splits_of_imported_groups(photos, assigned), **splits}
    splits = _assign_new_groups(photos, families, splits, params, full=full)
    photos["split"] = _assign_photos(photos, similar, assigned, splits)
    photos["division"] = split_config
    return photos.assign(test_full=full)


def _splits_of_imported_groups(photos: pd.DataFrame, assigned: Mapping[str, str]) -> dict[str, str]:
    """Return the splits of imported groups that hold published photos: those were published under another group."""
    if GROUP_BEFORE not in photos.columns:
        return {}
    rows = zip(photos["sha256"], photos["group"], photos[GROUP_BEFORE], strict=True)
    published = [(group, assigned.get(name, EXCLUDED)) for name, group, imported in rows if group == imported]
    return {group: split for group, split in sorted(published) if split != EXCLUDED}


def _is_permanent(before: pd.DataFrame, split_config: str) -> bool:
    """Return whether the assignments of a version are kept: there are any, made under the same configuration."""
    return bool(len(before)) and before["division"].iloc[0] == split_config


def _assign_photos(
    photos: pd.DataFrame, similar: Pairs, assigned: Mapping[str, str], group_splits: Mapping[str, str]
) -> list[str]:
    """Return the split of each photo: the one of the last version, or else that of its group.

    A new photo is `excluded` when a photo that looks like it is in another split, and when its group is in a blind
    split but the photo is not blind. So is a photo that was imported as such, or with a more protective split.
    """
    names, blind, hashes = photos["sha256"].tolist(), is_blind(photos).tolist(), photos["phash"].tolist()
    splits = [
        assigned.get(name) or _join(imported, group_splits[group])
        for name, group, imported in zip(names, photos["group"], _imported_splits(photos), strict=True)
    ]
    near: dict[str, list[str]] = {phash: [phash] for phash in hashes if phash}
    for phash, other in similar:
        near[phash].append(other)
        near[other].append(phash)
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # by hash: how many photos are in which split
    for phash, split in zip(hashes, splits, strict=True):
        counts[phash][split] += 1
    new = [row for row, name in enumerate(names) if name not in assigned]
    for row in sorted(new, key=lambda row: names[row]):
        split = splits[row]
        of_similar = {key for phash in near.get(hashes[row], ()) for key, count in counts[phash].items() if count}
        if of_similar - {split, EXCLUDED} or (split in BLIND_SPLITS and not blind[row]):
            splits[row] = EXCLUDED
            counts[hashes[row]][split] -= 1
    return splits


def _join(imported: str, group_split: str) -> str:
    """Return the split of a new photo of a group, `imported` being the split that it came with, or empty."""
    if imported == EXCLUDED or PROTECTION.get(imported, -1) > PROTECTION[group_split]:
        return EXCLUDED
    return group_split


def split_of_group(group: str, params: SplitParams) -> str:
    """Return the split that a group's name alone leads to: its hash as a number in 0..1 against the shares."""
    position = _position(group, params)
    if position < params.test_share:
        return TEST
    return VAL if position < params.test_share + params.val_share else TRAIN


def _assign_new_groups(
    photos: pd.DataFrame, families: Sequence[Family], assigned: Mapping[str, str], params: SplitParams, *, full: bool
) -> dict[str, str]:
    """Return the split of every group: new ones join groups that look alike, or follow their hash and what is lacking.

    A new family with a photo that was drawn from a model's masks goes to train; so do all once test is full. Imported
    photos bring the split of their new groups, and of new families (see `_imported_by_group`).
    """
    splits = dict(assigned)
    imported = _imported_by_group(photos)
    not_blind = set(photos.loc[~is_blind(photos), "group"])
    new, blind = 0, []
    for family in families:
        old = Counter(splits[group] for group in family if group in splits)
        is_clean = not_blind.isdisjoint(family)
        came_with = most_protective(imported[group] for group in family if group in imported)
        if old:
            split = max(sorted(old), key=old.__getitem__)
        elif came_with:
            split = came_with
        else:
            split = split_of_group(family[0], params) if is_clean and not full else TRAIN
            new += 1
            blind += [family] if is_clean else []
        new_groups = [group for group in family if group not in splits]
        splits.update({group: most_protective((split, imported.get(group, ""))) for group in new_groups})
    if new >= _MIN_NEW_FAMILIES and not full:
        _fill_empty_splits(splits, families, blind, params)
    _cover_labels(photos, splits, blind, params)
    return splits


def _imported_by_group(photos: pd.DataFrame) -> dict[str, str]:
    """Return the most protective split that a photo of each group was imported with; no group without such a photo."""
    splits: dict[str, str] = {}
    for group, split in zip(photos["group"], _imported_splits(photos), strict=True):
        if split in PROTECTION:
            splits[group] = most_protective((split, splits.get(group, "")))
    return splits


def _fill_empty_splits(
    splits: dict[str, str], families: Sequence[Family], blind: Sequence[Family], params: SplitParams
) -> None:
    """Move the nearest blind training family to a split that chance left empty, unless it is the only one."""
    names = {family[0] for family in blind}
    for split in BLIND_SPLITS if params.val_share else (TEST,):
        training = [family for family in families if splits[family[0]] == TRAIN]
        free = [family for family in training if family[0] in names]
        if free and len(training) > 1 and not any(splits[group] == split for family in families for group in family):
            nearest = min(free, key=lambda family: _position(family[0], params))  # training lies above both
            splits.update(dict.fromkeys(nearest, split))


def _cover_labels(photos: pd.DataFrame, splits: dict[str, str], blind: Sequence[Family], params: SplitParams) -> None:
    """Move new blind families to test for labels that have enough photos and none in test."""
    free = [family for family in blind if splits[family[0]] != TEST]
    labels: dict[str, set[int]] = defaultdict(set)
    for group, ids in zip(photos["group"], photos["class_ids"], strict=True):
        labels[group] |= set(ids)
    support = Counter(label_id for ids in photos["class_ids"] for label_id in ids)
    sizes = photos["group"].value_counts()
    for label_id in sorted(support, key=lambda label_id: (support[label_id], label_id)):
        holders = sorted(group for group, ids in labels.items() if label_id in ids)
        if support[label_id] < params.min_label_photos or any(splits[group] == TEST for group in holders):
            continue
        having = [family for family in free if any(group in family for group in holders)]
        # The rest must still teach the label.
        having = [family for family in having if not set(holders) <= set(family)]
        if having:
            chosen = min(having, key=lambda family: (sum(sizes[g] for g in family), _position(family[0], params)))
            splits.update(dict.fromkeys(chosen, TEST))
            free.remove(chosen)


def _log_splits(photos: pd.DataFrame, params: SplitParams) -> None:
    blind = is_blind(photos)
    counts = {split: f"{int(rows.sum())} photos, {int((rows & blind).sum())} of them blind, in "
              f"{photos.loc[rows, 'family'].nunique()} families"
              for split in (TRAIN, VAL, TEST) if (rows := photos["split"] == split).any()}  # fmt: skip
    logger.info("split: %s", "; ".join(f"{split}: {text}" for split, text in counts.items()))
    _log_imported(photos)
    if excluded := int((photos["split"] == EXCLUDED).sum()):
        logger.warning(
            "%d photos look like photos of another split, or would judge models by masks that a model drew; they are "
            "excluded",
            excluded,
        )
    support = Counter(label_id for ids in photos["class_ids"] for label_id in ids)
    tested = {label_id for ids in photos.loc[photos["split"] == TEST, "class_ids"] for label_id in ids}
    enough = [label_id for label_id in sorted(support) if support[label_id] >= params.min_label_photos]
    if lacking := [str(label_id) for label_id in enough if label_id not in tested]:
        logger.warning(
            "no test photo shows the labels %s; the next new group of blind photos that does goes there",
            ", ".join(lacking),
        )


def _log_imported(photos: pd.DataFrame) -> None:
    """Log the photos that are in another split than the one they were imported with."""
    changed = [
        f"{uri}: {imported} → {split}"
        for uri, imported, split in zip(
            photos["uri"] if "uri" in photos.columns else photos["sha256"], _imported_splits(photos), photos["split"],
            strict=True,
        )
        if imported and imported != split
    ]  # fmt: skip
    if changed:
        logger.warning(
            "%d imported photos are in another split than before, because photos of their group or photos that look "
            "alike are in a more protective split or were published in another one: %s%s",
            len(changed), ", ".join(changed[:5]), " …" if changed[5:] else "",
        )  # fmt: skip


def _position(group: str, params: SplitParams) -> float:
    digest = hashlib.sha256(f"{params.salt}\n{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def main() -> None:
    """Run the stage in the current folder."""
    dataset = Dataset(Path.cwd())
    table = split_photos(dataset.photos(), dataset.before(), load_params(Path("params.yaml")).split)
    dataset.write_table(MANIFEST, table)


if __name__ == "__main__":
    run_stage("split", main)
