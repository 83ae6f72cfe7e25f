"""Whether a new click model answers from now on, and which segmenter answers which kind of prompts.

A challenger is compared with what answers without it (the champion, or GrabCut) on the same garments, by the number of
clicks to an IoU of 0.85, from nothing and from masks that are partly wrong. Families of photos are independent, and
garments of one are not: a jackknife over families with Student's t (MacKinnon, Nielsen and Webb, 2023), at a level that
shrinks with every look at the same test split (`significance.level_of_look`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipelines.params import PromoteParams
from pipelines.segmentation.choice import BOX, EDIT, GRABCUT, LEARNED, POINT
from pipelines.training.evaluate_clicks import summarise

_MOST_HARM = 0.10  # share of first clicks on a mask that may lower its IoU
_FEWEST_FAMILIES = 5


@dataclass(frozen=True)
class ClickDecision:
    """What was weighed; `saved` is how many clicks per garment the challenger saves, with a 95 % interval."""

    promote: bool
    reason: str
    opponent: str
    garments: int
    families: tuple[str, ...]
    saved: tuple[float, float, float]
    p: float
    level: float
    looks: int

    def as_json(self) -> str:
        """Return what `Versions.looks_at` and people read later."""
        fields = {
            "compared": True, "promote": self.promote, "reason": self.reason, "champion": self.opponent,
            "garments": self.garments, "test_families": list(self.families), "saved_clicks": self.saved, "p": self.p,
            "level": self.level, "looks": self.looks,
        }  # fmt: skip
        return json.dumps(fields, indent=1) + "\n"


def clicks_needed(rows: pd.DataFrame) -> pd.Series:
    """Return the clicks that each garment takes: from nothing, and from a mask where it has one, the mean of both."""
    from_mask = rows["mask_noc85"] if "mask_noc85" in rows else pd.Series(np.nan, index=rows.index)
    return pd.concat([rows["noc85"], from_mask], axis=1).mean(axis=1)


def decide_clicks(
    challenger: pd.DataFrame, opponent: pd.DataFrame, name: str, params: PromoteParams, level: float, looks: int
) -> ClickDecision:
    """Compare a challenger with the opponent `name`, both measured on the same garments in the same order."""
    saved = clicks_needed(opponent).to_numpy() - clicks_needed(challenger).to_numpy()
    families = challenger["family"].to_numpy()
    names = tuple(np.unique(families).tolist())
    sums = np.array([saved[families == family].sum() for family in names])
    mean, count = float(saved.mean()), len(names)
    error = _standard_error(saved, families, names)
    p = 1.0 if count < 2 else float(stats.t.sf(mean / error, count - 1)) if error > 0 else float(sums.sum() <= 0)
    width = float(stats.t.ppf(0.975, count - 1)) * error if count > 1 else math.inf
    harm = summarise(challenger, 100).get("harm", 0.0)
    obstacles = []
    if count < _FEWEST_FAMILIES:
        obstacles.append(f"only {count} independent test photos, and at least {_FEWEST_FAMILIES} are needed")
    if harm > _MOST_HARM:
        obstacles.append(f"{harm:.0%} of its first clicks on a mask make it worse, and {_MOST_HARM:.0%} may")
    if p > level:
        obstacles.append(f"chance may explain it (p = {p:.2g}, at most {level:.2g} is allowed at this look)")
    word = f"{abs(mean):.2f} {'fewer' if mean >= 0 else 'more'} clicks per garment than {name}"
    reason = f"{word} ({mean - width:+.2f} … {mean + width:+.2f}) on {len(saved)} garments of {count} families"
    if obstacles:
        reason += "; " + "; ".join(obstacles)
    return ClickDecision(
        not obstacles, reason, name, len(saved), names, (mean, mean - width, mean + width), p, level, looks
    )


def _standard_error(saved: np.ndarray, families: np.ndarray, names: tuple[str, ...]) -> float:
    """Return the standard error of the mean over garments by leaving out one family at a time."""
    if len(names) < 2:
        return math.inf
    left_out = np.array([saved[families != family].mean() for family in names])
    return float(math.sqrt((len(names) - 1) / len(names) * ((left_out - saved.mean()) ** 2).sum()))


def best_answers(measured: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return which segmenter answers each kind of prompts best, by name, of those that were measured.

    Clicks that make a mask and clicks on a mask are judged by the number of clicks to 0.85, boxes by the IoU. Of two
    that are alike to a hundredth of a click, or of the IoU, the learned model answers, and GrabCut last.
    """
    summaries = {name: summarise(rows, 100) for name, rows in measured.items()}
    rank = {name: place for place, name in enumerate([LEARNED, *sorted(set(measured) - {LEARNED, GRABCUT}), GRABCUT])}

    def best(cost: Mapping[str, float]) -> str:
        return min(cost, key=lambda name: (round(cost[name], 2), rank.get(name, len(rank))))

    answers = {
        POINT: best({name: values["noc85"] for name, values in summaries.items()}),
        BOX: best({name: -values["box"] for name, values in summaries.items()}),
    }
    edits = {name: values["from_mask"]["noc85"] for name, values in summaries.items() if "from_mask" in values}
    return answers | ({EDIT: best(edits)} if edits else {})


def as_markdown(decision: ClickDecision, measured: Mapping[str, pd.DataFrame], answers: Mapping[str, str]) -> str:
    """Return the decision with a table of all segmenters that were measured."""
    headings = (
        "", "IoU after 1 / 2 / 4 clicks", "NoC80", "NoC85", "NoC90", "not reached in 20", "box", "from a mask, NoC85",
        "harm",
    )  # fmt: skip
    lines = [f"**{'Promoted' if decision.promote else 'Not promoted'}**: {decision.reason}", ""]
    lines += [f"| {' | '.join(headings)} |", "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines += [f"| {' | '.join([name, *_cells(summarise(rows, 100))])} |" for name, rows in measured.items()]
    return "\n".join([*lines, "", "Who answers: " + ", ".join(f"{kind}: {name}" for kind, name in answers.items())])


def _cells(values: Mapping[str, Any]) -> list[str]:
    mask = values.get("from_mask")
    return [
        " / ".join(f"{values['iou_after'][clicks - 1]:.2f}" for clicks in (1, 2, 4)),
        *(f"{values[key]:.1f}" for key in ("noc80", "noc85", "noc90")), f"{values['failures']['85']:.0%}",
        f"{values['box']:.2f}", f"{mask['noc85']:.1f}" if mask else "–", f"{values['harm']:.0%}" if mask else "–",
    ]  # fmt: skip
