"""Masks that look wrong to a model, the worst first, with the reason.

What counts is the largest connected piece of a photo that was drawn as one label and that the model sees as one other:
its extent, how sure the model is there, and how rarely the model takes these two labels for each other. Edges of
garments count nothing. The idea is that of confident learning (Northcutt, Jiang, Chuang: "Confident learning", 2021),
with pieces of photos in the place of pictures: what a model often confuses is no sign of a wrong label.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.params import IGNORE
from pipelines.segmentation.transforms import BACKGROUND, resize_mask

HEIGHT, WIDTH = 120, 80  # at which masks are compared
_EDGE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))  # what is nowhere as wide as this is the edge of a garment
_LEAST_SHARE = 0.005  # of the photo: a smaller difference is not worth anybody's time
_WRONG = 0.01  # share of pixels that are taken to be drawn wrong; see `_surprise`


@dataclass(frozen=True)
class Judged:
    """A photo with its (H, W) uint8 index mask, and a model's (C, h, w) float32 class probabilities.

    `labels` are the model's, with their pixel values; channel 0 is background. `judge` names the model.
    """

    sha256: str
    mask: np.ndarray
    probabilities: np.ndarray
    labels: Mapping[str, int]
    judge: str = ""


@dataclass(frozen=True)
class Suspicion:
    """A photo whose mask a model doubts: `score` 0..1, higher is worse, and the reason as a person reads it."""

    sha256: str
    score: float
    reason: str


@dataclass(frozen=True)
class _Piece:
    """A connected piece that was drawn as one label and is seen as another: label ids, share of photo, certainty."""

    sha256: str
    drawn: int
    seen: int
    share: float
    certainty: float  # mean of what the seen label is more probable than the drawn one


def find_suspicious(photos: Iterable[Judged], most: int) -> list[Suspicion]:
    """Return at most `most` suspicious photos, the worst first; photos come one at a time.

    Pixels that nobody could name (`IGNORE`), or whose label the model does not know, count nowhere.
    """
    pieces: dict[str, list[_Piece]] = defaultdict(list)
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((256, 256)))  # pixels by label drawn and label seen
    names = {BACKGROUND: ""}
    for photo in photos:
        names |= {value: name for name, value in photo.labels.items()}
        drawn, seen, certainty = _compare(photo)
        known = drawn != IGNORE
        pairs = drawn[known].astype(np.int32) * 256 + seen[known]
        counts[photo.judge] += np.bincount(pairs, minlength=65536).reshape(256, 256)
        pieces[photo.judge] += _pieces(photo.sha256, drawn, seen, certainty)
    worst: dict[str, Suspicion] = {}
    for judge, of_judge in pieces.items():
        surprise = _surprise(counts[judge])
        for piece in of_judge:
            score = float(np.sqrt(piece.share) * piece.certainty * surprise[piece.drawn, piece.seen])
            if piece.sha256 not in worst or score > worst[piece.sha256].score:
                worst[piece.sha256] = Suspicion(piece.sha256, score, _reason(piece, names))
    return sorted(worst.values(), key=lambda one: (-one.score, one.sha256))[:most]


def _compare(photo: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels drawn and seen, (h, w) uint8 pixel values, and by what the seen one is more probable.

    Where nobody could name a pixel, or the model does not know its label, it is `IGNORE` in the first.
    """
    probabilities = np.stack([_resized(plane) for plane in photo.probabilities])
    values = np.array([BACKGROUND, *photo.labels.values()], np.uint8)
    channel_of = np.full(256, IGNORE, np.uint8)
    channel_of[values] = np.arange(len(values))
    drawn = resize_mask(photo.mask, HEIGHT, WIDTH)
    channel = channel_of[drawn]
    unknown = (drawn == IGNORE) | (channel == IGNORE)
    seen = probabilities.argmax(axis=0)
    of_drawn = np.take_along_axis(probabilities, np.where(unknown, 0, channel)[None].astype(np.int64), axis=0)[0]
    return np.where(unknown, np.uint8(IGNORE), drawn), values[seen], probabilities.max(axis=0) - of_drawn


def _resized(plane: np.ndarray) -> np.ndarray:
    shrinks = plane.size > HEIGHT * WIDTH
    return cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _pieces(sha256: str, drawn: np.ndarray, seen: np.ndarray, certainty: np.ndarray) -> list[_Piece]:
    """Return the pieces that are wide enough not to be an edge, and large enough to matter."""
    known = drawn != IGNORE
    pairs = np.where(known & (drawn != seen), drawn.astype(np.int32) * 256 + seen, -1)
    total, found = max(1, int(known.sum())), []
    for pair in np.unique(pairs[pairs >= 0]).tolist():
        wide = cv2.morphologyEx((pairs == pair).astype(np.uint8), cv2.MORPH_OPEN, _EDGE)
        count, piece = cv2.connectedComponents(wide)
        sizes = np.bincount(piece.ravel(), minlength=count)[1:]
        sums = np.bincount(piece.ravel(), certainty.ravel(), minlength=count)[1:]
        found += [
            _Piece(sha256, pair // 256, pair % 256, float(size / total), float(whole / size))
            for size, whole in zip(sizes, sums, strict=True)
            if size >= _LEAST_SHARE * total
        ]
    return found


def _surprise(counts: np.ndarray) -> np.ndarray:
    """Return, by label drawn and label seen, (256, 256) how likely it is that such a difference is a wrong label: 0..1.

    `counts` are the pixels of all photos. By Bayes' rule with a share `_WRONG` of wrong labels, against how often the
    model sees the one where the other was drawn.
    """
    of_seen = counts / np.maximum(1, counts.sum(axis=0, keepdims=True))
    of_drawn = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    of_drawn[BACKGROUND] = 0  # of so many pixels every share is small
    return _WRONG / (_WRONG + of_seen + of_drawn)


def _reason(piece: _Piece, names: dict[int, str]) -> str:
    """Say which label the model takes for which other, and over how much of the photo."""
    share = f"({piece.share:.1%} of the photo)"
    if piece.drawn == BACKGROUND:
        return f"the model sees {names[piece.seen]} where nothing is drawn {share}"
    if piece.seen == BACKGROUND:
        return f"the model sees nothing where {names[piece.drawn]} is drawn {share}"
    return f"drawn as {names[piece.drawn]}, the model sees {names[piece.seen]} {share}"
