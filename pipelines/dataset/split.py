"""DVC stage `split`: every photo to train, val or test by a stable hash of its group; adding photos moves none."""

import hashlib
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path

import pandas as pd

from pipelines.dataset.files import MANIFEST, SPLIT, fresh
from pipelines.log import run_stage
from pipelines.params import SplitParams, load_params

logger = logging.getLogger(__name__)


def split_photos(table: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Give sha256, group and split (`train`, `val` or `test`) for each row of a manifest."""
    groups = [_group(row, params) for row in table.to_dict("records")]
    sides = [side_of(group, params) for group in groups]
    return pd.DataFrame({"sha256": table["sha256"], "group": groups, "split": sides})


def side_of(group: str, params: SplitParams) -> str:
    """Give the side of one group: its hash as a number in 0..1 against the shares."""
    digest = hashlib.sha256(f"{params.salt}\n{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < params.test_share:
        return "test"
    return "val" if position < params.test_share + params.val_share else "train"


def _group(row: Mapping[Hashable, object], params: SplitParams) -> str:
    values = [str(row.get(f"meta_{column}", "")) for column in params.group_by]
    return " / ".join(values) if values and all(v not in ("", "–", "nan") for v in values) else str(row["sha256"])


def main() -> None:
    """Run the stage in the current folder."""
    table = split_photos(pd.read_parquet(MANIFEST), load_params(Path("params.yaml")).split)
    table.to_parquet(fresh(SPLIT), index=False)
    logger.info("split: %s", table["split"].value_counts().to_dict())


if __name__ == "__main__":
    run_stage("split", main)
