"""How good the answers of GrabCut are, which stand in where no Segment Anything checkpoint can be had.

On photos that nothing was tuned or trained on, real ones where MASKLOOP_CCP names them, each garment is asked for with
one click, with a click and a "not this" in the garment beside it, and with a box; alone, and with what a champion
trained for a minute sees. The peer is OpenCV's GrabCut as its documentation uses it: the box, or for clicks a disc as
sure foreground within a rectangle of the photo. Rows are the mean IoU with the true mask, for clicks with the part of
it that is clicked; "times better" is ours by the peer's.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks._model import train_briefly
from benchmarks._photos import known_photos, photos_name
from benchmarks.harness import Row
from pipelines.params import IGNORE, load_params
from pipelines.segmentation.grabcut import Prior, shrink
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.segmentation.prompts import Prompts
from pipelines.settings import PROJECT_ROOT

_ASKED, _LEARNED_FROM, _SEED = 12, 32, 500
_SMALLEST = 0.005  # share of the photo; smaller garments are not asked for
_NO_POINTS = np.zeros((0, 2), np.float32)


def run() -> list[Row]:
    """Compare the answers to three kinds of prompts."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    photos = list(known_photos(params, _ASKED + _LEARNED_FROM, seed=_SEED))
    scores: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as folder:
        train_briefly(params, Path(folder), photos[_ASKED:])
        champion = load_model(Path(folder))
    for image, mask in photos[:_ASKED]:
        alone, helped = shrink(image, {}), shrink(image, _prior(champion, image))
        garments = np.where(mask == IGNORE, 0, mask)
        for label_id in np.flatnonzero(np.bincount(garments.ravel()) > _SMALLEST * mask.size)[1:]:
            truth = mask == label_id
            for kind, prompts in _asked(garments, truth, params.label_names[int(label_id)]):
                wanted = truth if prompts.box is not None else _part_at(truth, prompts.point_coords[0])
                masks = (alone.predict(prompts)[0], helped.predict(prompts)[0], _opencv(image, prompts))
                ious = [_iou(mask, wanted) for mask in masks]
                scores.setdefault(kind, []).append((ious[0], ious[1], ious[2]))
    return [row for kind, ious in scores.items() for row in _rows(kind, ious)]


def _rows(kind: str, ious: list[tuple[float, float, float]]) -> Iterator[Row]:
    alone, helped, peer = (statistics.fmean(column) for column in zip(*ious, strict=True))
    yield Row(f"{kind}, colours alone ({photos_name()})", alone, peer, alone / peer, "IoU", len(ious))
    yield Row(f"{kind}, with the champion ({photos_name()})", helped, peer, helped / peer, "IoU", len(ious))


def _asked(index_mask: np.ndarray, truth: np.ndarray, label: str) -> Iterator[tuple[str, Prompts]]:
    inside = _deepest(truth)
    yield "one click", Prompts(np.array([inside], np.float32), np.array([True]), None, label)
    others = index_mask * ~truth
    if others.any():
        near = cv2.dilate(truth.astype(np.uint8), np.ones((41, 41), np.uint8)) * others
        if near.any():
            beside = _deepest(near == np.bincount(near.ravel())[1:].argmax() + 1)
            points = np.array([inside, beside], np.float32)
            yield "a click and a negative one", Prompts(points, np.array([True, False]), None, label)
    x, y, width, height = cv2.boundingRect(truth.astype(np.uint8))
    rows, columns = truth.shape
    box = max(0, x - 3), max(0, y - 3), min(columns - 1, x + width + 3), min(rows - 1, y + height + 3)
    yield "a box", Prompts(_NO_POINTS, np.zeros(0, bool), np.array(box, np.float32), label)


def _opencv(photo: np.ndarray, prompts: Prompts) -> np.ndarray:
    """Cut as the tutorial does, at the photo's full size: `cv.grabCut` with a rectangle, or with marks in a mask."""
    height, width = photo.shape[:2]
    image, trimap = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    if prompts.box is not None:
        x1, y1, x2, y2 = (int(value) for value in prompts.box)
        cv2.grabCut(image, trimap, (x1, y1, x2 - x1, y2 - y1), *models, 5, cv2.GC_INIT_WITH_RECT)
    else:
        trimap[height // 20 : -height // 20, width // 20 : -width // 20] = cv2.GC_PR_BGD
        for place, positive in zip(prompts.point_coords.astype(int).tolist(), prompts.point_labels, strict=True):
            cv2.circle(trimap, place, 10, cv2.GC_FGD if positive else cv2.GC_BGD, -1)
        cv2.grabCut(image, trimap, (0, 0, 0, 0), *models, 5, cv2.GC_INIT_WITH_MASK)
    return np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _prior(champion: ClothingModel, photo: np.ndarray) -> Prior:
    planes = np.rint(champion.probabilities(photo)[1:] * 255).astype(np.uint8)
    return {label: plane for label, plane in zip(champion.card.labels, planes, strict=True) if plane.max() > 127}


def _part_at(truth: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the part of a garment that is clicked: the other shoe takes a click of its own."""
    _, parts = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    x, y = point.astype(int)
    return np.asarray(parts == parts[y, x])


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return float(x), float(y)


def _iou(mask: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0
