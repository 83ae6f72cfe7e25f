"""What changed between two dataset versions: tables for a terminal, and a page with the masks of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.dataset.diff import LabelName, PhotoChange, Version, VersionDiff
from pipelines.errors import MaskloopError
from pipelines.fs import write_atomically
from pipelines.reports.html import inline, render

_TEMPLATE = Path(__file__).with_name("version_diff.html.j2")
_SIZE = 340  # pixels of a picture's longer edge
_HEADINGS = (("Other masks", "relabelled"), ("New photos", "added"), ("Photos that went", "removed"))
_LISTED = 2000  # photos without pictures that the page names
GAINED, LOST, OTHER = "#1a9850", "#d73027", "#fdae61"  # a label where there was none, none where there was one, another


@dataclass(frozen=True)
class Card:
    """A photo on the page: its change and its pictures, each with a caption."""

    change: PhotoChange
    pictures: tuple[tuple[str, str], ...]
    problem: str = ""


def as_tables(diff: VersionDiff, top: int = 20) -> Group:
    """Return a summary, a row per label that differs, and the `top` photos that differ most, for a terminal."""
    labels = _table("Labels", ("label", "photos before", "photos after", "changed pixels"))
    for label_id, before, after, pixels in diff.of_labels():
        labels.add_row(Text(diff.label(label_id).name), str(before), str(after), f"{pixels:,}")
    photos = _table("Photos", ("photo", "what", "pixels", "labels"))
    for photo in diff.photos[:top]:
        what = Text(photo.kind + (f" ({photo.note})" if photo.note else ""))
        changes = Text(photo.problem or ", ".join(describe_labels(diff, photo)))
        photos.add_row(Text(photo.uri), what, f"{photo.share:.1%}", changes)
    if (more := len(diff.photos) - top) > 0:
        photos.add_row(f"… and {more} more; --html FILE shows them", "", "", "")
    return Group(Text(summary(diff)), *(table for table in (labels, photos) if table.row_count))


def summary(diff: VersionDiff) -> str:
    """Return the numbers of photos in one line."""
    counts = diff.counts
    parts = [f"{counts['added']} came", f"{counts['removed']} went", f"{counts['relabelled']} have other masks"]
    parts += [f"{diff.unchanged} are the same"]
    parts += [f"{counts['not compared']} could not be compared"] if counts["not compared"] else []
    return f"{diff.before.tag} → {diff.after.tag}: photos: {', '.join(parts)}"


def describe_labels(diff: VersionDiff, photo: PhotoChange) -> list[str]:
    """Return how each label of a photo changed, such as `skirt changed: 1,204 pixels, IoU 0.91`."""
    texts = []
    for change in photo.labels:
        name, size = diff.label(change.label_id).name, f"{change.changed:,} pixels"
        if change.kind == "changed":
            texts.append(f"{name} changed: {size}, IoU {change.iou:.2f}")
        else:
            texts.append(f"{name} {change.kind}: {size}" if photo.kind == "relabelled" else f"{name}: {size}")
    return texts


def write_page(path: Path, diff: VersionDiff, text: str, pictures: int = 60) -> None:
    """Write the page: `pictures` photos with the masks of both versions, all others by their addresses.

    `text` is what the later version's tag says. The file is complete or as it was before. A photo that cannot be read
    is on the page with the reason.
    """
    chosen = _choose(diff.photos, pictures)
    cards = [_card(diff, photo) for photo in chosen]
    shown = {id(photo) for photo in chosen}
    others = [photo for photo in diff.photos if id(photo) not in shown]
    html = render(
        _TEMPLATE,
        diff=diff,
        text=text,
        tiles=[
            ("other masks", diff.counts["relabelled"]), ("came", diff.counts["added"]),
            ("went", diff.counts["removed"]), ("the same", diff.unchanged),
        ],
        labels=[(diff.label(row[0]), *row[1:]) for row in diff.of_labels()],
        groups=[
            (heading, [card for card in cards if card.change.kind == kind], diff.counts[kind])
            for heading, kind in _HEADINGS
        ],
        describe=lambda photo: describe_labels(diff, photo),
        color=lambda change: diff.label(change.label_id).color,
        others=others[:_LISTED],
        more=max(0, len(others) - _LISTED),
        legend=((GAINED, "labelled now"), (LOST, "not labelled any more"), (OTHER, "another label")),
    )  # fmt: skip
    write_atomically(path, html.encode())


def draw_outlines(photo: np.ndarray, mask: np.ndarray, labels: dict[int, LabelName]) -> np.ndarray:
    """Return a (h, w, 3) uint8 RGB photo, 340 pixels at most, with its labels' outlines in their colors."""
    picture, small = _fit(photo), _fit_mask(mask, photo)
    outlines = {
        label_id: cv2.findContours((small == label_id).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
        for label_id in np.unique(small[small > 0]).tolist()
    }
    for around in outlines.values():
        cv2.drawContours(picture, around, -1, (255, 255, 255), 3, cv2.LINE_AA)
    for label_id, around in outlines.items():
        color = _rgb(labels[label_id].color if label_id in labels else "#808080")
        cv2.drawContours(picture, around, -1, color, 2, cv2.LINE_AA)
    return picture


def draw_difference(photo: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return a pale (h, w, 3) uint8 RGB photo on which the pixels with another label are colored."""
    grey = cv2.cvtColor(_fit(photo), cv2.COLOR_RGB2GRAY)
    picture = np.repeat((160 + grey.astype(np.float32) * 0.37).astype(np.uint8)[..., None], 3, axis=2)
    if before.shape != after.shape:
        return picture
    kinds = np.zeros(before.shape, np.uint8)
    kinds[(before != after) & (before == 0)] = 1
    kinds[(before != after) & (after == 0)] = 2
    kinds[(before != after) & (before > 0) & (after > 0)] = 3
    for kind, color in enumerate((GAINED, LOST, OTHER), start=1):
        # A picture is smaller than the photo, and a pixel of it shows a change of any pixel that it covers.
        share = cv2.resize((kinds == kind).astype(np.float32), grey.shape[::-1], interpolation=cv2.INTER_AREA)
        picture[share > 0] = _rgb(color)
    return picture


def _card(diff: VersionDiff, photo: PhotoChange) -> Card:
    """Draw a photo's pictures; a card without pictures says why there are none."""
    try:
        return Card(photo, tuple((caption, _jpeg(picture)) for caption, picture in _draw(diff, photo)), photo.problem)
    except (MaskloopError, OSError) as error:
        return Card(photo, (), photo.problem or str(error))


def _draw(diff: VersionDiff, photo: PhotoChange) -> list[tuple[str, np.ndarray]]:
    if photo.kind != "relabelled":
        version = diff.after if photo.kind == "added" else diff.before
        return [(version.tag, _outlined(version, photo))]
    image = diff.after.image(photo.sha256)
    if photo.problem:
        return [("photo", _fit(image))]
    before, after = diff.before.mask(photo.sha256), diff.after.mask(photo.sha256)
    return [
        (diff.before.tag, draw_outlines(image, before, diff.before.labels)),
        (diff.after.tag, draw_outlines(image, after, diff.after.labels)),
        ("difference", draw_difference(image, before, after)),
    ]


def _outlined(version: Version, photo: PhotoChange) -> np.ndarray:
    return draw_outlines(version.image(photo.sha256), version.mask(photo.sha256), version.labels)


def _choose(photos: Sequence[PhotoChange], count: int) -> list[PhotoChange]:
    """Return the photos to draw: those with other masks first, but a third is left to those that came or went."""
    relabelled = [photo for photo in photos if photo.kind == "relabelled"]
    others = [photo for photo in photos if photo.kind != "relabelled"]
    kept = min(len(others), max(count // 3, count - len(relabelled)))
    return [*relabelled[: count - kept], *others[:kept]]


def _fit(photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[:2]
    scale = _SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _fit_mask(mask: np.ndarray, photo: np.ndarray) -> np.ndarray:
    height, width = _fit(photo).shape[:2]
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)


def _jpeg(picture: np.ndarray) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done, f"OpenCV cannot encode a picture of shape {picture.shape}"
    return inline(data.tobytes(), "jpeg")


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in columns:
        table.add_column(heading, overflow="fold", justify="right" if "pixels" in heading or " " in heading else "left")
    return table
