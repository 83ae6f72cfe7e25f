"""Draw one example of each label for the labelers' guide: `python -m scripts.label_pictures`.

Nobody's photo is published: the examples are drawn photos of the demo, and sketches of garments that it does not draw.
"""

from pathlib import Path

import cv2
import numpy as np

from pipelines.demo.photos import draw_photo
from pipelines.params import load_params
from pipelines.settings import PROJECT_ROOT

PICTURES = PROJECT_ROOT / "docs" / "pictures"
SEEDS = range(40)  # photos among which the one that shows most of a label is the example
HEIGHT = 260  # pixels of a picture
_MARGIN = 0.12  # around the garment, as a share of the photo's height
_SKETCH = (600, 400)  # height and width of a sketch; the points below are (x, y) in its pixels
_SKIN, _CLOTH = (222, 184, 160), (92, 120, 158)
_BODY: tuple[tuple[tuple[int, int], ...], ...] = (
    ((185, 110), (215, 110), (215, 150), (185, 150)),
    ((140, 150), (260, 150), (300, 330), (282, 335), (250, 215), (245, 330), (155, 330), (150, 215), (118, 335),
     (100, 330)),
    ((155, 325), (245, 325), (235, 590), (210, 590), (200, 350), (190, 590), (165, 590)),
)  # fmt: skip
_GARMENTS: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "blouse": (
        ((150, 148), (185, 140), (200, 165), (215, 140), (250, 148), (318, 290), (270, 325), (252, 235), (262, 350),
         (138, 350), (148, 235), (130, 325), (82, 290)),
    ),
    "jersey shirt": (
        ((150, 148), (180, 142), (200, 158), (220, 142), (250, 148), (290, 230), (258, 245), (250, 215), (252, 350),
         (148, 350), (150, 215), (142, 245), (110, 230)),
    ),
    "jumpsuit": (
        ((155, 150), (180, 145), (200, 180), (220, 145), (245, 150), (248, 330), (246, 580), (208, 580), (200, 370),
         (192, 580), (154, 580), (152, 330)),
    ),
    "other accessories": (
        ((162, 66), (196, 66), (196, 88), (162, 88)), ((204, 66), (238, 66), (238, 88), (204, 88)),
        ((190, 72), (210, 72), (210, 77), (190, 77)), ((192, 150), (208, 150), (216, 290), (200, 310), (184, 290)),
    ),
    "other tops": (
        ((152, 190), (176, 174), (200, 192), (224, 174), (248, 190), (243, 300), (250, 335), (150, 335), (157, 300)),
    ),
    "swimwear": (
        ((163, 150), (173, 150), (186, 195), (200, 205), (214, 195), (227, 150), (237, 150), (243, 230), (246, 320),
         (206, 380), (194, 380), (154, 320), (157, 230)),
    ),
    "tailleur": (
        ((150, 148), (180, 142), (200, 230), (220, 142), (250, 148), (302, 320), (276, 332), (252, 230), (260, 345),
         (140, 345), (148, 230), (124, 332), (98, 320)),
        ((152, 340), (248, 340), (256, 470), (144, 470)),
    ),
}  # fmt: skip


def picture_name(label: str) -> str:
    """Return the file name of a label's picture, such as `label-jersey-shirt.jpg`."""
    return f"label-{label.replace(' ', '-')}.jpg"


def best_examples(label_ids: dict[str, int]) -> dict[str, int]:
    """Return, by label, the seed of the drawn photo that shows most pixels of it; labels that none shows are absent."""
    largest: dict[str, tuple[int, int]] = {}
    for seed in SEEDS:
        sizes = np.bincount(draw_photo(seed, label_ids).mask.ravel(), minlength=256)
        for label, label_id in label_ids.items():
            if sizes[label_id]:
                largest[label] = max(largest.get(label, (0, 0)), (int(sizes[label_id]), seed))
    return {label: seed for label, (_, seed) in largest.items()}


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image cropped to the mask, with the mask's outline in red on white.

    `image` and what is returned are (height, width, 3) uint8 RGB, `mask` is (height, width) uint8, 0 or 1.
    """
    height, width = mask.shape
    x, y, box_width, box_height = cv2.boundingRect(mask)
    margin = round(_MARGIN * height)
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + box_width + margin), min(height, y + box_height + margin)
    scale = HEIGHT / (bottom - top)
    crop = cv2.resize(image[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    shape = cv2.resize(mask[top:bottom, left:right], crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    picture = np.ascontiguousarray(crop)
    for color, thickness in (((255, 255, 255), 5), ((228, 0, 43), 2)):
        cv2.drawContours(picture, outlines, -1, color, thickness, cv2.LINE_AA)
    return picture


def sketch(label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a sketch of a person who wears the garment, (height, width, 3) uint8 RGB, and its mask, 0 or 1."""
    image = np.full((*_SKETCH, 3), (236, 232, 226), np.uint8)
    mask = np.zeros(_SKETCH, np.uint8)
    for outline in _BODY:
        cv2.fillPoly(image, [np.array(outline)], _SKIN, cv2.LINE_AA)
    cv2.ellipse(image, (200, 80), (38, 48), 0, 0, 360, _SKIN, -1, cv2.LINE_AA)
    cv2.ellipse(image, (200, 62), (42, 36), 0, 180, 360, (70, 50, 40), -1, cv2.LINE_AA)
    if label == "jewelry":
        for canvas, color in ((image, (212, 175, 55)), (mask, 1)):
            cv2.ellipse(canvas, (200, 150), (34, 46), 0, 0, 180, color, 8)
            for x in (162, 238):
                cv2.circle(canvas, (x, 106), 7, color, -1)
    for outline in _GARMENTS.get(label, ()):
        cv2.fillPoly(image, [np.array(outline)], _CLOTH, cv2.LINE_AA)
        cv2.fillPoly(mask, [np.array(outline)], 1)
    return image, mask


def main(folder: Path = PICTURES) -> None:
    """Write a picture for each label of params.yaml."""
    label_ids = dict(load_params(PROJECT_ROOT / "params.yaml").label_ids)
    seeds = best_examples(label_ids)
    for label, label_id in label_ids.items():
        if label in seeds:
            photo = draw_photo(seeds[label], label_ids)
            image, mask = photo.image, (photo.mask == label_id).astype(np.uint8)
        else:
            image, mask = sketch(label)
        picture = cv2.cvtColor(outlined(image, mask), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / picture_name(label)), picture, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()
