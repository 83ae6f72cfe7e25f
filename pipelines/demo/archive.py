"""Where the demo's photos and their truth come from: drawn ones, or a folder of real ones (`masked_photos`)."""

from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.dataset.files import read_mask
from pipelines.params import Params


class Archive(Protocol):
    """Photos with known truth; `names` are object names in upload order."""

    def photo(self, name: str) -> bytes:
        """Give the photo's file."""

    def truth(self, name: str) -> np.ndarray:
        """Give the (H, W) uint8 index mask in the ids of params.yaml."""

    def catalog(self) -> bytes:
        """Give the catalogue CSV of all photos."""

    def take(self, first: int, count: int) -> list[str]:
        """Give the names of `count` photos from position `first` on, fewer when there are no more."""


class SyntheticArchive:
    """Drawn runway photos; as many as are asked for."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.folder, self._params = folder, params

    def take(self, first: int, count: int) -> list[str]:
        """Draw `count` photos and give their names."""
        from pipelines.demo.photos import draw_archive

        draw_archive(self.folder, count, self._params.label_ids, first=first)
        return sorted(path.name for path in (self.folder / "photos").iterdir())[first : first + count]

    def photo(self, name: str) -> bytes:
        """Give the photo's JPEG."""
        return (self.folder / "photos" / name).read_bytes()

    def truth(self, name: str) -> np.ndarray:
        """Give the mask that was drawn with the photo."""
        return read_mask(self.folder / "masks" / f"{Path(name).stem}.png")

    def catalog(self) -> bytes:
        """Give the drawn archive's catalogue."""
        return (self.folder / "catalogue.csv").read_bytes()
