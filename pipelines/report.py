"""What rounds paid: per model, how good it is and what it saved the labelers; in MLflow, in a terminal, as a page."""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from pipelines.effort import BY_HAND, Effort, effort_by_model
from pipelines.html import inline, render
from pipelines.params import Params
from pipelines.training.registry import Registry

logger = logging.getLogger(__name__)
matplotlib.use("agg")
_TEMPLATE = Path(__file__).with_name("report.html.j2")
_COLORS = {"untouched": "#2ca02c", "corrected": "#ffbf00", "drawn": "#1f77b4", "deleted": "#b0b0b0"}


def log_effort(registry: Registry, manifest: pd.DataFrame, dataset: str) -> list[str]:
    """Add to the run of each model what people did with its pre-labels, with the dataset's number as step.

    Gives the models that got figures; those of other registries, or whose run was deleted, are left out.
    """
    step = int(dataset.rpartition("-")[2])
    versions = {version.served_as: version for version in registry.versions()}
    found = {name: effort for name, effort in effort_by_model(manifest).items() if name in versions}
    for name, effort in found.items():
        registry.add_metrics(versions[name].run_id, effort.as_metrics(), step)
    return list(found)


def as_table(found: Mapping[str, Effort], test_miou: Mapping[str, float], dataset: str) -> Table:
    """Lay the figures out for a terminal, a row per model."""
    table = Table(title=f"What people did with pre-labels, in {dataset}", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ("model", "test\nmIoU", "photos", "un-\ntouched", "cor-\nrected", "drawn", "de-\nleted",
               "pre-label\nmIoU", "s per\nphoto", "hours\nsaved")  # fmt: skip
    for place, heading in enumerate(columns):
        table.add_column(heading, justify="right" if place else "left")
    for name, one in found.items():
        shares = [f"{share:.0%}" for share in one.shares.values()]
        table.add_row(
            _title(name), _figure(test_miou.get(name)), str(one.photos), *shares, _figure(one.miou),
            f"{one.seconds:.0f}", _figure(one.hours_saved, 1),
        )  # fmt: skip
    return table


def write_report(
    path: Path, found: Mapping[str, Effort], test_miou: Mapping[str, float], params: Params, dataset: str
) -> None:
    """Write the page: pictures over the models in their order, and the table of figures."""
    names = [name for name in found if name != BY_HAND]
    pictures = {
        "What became of regions": _draw(lambda axes: _draw_shares(axes, found)),
        "Seconds per photo": _draw(lambda axes: _draw_seconds(axes, found)),
        "How good the masks were": _draw(lambda axes: _draw_quality(axes, names, found, test_miou)),
    }
    if any(found[name].hours_saved is not None for name in names):
        pictures["Hours saved"] = _draw(lambda axes: _draw_hours(axes, names, found))
    labels = [label for label in ("", *params.label_ids) if any(label in found[name].iou for name in names)]
    if labels:
        height = 1 + 0.28 * len(labels)
        pictures["IoU of pre-labels by label"] = _draw(lambda axes: _draw_labels(axes, names, labels, found), height)
    html = render(
        _TEMPLATE,
        dataset=dataset,
        pictures=pictures,
        rows=[{"name": _title(name), "effort": one, "test_miou": test_miou.get(name)} for name, one in found.items()],
        names=names,
        classes=[
            {"name": label or "background", "iou": [found[name].iou.get(label) for name in names]} for label in labels
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def miou_on_test(registry: Registry) -> dict[str, float]:
    """Give the mIoU of each registered model on the test photos of its own dataset."""
    return {version.served_as: version.miou for version in registry.versions()}


def _draw(draw: Callable[[Axes], None], height: float = 3) -> str:
    figure = Figure(figsize=(7, height), layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return inline(file.getvalue(), "png")


def _draw_shares(axes: Axes, found: Mapping[str, Effort]) -> None:
    bottom = np.zeros(len(found))
    for what, color in _COLORS.items():
        shares = np.array([100 * one.shares[what] for one in found.values()])
        axes.bar(_ticks(found), shares, bottom=bottom, color=color, label=what, width=0.7)
        bottom += shares
    axes.set_ylabel("% of regions")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _draw_seconds(axes: Axes, found: Mapping[str, Effort]) -> None:
    bars = axes.bar(_ticks(found), [one.seconds for one in found.values()], color="#1f77b4", width=0.7)
    axes.bar_label(bars, fmt="%.0f")
    axes.set_ylabel("median seconds")
    axes.margins(y=0.15)


def _draw_quality(
    axes: Axes, names: Sequence[str], found: Mapping[str, Effort], test_miou: Mapping[str, float]
) -> None:
    nothing = float("nan")
    axes.plot(_ticks(names), [found[name].miou for name in names], "o-", label="pre-labels against what was submitted")
    axes.plot(_ticks(names), [test_miou.get(name, nothing) for name in names], "s--", label="on test photos")
    axes.set(ylabel="mIoU", ylim=(0, 1))
    axes.legend(loc="lower right", frameon=False)


def _draw_hours(axes: Axes, names: Sequence[str], found: Mapping[str, Effort]) -> None:
    hours = [found[name].hours_saved or 0.0 for name in names]
    told = [_figure(found[name].hours_saved, 1) for name in names]
    axes.bar_label(axes.bar(_ticks(names), hours, color="#2ca02c", width=0.7, label="by this model"), told)
    axes.plot(_ticks(names), np.cumsum(hours), "o-", color="#555555", label="all together")
    axes.axhline(0, color="#b0b0b0", linewidth=1)
    axes.set_ylabel("hours")
    axes.margins(y=0.15)
    axes.legend(loc="upper left", frameon=False)


def _draw_labels(axes: Axes, names: Sequence[str], labels: Sequence[str], found: Mapping[str, Effort]) -> None:
    values = np.array([[found[name].iou.get(label, np.nan) for name in names] for label in labels])
    axes.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), _ticks(names))
    axes.set_yticks(range(len(labels)), [label or "background" for label in labels])
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, _figure(value, 2), ha="center", va="center", fontsize=8)


def _ticks(names: Mapping[str, Effort] | Sequence[str]) -> list[str]:
    return [_title(name) for name in names]


def _title(name: str) -> str:
    return name or "by hand"


def _figure(value: float | None, places: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{places}f}"
