"""When a dataset version is worth a training."""

from datetime import datetime, timedelta

import pandas as pd

from pipelines.params import RetrainParams


def new_annotations(now: pd.DataFrame, trained_on: pd.DataFrame | None) -> int:
    """Count the annotations whose photo has no mask in the manifest that was trained on last, or another one."""
    rows = now[["sha256", "mask_sha256", "annotations"]]
    if trained_on is not None:
        before = set(zip(trained_on["sha256"], trained_on["mask_sha256"], strict=True))
        rows = rows[[pair not in before for pair in zip(rows["sha256"], rows["mask_sha256"], strict=True)]]
    return int(sum(len(uuids) for uuids in rows["annotations"]))


def why_wait(params: RetrainParams, new: int, waiting_since: datetime, now: datetime) -> str | None:
    """Say why a dataset is not trained on yet; None when it is time.

    `new` counts annotations as `new_annotations` does; `waiting_since` is when the first version that was not
    trained on was published.
    """
    waited = now - waiting_since
    if new >= params.min_new_annotations or waited >= timedelta(days=params.max_days):
        return None
    return (
        f"{new} annotations are new since the last training and the oldest waits for {waited.days} days; it begins "
        f"with {params.min_new_annotations} (retrain.min_new_annotations) or after {params.max_days:g} days "
        "(retrain.max_days)"
    )
