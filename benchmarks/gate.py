"""The gate's errors: how often it promotes a model that is no better, and misses one that is.

"Ours" is the gate, "peer" the usual way: a gain that 97.5 % of resamples of the photos confirm, at every look. Models
are drawn with a known skill; photos come in few families, each of which suits a model better or worse by a common
offset: of standard deviation 0.7 in logits where errors are counted, and 0.2, as between two trainings on much the same
photos, where power is. With MASKLOOP_CCP naming a folder of photos/, masks/ and labels.csv the rows on anchoring are
measured on its masks, and otherwise on drawn ones: there "ours" is a test split that people drew without masks, and
"peer" one on which they were shown the champion's.
"""

from collections.abc import Callable

import cv2
import numpy as np
from rich.progress import track

from benchmarks._answers import CLASSES, DrawnTestSplit, JitteredMasks, judged, submitted
from benchmarks._photos import photos_name, real_photos
from benchmarks.harness import Row
from pipelines.demo.photos import draw_photo
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT
from pipelines.training.bootstrap import resampled
from pipelines.training.confusion import pixels_of
from pipelines.training.floor import Floor
from pipelines.training.gate import Decision, decide
from pipelines.training.metrics import Evaluation, gain_of_pixels

NAMES = ("background", *(f"garment {number}" for number in range(1, CLASSES)))
SPLITS = [(photos, families) for photos in (12, 30, 100) for families in (3, 5, 10)]
_OWN = 0.2  # logits by which a family suits one of two similar models better
_TRIALS, _HISTORIES, _ROUNDS, _RESAMPLES = 3_000, 400, 20, 400
_OF_PEER = 5  # fewer trials of the usual way, whose errors are large enough to be seen
_GROWING = ((12, 3), (24, 6), (48, 12), (100, 25), (200, 50))  # photos and families
_MASKS, _TEST_PHOTOS, _OF_A_FAMILY, _ANCHORED_TRIALS, _HEIGHT = 400, 160, 4, 150, 200
_GOOD = 0.84  # mIoU of a champion whose masks people often leave as they are
Gate = Callable[[Evaluation, Evaluation, int], bool]


def run() -> list[Row]:
    """Measure false promotions, misses, and what anchored truth does to both."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    gate, rows = gate_of(params), []
    for photos, families in track(SPLITS, "equal models", transient=True):
        metric = f"equal models promoted, {photos} photos of {families} families"
        ours = share_promoted(photos, families, 0, gate, _TRIALS)
        peer = share_promoted(photos, families, 0, usual_gate, _TRIALS // _OF_PEER)
        rows.append(_shares(metric, ours, peer, _TRIALS))
    for photos, families in track([(12, 3), (30, 10), (100, 20)], "histories", transient=True):
        metric = f"histories of {_ROUNDS} equal models with a promotion, {photos} photos of {families} families"
        ours = share_of_histories(photos, families, gate, _ROUNDS, _HISTORIES)
        peer = share_of_histories(photos, families, usual_gate, _ROUNDS, _HISTORIES // _OF_PEER)
        rows.append(_shares(metric, ours, peer, _HISTORIES))
    for photos, families in track(_GROWING, "power", transient=True):
        for points in (3, 5, 10):
            skill = skill_for(points / 100)
            metric = f"{points} points better, promoted at the first look, {photos} photos of {families} families"
            share = share_promoted(photos, families, skill, gate, _TRIALS // 10, _OWN)
            rows.append(Row(metric, 100 * share, None, None, "%", _TRIALS // 10))
        detectable = float(np.median(detectable_gains(photos, families, params, 100)))
        metric = f"gain detected four times in five, {photos} photos of {families} families"
        rows.append(Row(metric, 100 * detectable, None, None, "points", 100))
    return rows + _anchoring(params)


def gate_of(params: Params) -> Gate:
    """Return whether the gate promotes a challenger over a champion, after so many looks at these photos."""
    return lambda challenger, champion, looks: decision_of(challenger, champion, looks, params).promote


def decision_of(challenger: Evaluation, champion: Evaluation, looks: int, params: Params) -> Decision:
    """Return the gate's decision on a model that saves time, and whose training was complete."""
    return decide(challenger, champion, NAMES, params.promote, looks=looks, floor=Floor(10.0))


def usual_gate(challenger: Evaluation, champion: Evaluation, _: int) -> bool:
    """Return whether 97.5 % of resamples of the photos, as though each were alone, confirm a gain."""
    pixels = (
        resampled(pixels_of(evaluation.confusions), evaluation.photos, _RESAMPLES)
        for evaluation in (challenger, champion)
    )
    return bool(np.quantile(gain_of_pixels(*pixels), 0.025) > 0)


def share_promoted(photos: int, families: int, skill: float, gate: Gate, trials: int, own: float = 0.7) -> float:
    """Return the share of challengers that are promoted at the first look, each on a test split of its own."""
    promoted = 0
    for seed in range(trials):
        drawn = DrawnTestSplit(photos, families, seed, own)
        champion, challenger = drawn.answers(), drawn.answers(skill)
        promoted += gate(challenger, champion, 0)
    return promoted / trials


