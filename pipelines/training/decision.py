"""A decision of the promotion gate: all that was weighed, as a table, as facts and as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.training.floor import Floor
from pipelines.training.significance import families_for


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
                ("gains detected four times in five", detectable(self.detectable_gain, self.families, self.alpha)),
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
                f"| **mIoU** | {self.photos} | {cell(self.champion_miou)} | {cell(self.challenger_miou)} "
                f"| {cell(self.gain[0], '+')} | {_range(*self.gain[1:])} | |",
            ]
            lines += [
                f"| {row.name} | {row.photos} | {cell(row.champion_iou)} | {cell(row.challenger_iou)} "
                f"| {cell(row.challenger_iou - row.champion_iou, '+')} | {_range(row.low, row.high)} | {row.verdict} |"
                for row in self.classes
            ]
        return "\n".join(lines) + "\n"

    def as_json(self) -> str:
        """Return all of it as the text of gate.json; what is not known or infinite is null."""
        return json.dumps(_plain(asdict(self)), indent=1) + "\n"


def detectable(gain: float, families: int, level: float) -> str:
    """Return which gains this test split can detect, or how many families of photos that would need."""
    if level <= 0:
        return "none: promote.total_error is spent on this test split"
    if families < (needed := max(2, families_for(level))):
        return f"not known with {_count(families)} (needs {needed}); here all must agree on a large gain"
    return f"+{gain:.3f} and more" if math.isfinite(gain) else "not known, as both models predict the same"


def _count(families: int) -> str:
    return f"{families} {'family' if families == 1 else 'families'}"


def cell(value: float | None, sign: str = "") -> str:
    """Return a figure with three decimals; a dash when it is not known."""
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
