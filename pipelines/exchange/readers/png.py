"""Index masks as `maskloop export … png` writes them: images/ or photos/, masks/, labels.csv, and photos.csv."""

from pathlib import Path

from pipelines.errors import ConfigurationError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.masked_photos import MaskedPhotos, masked_photos_of

_PHOTOS = ("images", "photos")


def is_format(path: Path) -> bool:
    """Return whether there are masks/, labels.csv, and images/ or photos/."""
    return (path / "masks").is_dir() and (path / "labels.csv").is_file() and _photos(path) is not None


def read(path: Path, names: LabelNames) -> MaskedPhotos:
    """Read the folder; raise ConfigurationError naming what is missing or unknown."""
    photos = _photos(path)
    if photos is None:
        raise ConfigurationError(f"{path} has neither images/ nor photos/; give the folder that holds one of them")
    return masked_photos_of(photos, path / "masks", path / "labels.csv", names)


def _photos(path: Path) -> Path | None:
    return next((path / name for name in _PHOTOS if (path / name).is_dir()), None)
