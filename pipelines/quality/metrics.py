"""The results of `maskloop quality`, as tables for a terminal and as metrics in MLflow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from pipelines.labelstudio.remarks import Remark
from pipelines.models.registry import Registry
from pipelines.quality.agreement import Agreement
from pipelines.quality.label_errors import LabelIssue
from pipelines.quality.planted import MissRate

_SHOWN = 20  # photos in the terminal; all are in the tab


@dataclass(frozen=True)
class Quality:
    """The quality of a dataset's labels: probable label errors, the worst first, agreement, and who missed errors.

    `model` is the champion that judged, empty when there is none; `judged` counts photos by the model that judged them.
    `missed` has the planted errors that each person was shown and missed. `odd` says by photo what is odd in its
    annotations, or why none could be used. `remarks` are what people say about photos: doubts, and reasons of skips.
    """

    dataset: str
    model: str
    judged: Mapping[str, int]
    label_issues: tuple[LabelIssue, ...]
    agreement: Agreement
    missed: Mapping[str, MissRate]
    odd: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    def __str__(self) -> str:
        """Return one line: how many photos look wrong, and to which models."""
        if not self.judged:
            return f"too few photos of {self.dataset} are labelled to say which masks look wrong"
        judges = ", ".join(f"{count} judged by {judge}" for judge, count in sorted(self.judged.items()))
        return f"{len(self.label_issues)} photos of {self.dataset} look wrong ({judges})"


def log_quality(registry: Registry, quality: Quality) -> None:
    """Add metrics to the run of the champion that judged, with the dataset's number as step; people by address.

    Without a champion, and when it has changed meanwhile, nothing is logged.
    """
    champion = registry.champion()
    if champion is None or champion.served_as != quality.model:
        return
    agreement = quality.agreement
    metrics = {
        "quality/suspicious": float(len(quality.label_issues)), "quality/alpha": agreement.alpha,
        "quality/alpha_all_pixels": agreement.alpha_all_pixels,
    }  # fmt: skip
    metrics |= {f"quality/iou/{label}": iou for label, iou in agreement.iou_of_label.items()}
    metrics |= {f"quality/gold/{_metric_name(who)}": iou for who, (_, iou) in agreement.gold_of_person.items()}
    metrics |= {f"quality/missed/{_metric_name(who)}": rate.share for who, rate in quality.missed.items()}
    finite = {name: value for name, value in metrics.items() if np.isfinite(value)}
    registry.add_metrics(champion.run_id, finite, int(quality.dataset.rpartition("-")[2]))


def _metric_name(person: str) -> str:
    """Return an address with only the characters that MLflow allows in the names of metrics."""
    return re.sub(r"[^\w .:/-]", "_", person)


def as_tables(quality: Quality) -> list[Table]:
    """Return tables of remarks, odd and suspicious photos, agreement, and missed planted errors, where there is any."""
    worst = _table(str(quality), "score", "photo", "reason")
    for issue in quality.label_issues[:_SHOWN]:
        worst.add_row(f"{issue.score:.3f}", issue.sha256[:12], issue.reason)
    tables = [worst]
    if quality.odd:
        odd = _table(f"{len(quality.odd)} photos have odd annotations", "photo", "reason")
        for photo, reason in [*quality.odd.items()][:_SHOWN]:
            odd.add_row(photo[:12], escape(reason))
        tables.insert(0, odd)
    if quality.remarks:
        tables.insert(0, remarks_table(quality.remarks))
    if quality.agreement.photos:
        tables.append(_agreement_table(quality.agreement))
    if quality.missed:
        missed = _table("Planted errors on gold photos", "person", "shown", "missed", "share", "95 % interval")
        for person, rate in quality.missed.items():
            low, high = rate.interval
            missed.add_row(person, str(rate.shown), str(rate.missed), f"{rate.share:.0%}", f"{low:.0%} … {high:.0%}")
        tables.append(missed)
    return tables


def remarks_table(remarks: Sequence[Remark]) -> Table:
    """Return a table of what people say about photos, by the number that Label Studio shows."""
    doubts = sum(remark.is_doubt for remark in remarks)
    table = _table(f"{doubts} photos with a doubt, {len(remarks) - doubts} skipped", "photo", "reason")
    for remark in remarks:
        table.add_row(f"#{remark.task}", escape(str(remark)))
    return table


def _agreement_table(agreement: Agreement) -> Table:
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