def share_of_histories(photos: int, families: int, gate: Gate, rounds: int, histories: int) -> float:
    """Return the share of histories in which one of `rounds` equal models, on one test split, is promoted at all."""
    promoted = 0
    for seed in range(histories):
        drawn = DrawnTestSplit(photos, families, seed)
        champion = drawn.answers()
        promoted += any(gate(drawn.answers(), champion, looks) for looks in range(rounds))
    return promoted / histories


def skill_for(gain: float) -> float:
    """Return the skill in logits that gains so much mIoU on average."""

    def miou(skill: float) -> float:
        return float(
            np.mean([DrawnTestSplit(400, 200, seed, _OWN).answers(skill).confusion.miou() for seed in range(4)])
        )

    before, low, high = miou(0), 0.0, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if miou(middle) - before < gain else (low, middle)
    return (low + high) / 2


def detectable_gains(photos: int, families: int, params: Params, trials: int) -> list[float]:
    """Return the gains that the gate can detect with test splits of this size."""
    splits = [DrawnTestSplit(photos, families, seed, _OWN) for seed in range(trials)]
    decisions = [decision_of(drawn.answers(), drawn.answers(), 0, params) for drawn in splits]
    return [np.inf if decision.detectable_gain is None else decision.detectable_gain for decision in decisions]


def anchoring(masks: JitteredMasks, points: float, params: Params, trials: int) -> tuple[float, float, float, float]:
    """Compare two models on a test split drawn without masks, and on one where people were shown the champion's.

    The challenger is better by so many points of mIoU. Return the shares of trials in which it is promoted, blind and
    anchored, the share in which the blind split can detect such a gain, and the share of those in which it is promoted.
    """
    amplitude, better = (masks.amplitude_for(miou, 1) for miou in (_GOOD, _GOOD + points / 100))
    families = [str(number // _OF_A_FAMILY) for number in range(_TEST_PHOTOS)]
    blind, anchored, detects = np.zeros((3, trials), bool)
    for seed in range(trials):
        chosen = np.random.default_rng(seed).choice(len(masks.masks), _TEST_PHOTOS, replace=False).tolist()
        truths = [masks.masks[number] for number in chosen]
        champion = masks.answers(chosen, families, amplitude, 2 * seed + 100)
        challenger = masks.answers(chosen, families, better, 2 * seed + 101)
        drawn = [submitted(mask, truth, params.effort) for mask, truth in zip(champion, truths, strict=True)]
        decisions = [
            decision_of(judged(challenger, those, families), judged(champion, those, families), 0, params)
            for those in (truths, drawn)
        ]
        blind[seed], anchored[seed] = (decision.promote for decision in decisions)
        detects[seed] = (decisions[0].detectable_gain or np.inf) <= points / 100
    where_detected = float(blind[detects].mean()) if detects.any() else np.nan
    return float(blind.mean()), float(anchored.mean()), float(detects.mean()), where_detected


def masks_of(params: Params, count: int) -> tuple[str, JitteredMasks]:
    """Return real masks where MASKLOOP_CCP names a folder of them, or drawn ones, as channel maps of one size."""
    size = _HEIGHT * 2 // 3, _HEIGHT  # width and height for OpenCV
    source = real_photos(params)
    if source is not None:
        masks = [source.truth(name) for name in source.take(0, count)]
    else:
        masks = [draw_photo(seed, params.label_ids, size[::-1]).mask for seed in range(count)]
    channel_of = np.zeros(256, np.uint8)
    channel_of[list(params.label_ids.values())] = np.arange(1, len(params.label_ids) + 1)
    small = [cv2.resize(channel_of[mask], size, interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return photos_name(), JitteredMasks(small)


def _anchoring(params: Params) -> list[Row]:
    what, masks = masks_of(params, _MASKS)
    rows = []
    for points in (3, 0):
        blind, anchored, detects, where_detected = anchoring(masks, points, params, _ANCHORED_TRIALS)
        which = f"{points} points better" if points else "equal"
        metric = f"{which}, promoted, {_TEST_PHOTOS} masks of {what} of {_TEST_PHOTOS // _OF_A_FAMILY} families"
        rows.append(Row(metric, 100 * blind, 100 * anchored, None, "%", _ANCHORED_TRIALS))
        if points:
            rows.append(
                Row("… where the test split can detect it", 100 * where_detected, None, None, "%", _ANCHORED_TRIALS)
            )
            rows.append(Row("… and how often it can", 100 * detects, None, None, "%", _ANCHORED_TRIALS))
    return rows


def _shares(metric: str, ours: float, peer: float, trials: int) -> Row:
    return Row(metric, 100 * ours, 100 * peer, peer / ours if ours else None, "%", trials)
