"""One line about what changed, for git, Airflow and MLflow."""

import json

import pandas as pd
import pytest

from pipelines.dataset.summary import describe_change


def manifest(**photos: str) -> pd.DataFrame:
    """Make a manifest from `photo="label label"`; a mask is as good as its labels."""
    rows = [
        {"sha256": photo, "mask_sha256": labels, "label_pixels": json.dumps(dict.fromkeys(labels.split(), 9))}
        for photo, labels in photos.items()
    ]
    return pd.DataFrame(rows, columns=["sha256", "mask_sha256", "label_pixels"])


BEFORE = manifest(a="skirt", b="skirt coat", c="coat")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, BEFORE, "+3 photos; coat 0→2, skirt 0→2"),
        (BEFORE, BEFORE, "+0 photos"),
        (BEFORE, manifest(a="skirt", b="skirt coat", c="coat", d="hat"), "+1 photos; hat 0→1"),
        (BEFORE, manifest(a="skirt", b="coat", c="coat"), "+0 photos, 1 re-labelled; skirt 2→1"),
        (BEFORE, manifest(a="skirt", b="skirt coat"), "+0 photos, 1 removed; coat 2→1"),
        (BEFORE, manifest(a="coat", c="coat", d="coat"), "+1 photos, 1 re-labelled, 1 removed; skirt 2→0, coat 2→3"),
    ],
    ids=["first", "same", "added", "re-labelled", "removed", "all"],
)
def test_what_changed_is_said_in_one_line(before: pd.DataFrame | None, after: pd.DataFrame, said: str) -> None:
    assert describe_change(before, after) == said


def test_the_five_labels_that_changed_most_are_named() -> None:
    after = manifest(**{f"p{n}": " ".join("abcdefg"[: n + 1]) for n in range(7)})
    assert describe_change(None, after) == "+7 photos; a 0→7, b 0→6, c 0→5, d 0→4, e 0→3"
