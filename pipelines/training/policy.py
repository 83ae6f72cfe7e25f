"""When a dataset version is worth a training."""

import math
from datetime import datetime, timedelta

import pandas as pd

from pipelines.params import Params, RetrainParams


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


def why_no_clicks(params: Params, photos: int, learned_from: int, age: timedelta) -> str | None:
    """Say why no click model is trained on a dataset with so many photos to learn from; None when one is.

    The newest click model learned from `learned_from` photos, of a dataset that was published `age` before this one.
    Its training takes long, and the next clothing model waits for it: a few more photos would hardly change it.
    """
    wanted = math.ceil(params.clicks.min_growth * learned_from)
    if photos >= wanted or (photos > learned_from and age >= timedelta(days=params.retrain.max_days)):
        return None
    return (
        f"the newest click model learned from {learned_from} photos; the next is trained on {wanted} "
        f"(clicks.min_growth), or on more than {learned_from} after {params.retrain.max_days:g} days "
        "(retrain.max_days)"
    )
