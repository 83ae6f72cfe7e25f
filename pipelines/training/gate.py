"""The promotion gate: champion and challenger on the same test photos, and a decision with its reasons."""

from dataclasses import dataclass

import numpy as np

from pipelines.params import PromoteParams
from pipelines.training.metrics import Confusion


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, why, and both mIoUs on the same photos."""

    promote: bool
    reason: str
    challenger_miou: float
    champion_miou: float | None


def decide(challenger: Confusion, champion: Confusion | None, names: list[str], params: PromoteParams) -> Decision:
    """Compare two evaluations on the same photos; `names` has a name per channel, background first.

    The challenger must gain more than `min_gain` mIoU, and no class with at least `min_class_photos` test photos may
    lose more than `max_class_drop` IoU. A class with fewer photos is named as not measured.
    """
    ours = challenger.miou()
    if champion is None:
        return Decision(True, f"first model: test mIoU {ours:.3f}", ours, None)
    theirs = champion.miou()
    drops = champion.iou() - challenger.iou()
    measured = challenger.photos >= params.min_class_photos
    fallen = [f"{names[i]} −{drops[i]:.2f}" for i in np.nonzero(measured & (drops > params.max_class_drop))[0]]
    thin = [names[i] for i in np.nonzero(~measured & (challenger.photos > 0))[0]]
    note = f"; not measured (under {params.min_class_photos} photos): {', '.join(thin)}" if thin else ""
    figures = f"test mIoU {ours:.3f} against the champion's {theirs:.3f}"
    if ours - theirs <= params.min_gain:
        return Decision(False, f"no gain: {figures} (needs more than +{params.min_gain:g}){note}", ours, theirs)
    if fallen:
        reason = f"{figures}, but IoU fell by more than {params.max_class_drop:g}: {', '.join(fallen)}{note}"
        return Decision(False, reason, ours, theirs)
    return Decision(True, f"better: {figures}{note}", ours, theirs)
