"""Rows of a dataset's files that are of a photo or name a person: count them, or remove them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, MASKS, PHOTOS
from pipelines.dataset.records import annotation_json, parse_annotation_json
from pipelines.dataset.shards import shard_of
from pipelines.forget.content import names_subject
from pipelines.forget.subjects import Subjects
from pipelines.fs import write_atomically
from pipelines.records import Annotation

TABLES = (PHOTOS, BEFORE, MANIFEST)
COMPILED = Path(".dvc/tmp/compiled")  # rows of compiled shards, a cache


@dataclass(frozen=True)
class Rows:
    """How many rows or files of a kind there are, and the bytes of the files that hold them."""

    what: str
    path: str
    count: int
    size: int


def find_rows(dataset: Dataset, subjects: Subjects) -> Iterator[Rows]:
    """Yield what a dataset's folder holds of the photos and people; nothing is changed."""
    for sha256 in sorted(subjects.hashes):
        path = dataset.image_path(sha256)
        if path.exists():
            yield Rows("photo", f"{IMAGES}/{sha256}", 1, path.stat().st_size)
    for path in _files(dataset.path(ANNOTATIONS)):
        if names_subject(path.read_bytes(), subjects.pattern):
            yield Rows("annotations", f"{ANNOTATIONS}/{path.name}", 1, path.stat().st_size)
    for path in _files(dataset.path(MASKS)):
        if subjects.hashes and (
            path.stem in subjects.hashes
            or (path.suffix == ".parquet" and names_subject(path.read_bytes(), subjects.pattern))
        ):
            yield Rows("masks", f"{MASKS}/{path.name}", 1, path.stat().st_size)
    for name in TABLES:
        path = dataset.path(name)
        if path.exists() and names_subject(path.read_bytes(), subjects.pattern):
            yield Rows("table", str(name), 1, path.stat().st_size)
    for path in [*_files(dataset.path(COMPILED)), *sorted(dataset.path(Path("data")).glob("*.json"))]:
        if names_subject(path.read_bytes(), subjects.pattern):
            yield Rows("texts", str(path.relative_to(dataset.root)), 1, path.stat().st_size)


def remove_rows(dataset: Dataset, subjects: Subjects) -> None:
    """Remove the photos from a dataset's files, and replace people's addresses by pseudonyms; all else stays."""
    for sha256 in subjects.hashes:
        dataset.image_path(sha256).unlink(missing_ok=True)
    _remove_annotations(dataset, subjects)
    _remove_masks(dataset, subjects)
    for name in TABLES:
        path = dataset.path(name)
        if path.exists() and names_subject(data := path.read_bytes(), subjects.pattern):
            dataset.write_table(name, without_subjects(pd.read_parquet(io.BytesIO(data)), subjects))
    for path in _files(dataset.path(COMPILED)):
        if names_subject(path.read_bytes(), subjects.pattern):
            path.unlink()
    for path in dataset.path(Path("data")).glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if (clean := subjects.redacted(text)) != text:
            write_atomically(path, clean.encode())


def without_subjects(table: pd.DataFrame, subjects: Subjects) -> pd.DataFrame:
    """Return a table of photos without the photos' rows; aliases stand for their hashes, pseudonyms for people."""
    rows = table[~table["sha256"].isin(subjects.hashes)].reset_index(drop=True)
    for column in rows.columns:
        if rows[column].dtype != object and str(rows[column].dtype) not in ("string", "str"):
            continue
        values = [_redacted(value, subjects) for value in rows[column]]
        if any(new is not old for new, old in zip(values, rows[column], strict=True)):
            rows[column] = pd.Series(values, rows.index, dtype=rows[column].dtype)
    return rows


def renamed(annotation: Annotation, subjects: Subjects) -> Annotation:
    """Return an annotation with a pseudonym in place of the person's address and names."""
    text = subjects.redacted(annotation_json(annotation).decode())
    changed = parse_annotation_json(text.encode(), f"annotation {annotation.uuid}")
    raw = dict(changed.raw)
    for person in subjects.people:
        if changed.annotator == person.pseudonym:
            raw.pop("created_username", None)
    return replace(changed, raw=raw)  # type: ignore[arg-type]  # the same JSON without one key


def _redacted(value: object, subjects: Subjects) -> object:
    """Return a cell without what names the subjects; the very same object when it names none."""
    if isinstance(value, str):
        return subjects.redacted(value) if subjects.pattern.search(value.encode()) else value
    if hasattr(value, "tolist") or isinstance(value, (list, tuple)):
        items = value.tolist() if hasattr(value, "tolist") else list(value)  # type: ignore[call-overload]  # a cell may hold anything
        if isinstance(items, list):
            clean = [_redacted(item, subjects) for item in items]
            return clean if any(new is not old for new, old in zip(clean, items, strict=True)) else value
    return value


def _remove_annotations(dataset: Dataset, subjects: Subjects) -> None:
    folder = dataset.path(ANNOTATIONS)
    for path in folder.glob("*.json"):  # of an older layout
        annotation = parse_annotation_json(path.read_bytes(), str(path))
        if annotation.image.sha256 in subjects.hashes:
            path.unlink()
        elif names_subject(path.read_bytes(), subjects.pattern):
            write_atomically(path, annotation_json(renamed(annotation, subjects)))
    gone, changed = [], []
    for shard in dataset.annotations.shards():
        if not names_subject(dataset.annotations.path(shard).read_bytes(), subjects.pattern):
            continue
        for annotation in dataset.annotations.read_shard(shard):
            if annotation.image.sha256 in subjects.hashes:
                gone.append((annotation.uuid, annotation.image.sha256))
            elif names_subject(annotation_json(annotation), subjects.pattern):
                changed.append(renamed(annotation, subjects))
    dataset.annotations.update(changed, gone)


def _remove_masks(dataset: Dataset, subjects: Subjects) -> None:
    for sha256 in subjects.hashes:
        (dataset.path(MASKS) / f"{sha256}.png").unlink(missing_ok=True)  # of an older layout
    for shard in sorted({shard_of(sha256) for sha256 in subjects.hashes}):
        masks = dataset.masks.read_shard(shard)
        wanted = {sha256: png for sha256, png in masks.items() if sha256 not in subjects.hashes}
        if len(wanted) != len(masks):
            dataset.masks.write_shard(shard, wanted)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.exists() else []
