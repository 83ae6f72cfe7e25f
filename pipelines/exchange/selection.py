"""Which photos of a version are exported, and in which size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.errors import DataError
from pipelines.params import Params


@dataclass(frozen=True)
class Selection:
    """Photos of any of `splits` that show any of `labels`, all when empty; of these only `reviewed` ones.

    A photo is reviewed when its annotation was marked as ground truth in Label Studio, or when several people drew it.
    Photos and masks are reduced to `longest_edge` pixels on their longer edge. With `instances`, each region is an
    object of its own instead of each label.
    """

    splits: Sequence[str] = ()
    labels: Sequence[str] = ()
    reviewed: bool = False
    longest_edge: int | None = None
    instances: bool = False

    def __str__(self) -> str:
        """Return what is selected in words; an empty text for everything as it is."""
        words = [f"split {' or '.join(self.splits)}"] if self.splits else []
        words += [f"with {' or '.join(self.labels)}"] if self.labels else []
        words += ["reviewed"] if self.reviewed else []
        words += [f"at most {self.longest_edge} pixels"] if self.longest_edge else []
        words += ["instances"] if self.instances else []
        return ", ".join(words)

    def rows(self, dataset: Dataset, table: pd.DataFrame, params: Params) -> pd.DataFrame:
        """Return the rows of a manifest that are selected, in their order.

        Raise DataError naming a split or label that there is not, or when nothing is left.
        """
        chosen = pd.Series(data=True, index=table.index)
        if self.splits:
            _require_known("split", self.splits, sorted(set(table["split"])))
            chosen &= table["split"].isin(self.splits)
        if self.labels:
            _require_known("label", self.labels, list(params.label_ids))
            wanted = {params.label_ids[label] for label in self.labels}
            chosen &= np.array([bool(wanted.intersection(map(int, ids))) for ids in table["class_ids"]])
        if self.reviewed:
            truths = {
                annotation.uuid for annotation in dataset.annotations.read() if annotation.raw.get("ground_truth")
            }
            drawn = zip(table["annotations"], table["annotators"], strict=True)
            chosen &= np.array([bool(truths.intersection(uuids)) or len(set(people)) > 1 for uuids, people in drawn])
        if not chosen.any():
            raise DataError(f"none of the {len(table)} photos is selected ({self}); select less narrowly")
        return table[chosen]


def _require_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"there is no {what} {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
