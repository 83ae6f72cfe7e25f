"""What `maskloop quality` found, as tables for a terminal and as figures in MLflow."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from pipelines.models.registry import Registry
from pipelines.quality.agreement import Agreement
from pipelines.quality.label_errors import Suspicion
from pipelines.quality.planted import MissRate

_SHOWN = 20  # photos in the terminal; all are in the tab


@dataclass(frozen=True)
class Quality:
    """What was found in a dataset: suspicious photos, the worst first, how well people agree, and what they accept.

    `model` is the champion that judged, empty when there is none; `judged` counts photos by who judged them.
    `missed` says by person how many wrong regions, put there on purpose, they left.
    """

    dataset: str
    model: str
    judged: Mapping[str, int]
    suspicious: tuple[Suspicion, ...]
    agreement: Agreement
    missed: Mapping[str, MissRate]

    def __str__(self) -> str:
        """Say in a line how many photos look wrong, and to whom."""
        if not self.judged:
            return f"too few photos of {self.dataset} are labelled to say which masks look wrong"
        by = ", ".join(f"{count} judged by {judge}" for judge, count in sorted(self.judged.items()))
        return f"{len(self.suspicious)} photos of {self.dataset} look wrong ({by})"


def log_quality(registry: Registry, found: Quality) -> None:
    """Add the figures to the run of the champion that judged, with the dataset's number as step; people by address."""
    champion = registry.champion()
    if champion is None or champion.served_as != found.model:
        return
    agreement = found.agreement
    figures = {
        "quality/suspicious": float(len(found.suspicious)), "quality/alpha": agreement.alpha,
        "quality/alpha_all_pixels": agreement.alpha_all_pixels,
    }  # fmt: skip
    figures |= {f"quality/iou/{label}": iou for label, iou in agreement.iou_of_label.items()}
    figures |= {f"quality/gold/{_metric_name(who)}": iou for who, (_, iou) in agreement.gold_of_person.items()}
    figures |= {f"quality/missed/{_metric_name(who)}": rate.share for who, rate in found.missed.items()}
    finite = {name: value for name, value in figures.items() if np.isfinite(value)}
    registry.add_metrics(champion.run_id, finite, int(found.dataset.rpartition("-")[2]))


def _metric_name(person: str) -> str:
    """Return an address with the signs that MLflow allows in the names of metrics."""
    return re.sub(r"[^\w .:/-]", "_", person)


def as_tables(found: Quality) -> list[Table]:
    """Lay out what was found: the worst photos, agreement and what people missed, where there is any to measure."""
    worst = _table(str(found), "score", "photo", "reason")
    for one in found.suspicious[:_SHOWN]:
        worst.add_row(f"{one.score:.3f}", one.sha256[:12], one.reason)
    tables = [worst]
    if found.agreement.photos:
        tables.append(_agreement(found.agreement))
    if found.missed:
        title = "Wrong regions put on gold photos on purpose"
        missed = _table(title, "person", "seen", "left as they were", "share", "95 % interval")
        for person, rate in found.missed.items():
            low, high = rate.interval
            missed.add_row(person, str(rate.seen), str(rate.missed), f"{rate.share:.0%}", f"{low:.0%} … {high:.0%}")
        tables.append(missed)
    return tables


def _agreement(agreement: Agreement) -> Table:
    title = (
        f"Agreement on {agreement.photos} photos that several people drew: Krippendorff's alpha {agreement.alpha:.3f} "
        f"where somebody drew a garment ({agreement.alpha_all_pixels:.3f} over all pixels)"
    )
    table = _table(title, "label or person", "IoU between people", "gold photos", "IoU with the truth")
    for name, iou in {**agreement.iou_of_label, **agreement.iou_of_person}.items():
        photos, score = agreement.gold_of_person.get(name, (0, None))
        table.add_row(name, f"{iou:.3f}", str(photos or "–"), "–" if score is None else f"{score:.3f}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        is_text = heading in ("score", "photo", "reason", "person", "label or person")
        table.add_column(heading, justify="left" if is_text else "right")
    return table
