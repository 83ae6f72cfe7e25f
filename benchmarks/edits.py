"""How well clicks correct masks that are partly wrong, without a learned model: three ways to say what a click reaches.

Masks are damaged as weak models damage them: a part is missing, a neighbour is covered, the outline is off, until their
IoU is between 0.4 and 0.85. Each click falls on the middle of the largest wrong part, as in the field's simulations.
Ours reaches as far as the mask's outline says; the peers cut anew within a fixed distance of the click, or add and
subtract what a new click without a mask selects. Rows are means over garments; "worse" is the share of first clicks
that lower the IoU. Photos are those of MASKLOOP_CCP (a folder with photos/, masks/ and labels.csv) where it is set,
drawn ones elsewhere; the row says which.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from rich.progress import track

from benchmarks._photos import known_photos, photos_name
from benchmarks.harness import Row
from pipelines.params import IGNORE, load_params
from pipelines.segmentation.editing import edit_mask, parts_of
from pipelines.segmentation.grabcut import GrabCutPredictor, shrink
from pipelines.segmentation.prompts import Prompts
from pipelines.settings import PROJECT_ROOT

_PHOTOS, _CLICKS, _SEED = 18, 4, 0
_FIRST = 700  # drawing, and the seed by which real photos are chosen
_SMALLEST = 0.004  # share of the photo; smaller garments are not corrected
_FIXED = 0.08  # share of the long side: the best of the fixed distances that were tried
_Way = Callable[[GrabCutPredictor, np.ndarray, tuple[int, int], bool], np.ndarray]


def run() -> list[Row]:
    """Correct the same masks in each way."""
    chance = np.random.default_rng(_SEED)
    ways: dict[str, _Way] = {"ours": _ours, "fixed": _fixed, "anew": _anew}
    traces: dict[str, list[list[float]]] = {name: [] for name in ways}
    for predictor, truth, others in track(_garments(), "correcting masks", transient=True):
        start = _damaged(truth, others, chance)
        if start is None:
            continue
        for name, way in ways.items():
            traces[name].append(_corrected(predictor, start, truth, way))
    iou = {name: np.array(values) for name, values in traces.items()}
    count = len(iou["ours"])
    rows = []
    for peer in ("fixed", "anew"):
        for clicks in range(1, _CLICKS + 1):
            ours, other = float(iou["ours"][:, clicks].mean()), float(iou[peer][:, clicks].mean())
            name = f"IoU after {clicks} clicks from {iou['ours'][:, 0].mean():.2f}, against {peer} ({photos_name()})"
            rows.append(Row(name, ours, other, ours / other, "IoU", count))
        worse = {name: float((iou[name][:, 1] < iou[name][:, 0] - 1e-3).mean()) for name in ("ours", peer)}
        ratio = worse[peer] / worse["ours"] if worse["ours"] else None
        rows.append(
            Row(
                f"first clicks that make it worse, against {peer} ({photos_name()})",
                worse["ours"],
                worse[peer],
                ratio,
                "share",
                count,
            )
        )
    return rows


def _garments() -> Iterator[tuple[GrabCutPredictor, np.ndarray, np.ndarray]]:
    """Yield a predictor, a garment's true mask and the other garments, at the size at which clicks are answered."""
    for photo, labels in known_photos(load_params(PROJECT_ROOT / "params.yaml"), _PHOTOS, seed=_FIRST):
        predictor = shrink(photo, {})
        size = predictor.image.shape[1::-1]
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        for label in np.unique(small[(small > 0) & (small != IGNORE)]):
            truth = small == label
            if truth.mean() >= _SMALLEST:
                yield predictor, truth, (small > 0) & ~truth


