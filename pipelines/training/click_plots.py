"""Pictures of how segmenters answer clicks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from pipelines.records import PhotoAddress
from pipelines.segmentation.prompts import Prompts, already_open
from pipelines.training.click_simulation import next_click

if TYPE_CHECKING:
    from pipelines.segmentation.interactive import ImagePredictor, InteractiveSegmenter
    from pipelines.training.evaluate_clicks import ClickTruth, KnownPhoto

_SHEETS, _PANELS, _HEIGHT = 12, (1, 2, 4), 420  # pictures, clicks after which the mask is shown, pixels
_GREEN, _RED = (60, 200, 60), (230, 60, 60)


def draw_click_curves(summaries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the mean IoU of each segmenter after 1 to 10 clicks."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, measured in summaries.items():
        values = measured["iou_after"]
        axes.plot(range(1, len(values) + 1), values, "o-", label=f"{name} (NoC85 {measured['noc85']:.1f})")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1))
    axes.grid(color="0.9")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)


def draw_click_sheets(segmenter: "InteractiveSegmenter", photos: "Sequence[KnownPhoto]", folder: Path) -> None:
    """Draw garments of different photos: the truth, and the answer after one, two and four clicks with the clicks."""
    shown = [photo for photo in photos if photo.garments][:_SHEETS]
    for number, photo in enumerate(shown):
        address = PhotoAddress(f"gs://measured/{photo.name}", 1)
        predictor = segmenter.set_image(address, already_open(photo.image), use_prior=True)
        garment = photo.garments[number % len(photo.garments)]
        panels = [_outlined(photo.image, garment.truth, []), *_answers(predictor, photo.image, garment)]
        sheet = np.hstack([_fit(panel) for panel in panels])
        name = f"{number:02d}-{garment.label.replace(' ', '-')}.jpg"
        cv2.imwrite(str(folder / name), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def _answers(predictor: "ImagePredictor", image: np.ndarray, garment: "ClickTruth") -> list[np.ndarray]:
    panels: list[np.ndarray] = []
    mask: np.ndarray | None = None
    points: list[tuple[int, int, bool]] = []
    for number in range(1, max(_PANELS) + 1):
        current = np.zeros_like(garment.truth) if mask is None else mask
        if place := next_click(current, garment.truth, judged=garment.judged):
            points.append(place)
            coordinates = np.array([point[:2] for point in points], np.float32)
            positive = np.array([point[2] for point in points])
            if positive.any():
                mask = predictor.predict(Prompts(coordinates, positive, None, garment.label, mask))[0]
        if number in _PANELS:
            panels.append(_outlined(image, current if mask is None else mask, points))
    return panels


def _outlined(image: np.ndarray, mask: np.ndarray, points: list[tuple[int, int, bool]]) -> np.ndarray:
    picture = image.copy()
    picture[mask] = (0.55 * picture[mask] + 0.45 * np.array(_GREEN)).astype(np.uint8)
    size = max(2, max(image.shape) // 120)
    for x, y, positive in points:
        cv2.circle(picture, (x, y), size + 2, (255, 255, 255), -1)
        cv2.circle(picture, (x, y), size, _GREEN if positive else _RED, -1)
    return picture


def _fit(picture: np.ndarray) -> np.ndarray:
    width = round(picture.shape[1] * _HEIGHT / picture.shape[0])
    return cv2.resize(picture, (width, _HEIGHT), interpolation=cv2.INTER_AREA)
