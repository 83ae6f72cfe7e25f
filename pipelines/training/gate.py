"""The promotion gate: champion and challenger on the same test photos, and a decision with its reasons."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipelines.params import PromoteParams
from pipelines.training.bootstrap import by_family
from pipelines.training.confusion import iou_of_pixels
from pipelines.training.decision import ClassVerdict, Decision, Steps, cell, detectable
from pipelines.training.floor import Floor
from pipelines.training.metrics import ENOUGH_FAMILIES, ENOUGH_PHOTOS, Evaluation
from pipelines.training.significance import Comparison, level_of_look

ROSE, KEPT, FELL = "rose", "kept", "fell"
NOT_MEASURED = "not measured"  # on too few test photos
NOT_COMPARED = "not compared"  # one of the models cannot know it


def known_to(cards: Sequence[Mapping[str, int]], labels: Mapping[str, int]) -> set[str]:
    """Return the labels that all models know, whatever they call them: pixel values never change.

    `cards` hold the labels of each model's card, name to pixel value, and `labels` those in force.
    """
    return {name for name, value in labels.items() if all(value in card.values() for card in cards)}


def decide(
    challenger: Evaluation,
    champion: Evaluation | None,
    names: Sequence[str],
    params: PromoteParams,
    *,
    looks: int = 0,
    known: Collection[str] | None = None,
    floor: Floor | None = None,
    steps: Steps | None = None,
    agreement: float | None = None,
    anchored: int = 0,
    seen: int = 0,
    number: int | None = None,
) -> Decision:
    """Compare two evaluations on the same photos; `names` has a name per channel, background first.

    `known` names the labels that both models know, all when left out; truth pixels of others count for nothing. The
    challenger must gain more than `min_gain` mIoU, the gain must be beyond chance at the level of this look, the one
    after `looks` others, and no class with at least `min_class_photos` test photos may lose more than `max_class_drop`
    IoU, unless the interval of its change holds 0. Whatever it gains, and without a champion as well, its masks must
    save people time (`floor`), its training must not have been cut short (`steps`), and as it is served it must agree
    with itself in 32 bits (`agreement`, or else the evaluation's). `number` is the challenger's version. Raise
    ValueError when the photos are not the same.
    """
    agreement = challenger.agreement if agreement is None else agreement
    weighed = Decision(
        False, "", challenger.confusion.miou(), photos=len(challenger.photos), families=len(set(challenger.families)),
        anchored=anchored, seen=seen, looks=looks, floor=floor, agreement=agreement, min_agreement=params.min_agreement,
        steps=steps,
    )  # fmt: skip
    obstacles = _obstacles(weighed, number)
    if champion is None:
        verdict = f"first model: test mIoU {cell(weighed.challenger_miou)}"
        verdict += f"; {floor}" if floor and floor.passes else ""
        return replace(weighed, promote=not obstacles, reason="; ".join([verdict, *obstacles]))
    if challenger.photos != champion.photos or challenger.families != champion.families:
        raise ValueError("champion and challenger were evaluated on different photos")
    shared = np.array([channel == 0 or known is None or name in known for channel, name in enumerate(names)])
    comparison = Comparison.of(challenger, champion, shared)
    compared = _compared(weighed, comparison, params)
    compared = replace(compared, classes=_classes(comparison, challenger, names, shared, params))
    verdict, is_better = _verdict(compared, params)
    reason = "; ".join([verdict, *obstacles, *_unmeasured(compared.classes, params)])
    return replace(compared, promote=is_better and not obstacles, reason=reason)


def _obstacles(weighed: Decision, number: int | None) -> list[str]:
    """Return what prevents a promotion whatever the champion is."""
    obstacles = []
    if not weighed.photos:
        obstacles.append("no test photo is left to judge it on; label test photos without a model's masks")
    if weighed.floor is None:
        obstacles.append("the time that its masks save is not known; evaluate it again")
    elif not weighed.floor.passes:
        obstacles.append(f"not promoted because {weighed.floor}")
    if weighed.agreement < weighed.min_agreement:
        obstacles.append(
            f"as served it agrees with 32 bits on {weighed.agreement:.1%} of the pixels only "
            f"(needs {weighed.min_agreement:.0%})"
        )
    if weighed.steps and weighed.steps.cut_short:
        obstacles.append(
            f"the training was cut short after {weighed.steps.done} of {weighed.steps.planned} steps; "
            f"`maskloop promote {number or 'NUMBER'}` makes it champion all the same"
        )
    return obstacles


def _compared(weighed: Decision, comparison: Comparison, params: PromoteParams) -> Decision:
    """Return the decision with the results of a comparison with the champion."""
    level = level_of_look(weighed.looks, params)
    challenger, champion = comparison.mious()
    return replace(
        weighed, challenger_miou=challenger, champion_miou=champion,
        gain=(challenger - champion, *comparison.gain_interval()), alpha=level, p=comparison.p_value(level),
        detectable_gain=comparison.detectable_gain(level),
    )  # fmt: skip


def _verdict(compared: Decision, params: PromoteParams) -> tuple[str, bool]:
    """Return a sentence on whether the challenger is better, and whether it is."""
    assert compared.gain is not None and compared.p is not None and compared.detectable_gain is not None
    mious = f"test mIoU {cell(compared.challenger_miou)} against the champion's {cell(compared.champion_miou)}"
    if not compared.gain[0] > params.min_gain:
        return f"no gain: {mious} (needs more than +{params.min_gain:g})", False
    if compared.p > compared.alpha:
        detected = detectable(compared.detectable_gain, compared.families, compared.alpha)
        look = f"look {compared.looks + 1} at this test split"
        chance = f"p = {compared.p:.2g}, at most {compared.alpha:.2g} at {look}"
        return f"not beyond chance: {mious} ({chance}); gains detected four times in five: {detected}", False
    fallen = [f"{row.name} −{row.champion_iou - row.challenger_iou:.2f}" for row in compared.classes
              if row.verdict == FELL]  # fmt: skip
    if fallen:
        return f"{mious}, but IoU fell by more than {params.max_class_drop:g}: {', '.join(fallen)}", False
    return f"better: {mious}", True


def _classes(
    comparison: Comparison, evaluation: Evaluation, names: Sequence[str], shared: np.ndarray, params: PromoteParams
) -> tuple[ClassVerdict, ...]:
    new, old = (iou_of_pixels(pixels.sum(0)) for pixels in (comparison.challenger, comparison.champion))
    low, high = comparison.class_intervals()
    shown = evaluation.confusions.sum(2) > 0
    photos, families = shown.sum(0), (by_family(shown.astype(int), evaluation.families) > 0).sum(0)
    rows = []
    for channel, name in enumerate(names):
        enough = photos[channel] >= ENOUGH_PHOTOS and families[channel] >= ENOUGH_FAMILIES and shared[channel]
        bounds = (float(low[channel]), float(high[channel])) if enough else (math.nan, math.nan)
        ious = (float(new[channel]), float(old[channel])) if shared[channel] else (math.nan, math.nan)
        verdict = _verdict_on_class(*ious, *bounds, params.max_class_drop)
        if not shared[channel]:
            verdict = NOT_COMPARED
        elif photos[channel] < params.min_class_photos:
            verdict = NOT_MEASURED
        rows.append(ClassVerdict(name, int(photos[channel]), *ious, verdict, *bounds))
    return tuple(rows)


def _verdict_on_class(new: float, old: float, low: float, high: float, most: float) -> str:
    """Return whether a class changed by more than `most` and beyond chance: its interval, if any, leaves out 0."""
    if new - old < -most and not high >= 0:
        return FELL
    return ROSE if new - old > most and not low <= 0 else KEPT


def _unmeasured(classes: Sequence[ClassVerdict], params: PromoteParams) -> list[str]:
    """Return notes on the classes that were not weighed, and why."""
    rare, unknown = (
        [row.name for row in classes if row.verdict == verdict] for verdict in (NOT_MEASURED, NOT_COMPARED)
    )
    notes = [f"not measured (under {params.min_class_photos} photos): {', '.join(rare)}"] if rare else []
    return notes + ([f"not compared (one of the models cannot know them): {', '.join(unknown)}"] if unknown else [])
