"""The drawn archive on disk: photos, index masks and a catalogue CSV in the layout of a fashion archive's export."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.demo.photos.photo import SyntheticPhoto, draw_photo
from pipelines.demo.photos.shows import show_of
from pipelines.errors import CatalogError
from pipelines.fs import write_atomically

CATALOGUE_COLUMNS = (
    "id_file", "year", "collection", "season", "subject", "media_type", "name", "theme", "typology", "typology.sub"
)  # fmt: skip
GROUPS = {
    "bag-belt": "accessories", "coat": "outerwear", "dress": "one-piece", "footwear": "accessories",
    "hat": "accessories", "jacket": "outerwear", "knitwear": "tops", "pants": "bottoms",
    "scarf-gloves": "accessories", "shirt": "tops", "skirt": "bottoms",
}  # fmt: skip
JPEG_QUALITY = 92
_SEED_STRIDE = 1_000_000  # photos that an archive seed can number before the next one begins


def photo_id(index: int) -> str:
    """Return the id of the photo with a 0-based index: `look-0001` for index 0."""
    return f"look-{index + 1:04d}"


def draw_archive(folder: Path, count: int, label_ids: Mapping[str, int], *, first: int = 0, seed: int = 0) -> None:
    """Write `count` photos from index `first` on: `photos/<id>.jpg`, `masks/<id>.png` and `catalogue.csv`.

    Masks are single-channel (mode L) PNGs of label ids. The catalogue has one row per photo and garment, keeps the rows
    of photos that are in the folder already and is replaced in one step. Same arguments, same bytes.

    Raises CatalogError when an existing catalogue has other columns.
    """
    catalogue = folder / "catalogue.csv"
    rows = _read_rows(catalogue)
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        number = seed * _SEED_STRIDE + index
        photo = draw_photo(number, label_ids)
        name = photo_id(index)
        Image.fromarray(photo.image).save(folder / "photos" / f"{name}.jpg", quality=JPEG_QUALITY)
        Image.fromarray(photo.mask).save(folder / "masks" / f"{name}.png")
        rows[name] = _rows_of(name, number, photo)
    kept = {name: rows[name] for name in sorted(rows) if (folder / "photos" / f"{name}.jpg").exists()}
    write_atomically(catalogue, _as_csv(kept).encode())


def _rows_of(name: str, number: int, photo: SyntheticPhoto) -> list[dict[str, str]]:
    """Return one catalogue row for each garment that is visible in a photo."""
    show = show_of(number)
    look_number = np.random.default_rng([number, 21]).integers(1, 60)
    shared = {
        "id_file": name,
        "year": str(show.year),
        "collection": show.collection,
        "season": show.season,
        "subject": f"look {look_number}",
        "media_type": "photo",
        "name": show.designer,
        "theme": show.theme,
    }
    return [shared | {"typology": GROUPS[label], "typology.sub": label} for label in photo.garments]


def _read_rows(catalogue: Path) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = {}
    if not catalogue.exists():
        return rows
    with catalogue.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != CATALOGUE_COLUMNS:
            raise CatalogError(
                f"{catalogue} has the columns {reader.fieldnames}; move or delete it to have a new one written"
            )
        for row in reader:
            rows.setdefault(row["id_file"], []).append(row)
    return rows


def _as_csv(rows: Mapping[str, list[dict[str, str]]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CATALOGUE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for group in rows.values():
        writer.writerows(group)
    return text.getvalue()