def _damaged(truth: np.ndarray, others: np.ndarray, chance: np.random.Generator) -> np.ndarray | None:
    rows, columns = np.nonzero(truth)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    for _ in range(40):
        mask = truth.copy()
        for _ in range(chance.integers(1, 4)):
            place = chance.integers(len(rows))
            blob = _blob(
                truth.shape, (int(columns[place]), int(rows[place])), extent * chance.uniform(0.1, 0.4), chance
            )
            kind = chance.integers(4)
            if kind == 0:
                mask &= ~blob
            elif kind in (1, 2):
                mask |= blob if kind == 1 else blob & others
            else:
                kernel = np.ones((2 * max(1, int(extent * chance.uniform(0.01, 0.05))) + 1,) * 2, np.uint8)
                moved = (cv2.erode if chance.random() < 0.5 else cv2.dilate)(mask.astype(np.uint8), kernel)
                mask = moved > 0
        if mask.any() and 0.4 <= _iou(mask, truth) <= 0.85:
            return mask
    return None


def _blob(shape: tuple[int, ...], centre: tuple[int, int], radius: float, chance: np.random.Generator) -> np.ndarray:
    blob = np.zeros(shape, np.uint8)
    axes = int(radius), max(2, int(radius * chance.uniform(0.5, 1)))
    cv2.ellipse(blob, centre, axes, float(chance.uniform(0, 180)), 0, 360, 1, -1)
    return blob > 0


def _corrected(predictor: GrabCutPredictor, start: np.ndarray, truth: np.ndarray, way: _Way) -> list[float]:
    """Return the IoU before and after each click."""
    mask, trace = start, [_iou(start, truth)]
    for _ in range(_CLICKS):
        click = _next_click(mask, truth)
        if click:
            mask = way(predictor, mask, click[0], click[1])
        trace.append(_iou(mask, truth))
    return trace


def _next_click(mask: np.ndarray, truth: np.ndarray) -> tuple[tuple[int, int], bool] | None:
    """Return the middle of the largest wrong part, and whether it is missing; None when all parts are slivers."""
    best: tuple[float, tuple[int, int], bool] | None = None
    for wrong, positive in ((truth & ~mask, True), (mask & ~truth, False)):
        distance = cv2.distanceTransform(np.pad(wrong.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(distance.argmax(), distance.shape)
        if best is None or distance[y, x] > best[0]:
            best = float(distance[y, x]), (int(x), int(y)), positive
    return (best[1], best[2]) if best and best[0] >= 1.5 else None


def _ours(predictor: GrabCutPredictor, mask: np.ndarray, point: tuple[int, int], positive: bool) -> np.ndarray:
    return edit_mask(predictor.image, mask, point, positive=positive)


def _fixed(predictor: GrabCutPredictor, mask: np.ndarray, point: tuple[int, int], positive: bool) -> np.ndarray:
    """Cut anew within a fixed distance of the click."""
    long_side = max(mask.shape)
    near, sure = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint8)
    cv2.circle(near, point, int(_FIXED * long_side), 1, -1)
    cv2.circle(sure, point, int(0.028 * long_side), 1, -1)
    trimap = np.where(mask, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    trimap[(near > 0) & mask], trimap[(near > 0) & ~mask] = cv2.GC_PR_FGD, cv2.GC_PR_BGD
    trimap[sure > 0] = cv2.GC_FGD if positive else cv2.GC_BGD
    if np.isin(trimap, (1, 3)).any() and not np.isin(trimap, (1, 3)).all():
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(predictor.image, trimap, (0, 0, 0, 0), *models, 3, cv2.GC_INIT_WITH_MASK)
    return parts_of(np.isin(trimap, (1, 3)), mask, [point] if positive else [])


def _anew(predictor: GrabCutPredictor, mask: np.ndarray, point: tuple[int, int], positive: bool) -> np.ndarray:
    """Add, or subtract, what a click without a mask selects at this place."""
    scale = np.array([predictor.width / mask.shape[1], predictor.height / mask.shape[0]])
    prompts = Prompts((np.array([point]) * scale).astype(np.float32), np.array([True]), None, "")
    selected = predictor.predict(prompts)[0].astype(np.uint8)
    small = cv2.resize(selected, mask.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return mask | small if positive else mask & ~small


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
