"""Index masks as PNG: images/, masks/ in the labels' colours, labels.csv and photos.csv.

Ignored pixels stay 255, and labels.csv names them. `maskloop import` and `maskloop demo` read this format again.
"""

from pathlib import Path

from PIL import Image, ImageColor

from pipelines.exchange.photos import ExportedPhotos, write_csv, write_photo, write_photos_table
from pipelines.params import IGNORE, Params


def write(photos: ExportedPhotos, params: Params, folder: Path) -> None:
    """Write images/NAME, masks/NAME.png with ids of params.yaml as pixel values, and both tables."""
    named = [*((label.id, label.name, label.color) for label in params.labels)]
    named.append((IGNORE, params.ignore.name, params.ignore.color))
    palette = bytearray(3 * 256)
    for value, _, color in named:
        palette[3 * value : 3 * value + 3] = bytes(ImageColor.getrgb(color)[:3])
    (folder / "masks").mkdir()
    identities = {}
    for photo in photos:
        write_photo(photo, folder / "images")
        mask = Image.fromarray(photo.mask)
        mask.putpalette(bytes(palette))
        mask.save(folder / "masks" / f"{photo.stem}.png")
        identities[photo.name] = photo.identity
    write_csv(folder / "labels.csv", ["index", "label", "color"], [(0, "", "#000000"), *named])
    write_photos_table(folder, identities)
