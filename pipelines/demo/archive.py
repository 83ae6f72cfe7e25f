"""Sources of the demo's photos and their true masks: drawn photos, or a folder of real ones (`masked_photos`)."""

from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.dataset.records import decode_mask
from pipelines.params import Params


class Archive(Protocol):
    """Photos with known true masks; `names` are object names in upload order."""

    def photo(self, name: str) -> bytes:
        """Return the photo's file."""

    def truth(self, name: str) -> np.ndarray:
        """Return the true (H, W) uint8 index mask, in the ids of params.yaml."""

    def catalog(self) -> bytes:
        """Return the catalogue CSV of all photos."""

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of `count` photos from position `first` on, or fewer when there are no more."""


class SyntheticArchive:
    """Drawn runway photos, as many as requested."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.folder, self._params = folder, params

    def take(self, first: int, count: int) -> list[str]:
        """Draw `count` photos and return their names."""
        from pipelines.demo.photos import draw_archive

        draw_archive(self.folder, count, self._params.label_ids, first=first)
        return sorted(path.name for path in (self.folder / "photos").iterdir())[first : first + count]

    def photo(self, name: str) -> bytes:
        """Return the photo's JPEG."""
        return (self.folder / "photos" / name).read_bytes()

    def truth(self, name: str) -> np.ndarray:
        """Return the mask that was drawn with the photo."""
        path = self.folder / "masks" / f"{Path(name).stem}.png"
        return decode_mask(path.read_bytes(), str(path))

    def catalog(self) -> bytes:
        """Return the drawn archive's catalogue."""
        return (self.folder / "catalogue.csv").read_bytes()
