"""The promotion gate: champion and challenger on the same test photos, and a decision with its reasons."""

from dataclasses import dataclass

import numpy as np

from pipelines.params import PromoteParams
from pipelines.training.bootstrap import interval, resampled_miou
from pipelines.training.figures import CONFIDENCE, Evaluation


@dataclass(frozen=True)
class ClassVerdict:
    """One class at the gate; `verdict` is kept, fell, or not measured (too few test photos; with none IoU is NaN)."""

    name: str
    photos: int
    challenger_iou: float
    champion_iou: float
    verdict: str


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, why, and both mIoUs on the same photos.

    `gain` is the difference of mIoU with its 95 % interval over resamples of the photos. A first model has no champion
    to be compared with: `champion_miou` and `gain` are None and `classes` empty.
    """

    promote: bool
    reason: str
    challenger_miou: float
    champion_miou: float | None = None
    gain: tuple[float, float, float] | None = None  # estimate, low, high
    classes: tuple[ClassVerdict, ...] = ()

    def as_markdown(self) -> str:
        """Write the decision with a table of what was weighed."""
        lines = [f"**{'Promoted' if self.promote else 'Not promoted'}**: {self.reason}", ""]
        if self.gain and self.champion_miou is not None:
            estimate, low, high = self.gain
            lines += [
                "| | test photos | champion | challenger | change | verdict |",
                "|---|--:|--:|--:|--:|---|",
                f"| **mIoU** | | {self.champion_miou:.3f} | {self.challenger_miou:.3f} "
                f"| {estimate:+.3f} (95 %: {low:+.3f} … {high:+.3f}) | |",
            ]
            lines += [
                f"| {one.name} | {one.photos} | {_cell(one.champion_iou)} | {_cell(one.challenger_iou)} "
                f"| {_cell(one.challenger_iou - one.champion_iou, '+')} | {one.verdict} |"
                for one in self.classes
            ]
        return "\n".join(lines) + "\n"


def decide(
    challenger: Evaluation, champion: Evaluation | None, names: list[str], params: PromoteParams, rounds: int
) -> Decision:
    """Compare two evaluations on the same photos; `names` has a name per channel, background first.

    The challenger must gain more than `min_gain` mIoU in a share `confidence` of `rounds` bootstrap resamples of the
    photos, and no class with at least `min_class_photos` test photos may lose more than `max_class_drop` IoU. A class
    with fewer photos is named as not measured. Raises ValueError when the photos are not the same.
    """
    ours = challenger.confusion.miou()
    if champion is None:
        return Decision(True, f"first model: test mIoU {ours:.3f}", ours)
    if challenger.photos != champion.photos:
        raise ValueError("champion and challenger were evaluated on different photos")
    theirs = champion.confusion.miou()
    gains = resampled_miou(challenger.confusions, rounds) - resampled_miou(champion.confusions, rounds)
    sure = float(np.quantile(gains, 1 - params.confidence))
    gain = (ours - theirs, *interval(gains, CONFIDENCE))
    classes = _classes(challenger, champion, names, params)
    figures = f"test mIoU {ours:.3f} against the champion's {theirs:.3f}"
    thin = [one.name for one in classes if one.verdict == "not measured"]
    note = f"; not measured (under {params.min_class_photos} photos): {', '.join(thin)}" if thin else ""
    fallen = [f"{one.name} −{one.champion_iou - one.challenger_iou:.2f}" for one in classes if one.verdict == "fell"]
    if ours - theirs <= params.min_gain:
        reason, promote = f"no gain: {figures} (needs more than +{params.min_gain:g})", False
    elif sure <= params.min_gain:
        reason, promote = (
            (
                f"not beyond noise: {figures}; with other photos the gain could be {sure:+.3f} "
                f"(needs more than +{params.min_gain:g} in {params.confidence:.1%} of resamples)"
            ),
            False,
        )
    elif fallen:
        reason, promote = f"{figures}, but IoU fell by more than {params.max_class_drop:g}: {', '.join(fallen)}", False
    else:
        reason, promote = f"better: {figures}", True
    return Decision(promote, reason + note, ours, theirs, gain, classes)


def _cell(iou: float, sign: str = "") -> str:
    return f"{iou:{sign}.3f}" if np.isfinite(iou) else "–"


def _classes(
    challenger: Evaluation, champion: Evaluation, names: list[str], params: PromoteParams
) -> tuple[ClassVerdict, ...]:
    ours, theirs = challenger.confusion, champion.confusion
    new, old = ours.iou(), theirs.iou()

    def verdict(channel: int) -> str:
        if ours.photos[channel] < params.min_class_photos:
            return "not measured"
        return "fell" if old[channel] - new[channel] > params.max_class_drop else "kept"

    return tuple(
        ClassVerdict(name, int(ours.photos[i]), float(new[i]), float(old[i]), verdict(i))
        for i, name in enumerate(names)
    )
