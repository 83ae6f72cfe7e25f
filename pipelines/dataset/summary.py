"""Describe a dataset version: what changed in one line, for git, Airflow and MLflow, and its numbers and hashes."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, MANIFEST, MASKS
from pipelines.photos.decode import sha256_hex


def describe_change(before: pd.DataFrame | None, after: pd.DataFrame) -> str:
    """Return how two manifests differ, such as `+12 photos, 3 re-labelled, 1 removed; skirt 41→47`.

    Labels count the photos they appear in; the five that changed most are named.
    """
    old = {} if before is None else dict(zip(before["sha256"], before["mask_sha256"], strict=True))
    new = dict(zip(after["sha256"], after["mask_sha256"], strict=True))
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    relabelled = sum(old[photo] != new[photo] for photo in new.keys() & old.keys())
    parts = [f"+{added} photos"]
    parts += [f"{relabelled} re-labelled"] if relabelled else []
    parts += [f"{removed} removed"] if removed else []
    was, now = _photos_per_label(before), _photos_per_label(after)
    names = sorted(now.keys() | was.keys(), key=lambda name: (-abs(now[name] - was[name]), name))
    labels = [f"{name} {was[name]}→{now[name]}" for name in names if now[name] != was[name]][:5]
    return ", ".join(parts) + (f"; {', '.join(labels)}" if labels else "")


def _photos_per_label(table: pd.DataFrame | None) -> Counter[str]:
    return Counter() if table is None else Counter(name for text in table["label_pixels"] for name in json.loads(text))


def describe_version(dataset: Dataset, annotations: int) -> str:
    """Return the text of data/version.json for a dataset with so many annotations: numbers and hashes.

    Equal datasets have equal texts.
    """
    splits = dataset.manifest()["split"].value_counts().sort_index()
    fields = {
        "annotations": annotations,
        "photos": int(splits.sum()),
        "splits": {str(split): int(count) for split, count in splits.items()},
        "sha256": {str(path): _digest(dataset.path(path)) for path in (ANNOTATIONS, MASKS, MANIFEST)},
    }
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's file names and contents."""
    if path.is_file():
        return sha256_hex(path.read_bytes())
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name} {sha256_hex(file.read_bytes())}\n".encode())
    return digest.hexdigest()
