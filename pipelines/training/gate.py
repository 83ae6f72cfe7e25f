"""The promotion gate: champion and challenger on the same test photos, and a decision with its reasons."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.params import PromoteParams
from pipelines.training.bootstrap import by_family
from pipelines.training.confusion import iou_of_pixels
from pipelines.training.floor import Floor
from pipelines.training.metrics import ENOUGH_FAMILIES, ENOUGH_PHOTOS, Evaluation
from pipelines.training.significance import Comparison, families_for, level_of_look

ROSE, KEPT, FELL = "rose", "kept", "fell"
NOT_MEASURED = "not measured"  # on too few test photos
NOT_COMPARED = "not compared"  # one of the models cannot know it


@dataclass(frozen=True)
class ClassVerdict:
    """One class at the gate: its test photos, both IoUs, and the 95 % interval of their difference.

    `verdict` is rose or fell (by more than `max_class_drop`, and beyond chance as far as there is an interval), kept,
    not measured (on too few test photos) or not compared (one of the models cannot know it). What is not known is NaN.
    """

    name: str
    photos: int
    challenger_iou: float
    champion_iou: float
    verdict: str
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of a training, as in training.json; `ended_by` is schedule, minutes or patience."""

    done: int
    planned: int
    ended_by: str = "schedule"

    @property
    def cut_short(self) -> bool:
        """Return whether the minutes ended the training before its schedule did."""
        return self.ended_by == "minutes" and self.done < self.planned

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Steps":
        """Read the fields of training.json."""
        return cls(int(fields["done_steps"]), int(fields["planned_steps"]), str(fields["ended_by"]))


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, why, and all that was weighed.

    `photos` of `families` are the test photos both were judged on: no model drew any part of their masks, which leaves
    out `anchored` ones, and neither model trained on them, which leaves out `seen` ones. `looks` counts earlier looks
    at this test split. `gain` is the difference of mIoU with its 95 % interval, `p` the chance of so large a gain when
    neither model is better, and `alpha` the level of this look, which p must not exceed; `detectable_gain` is the
    smallest gain found here four times in five. A first model has no champion to be compared with: these are None and
    `classes` empty.
    """

    promote: bool
    reason: str
    challenger_miou: float
    champion_miou: float | None = None
    gain: tuple[float, float, float] | None = None  # estimate, low, high
    classes: tuple[ClassVerdict, ...] = ()
    photos: int = 0
    families: int = 0
    anchored: int = 0
    seen: int = 0
    looks: int = 0
    alpha: float = 0.0
    p: float | None = None
    detectable_gain: float | None = None
    floor: Floor | None = None
    agreement: float = 1.0
    min_agreement: float = 0.0
    steps: Steps | None = None

    def facts(self) -> list[tuple[str, str]]:
        """Return what was weighed besides mIoU and classes, as pairs of a name and a sentence."""
        left_out = [f"{self.anchored} left out because a model drew part of them"] * bool(self.anchored)
        left_out += [f"{self.seen} left out because one of the models trained on them"] * bool(self.seen)
        facts = [("test photos", "; ".join([f"{self.photos} of {_count(self.families)}", *left_out]))]
        if self.p is not None and self.detectable_gain is not None:
            facts += [
                (
                    "chance of such a gain between equal models",
                    f"p = {self.p:.2g}; at most {self.alpha:.2g} is allowed at this look",
                ),
                ("earlier looks at this test split", str(self.looks)),
                ("gains detected four times in five", _detectable(self.detectable_gain, self.families, self.alpha)),
            ]
        if self.floor:
            facts.append(("people's time", f"{self.floor}: {'enough' if self.floor.passes else 'not enough'}"))
        share = f"the same mask on {self.agreement:.2%} of the pixels (at least {self.min_agreement:.0%})"
        facts.append(("as served, against 32 bits", share))
        if self.steps:
            cut = ", cut short" if self.steps.cut_short else ""
            facts.append(("training", f"{self.steps.done} of {self.steps.planned} steps{cut}"))
        return facts

    def as_markdown(self) -> str:
        """Return the decision with tables of what was weighed."""
        lines = [f"**{'Promoted' if self.promote else 'Not promoted'}**: {self.reason}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {text} |" for name, text in self.facts()]
        if self.gain and self.champion_miou is not None:
            lines += [
                "",
                "| | test photos | champion | challenger | change | 95 % | verdict |",
                "|---|--:|--:|--:|--:|--:|---|",
                f"| **mIoU** | {self.photos} | {_cell(self.champion_miou)} | {_cell(self.challenger_miou)} "
                f"| {_cell(self.gain[0], '+')} | {_range(*self.gain[1:])} | |",
            ]
            lines += [
                f"| {row.name} | {row.photos} | {_cell(row.champion_iou)} | {_cell(row.challenger_iou)} "
                f"| {_cell(row.challenger_iou - row.champion_iou, '+')} | {_range(row.low, row.high)} | {row.verdict} |"
                for row in self.classes
            ]
        return "\n".join(lines) + "\n"

    def as_json(self) -> str:
        """Return all of it as the text of gate.json; what is not known or infinite is null."""
        return json.dumps(_plain(asdict(self)), indent=1) + "\n"


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
        verdict = f"first model: test mIoU {_cell(weighed.challenger_miou)}"
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
    mious = f"test mIoU {_cell(compared.challenger_miou)} against the champion's {_cell(compared.champion_miou)}"
    if not compared.gain[0] > params.min_gain:
        return f"no gain: {mious} (needs more than +{params.min_gain:g})", False
    if compared.p > compared.alpha:
        detected = _detectable(compared.detectable_gain, compared.families, compared.alpha)
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


def _detectable(gain: float, families: int, level: float) -> str:
    """Return which gains this test split can detect, or how many families of photos that would need."""
    if level <= 0:
        return "none: promote.total_error is spent on this test split"
    if families < (needed := max(2, families_for(level))):
        return f"not known with {_count(families)} (needs {needed}); here all must agree on a large gain"
    return f"+{gain:.3f} and more" if math.isfinite(gain) else "not known, as both models predict the same"


def _count(families: int) -> str:
    return f"{families} {'family' if families == 1 else 'families'}"


def _cell(value: float | None, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if value is not None and np.isfinite(value) else "–"


def _range(low: float, high: float) -> str:
    return f"{low:+.3f} … {high:+.3f}" if np.isfinite([low, high]).all() else "–"


def _plain(value: Any) -> Any:
    """Return a value with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
