"""Where the demo's photos come from: drawn once, and more of them when more are asked for."""

from pathlib import Path

import numpy as np

from pipelines.demo.archive import SyntheticArchive
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS


def test_drawn_photos_are_drawn_once_and_then_more(tmp_path: Path, params: Params) -> None:
    archive = SyntheticArchive(tmp_path, params)
    first = archive.take(0, 2)
    photos = [archive.photo(name) for name in first]
    second = archive.take(2, 1)
    assert len({*first, *second}) == 3
    assert [archive.photo(name) for name in first] == photos
    assert set(np.unique(archive.truth(first[0]))) <= {0, *params.label_ids.values()}
    assert archive.catalog().decode().splitlines()[0].split(",") == list(CATALOG_COLUMNS)
