"""Describe what changed between two dataset versions in one line, for git, Airflow and MLflow."""

import json
from collections import Counter

import pandas as pd


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
