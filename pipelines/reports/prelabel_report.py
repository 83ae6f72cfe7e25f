"""What rounds paid: per model, how good it is and what its masks saved people; in MLflow, in a terminal, as a page."""

import io
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from pipelines.models.registry import Registry
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.reports.effort import (
    BY_HAND,
    Effort,
    EffortReport,
    Interval,
    Learning,
    Saving,
    costs_time,
    measure_effort,
)
from pipelines.reports.effort.saving import TOO_FEW
from pipelines.reports.html import inline, render

logger = logging.getLogger(__name__)
matplotlib.use("agg")
_TEMPLATE = Path(__file__).with_name("prelabel_report.html.j2")
_COLORS = {"untouched": "#2ca02c", "corrected": "#ffbf00", "drawn": "#1f77b4", "deleted": "#b0b0b0"}
_WITH, _WITHOUT = "#2ca02c", "#1f77b4"
_NONE = "–"
_PAUSED = "paused.md"  # of a run: why its version was paused


def log_effort(registry: Registry, manifest: pd.DataFrame, dataset: str, params: Params) -> list[str]:
    """Add to the run of each model what people did with its masks, with the dataset's number as step.

    A champion whose masks cost people time is paused: it draws none any more, until one is promoted or somebody lets it
    go on. Returns the models that got figures; those of other registries, or whose run was deleted, are left out.
    """
    step = int(dataset.rpartition("-")[2])
    versions = {version.served_as: version for version in registry.versions()}
    by_model = measure_effort(manifest, params).by_model
    known = {name: effort for name, effort in by_model.items() if name in versions}
    for name, effort in known.items():
        registry.add_metrics(versions[name].run_id, effort.as_metrics(), step)
    champion = registry.champion()
    if champion and champion.served_as in known and (reason := costs_time(known[champion.served_as])):
        _pause_once(registry, champion, f"{reason}, in {dataset}")
    return list(known)


def _pause_once(registry: Registry, champion: ModelVersion, reason: str) -> None:
    """Keep a champion from drawing masks, unless somebody let it go on after that had been done before."""
    if champion.paused:
        return
    if registry.file(champion, _PAUSED):
        logger.warning("%s goes on as somebody decided when it was paused, but %s", champion.served_as, reason)
        return
    logger.warning("%s is paused and draws no masks any more: %s", champion.served_as, reason)
    registry.pause(champion, reason)
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / _PAUSED
        note.write_text(f"{champion.served_as} was paused: {reason}.\n", encoding="utf-8")
        registry.log_file(champion.run_id, note)  # last: who is killed before pauses it again


def as_table(report: EffortReport, test_miou: Mapping[str, float], dataset: str) -> Table:
    """Lay the figures out for a terminal: a row per model, and one for what all of them saved."""
    table = Table(title=f"What people did with masks, in {dataset}", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ("model", "test\nmIoU", "photos", "un-\ntouched", "cor-\nrected", "drawn", "de-\nleted",
               "pre-label\nmIoU", "s, mean (median)\nwith masks", "\nwithout", "saved s per photo\n95 % interval",
               "saved hours\n95 % interval")  # fmt: skip
    for place, heading in enumerate(columns):
        table.add_column(heading, justify="right" if place else "left")
    for row in _rows(report, test_miou):
        table.add_row(*row)
    return table


def as_notes(report: EffortReport) -> list[str]:
    """Say in sentences what the table leaves open: what cannot be told and why, what practice did, what is left out."""
    notes = [f"{name}: {effort.saving.reason}." for name, effort in report.by_model.items() if effort.saving.reason]
    for name, effort in report.by_model.items():
        if by_chance := effort.by_chance.per_photo:
            notes.append(
                f"{name}, only photos that chance and no model chose for the queue: {_interval(by_chance, 0)} s saved "
                f"per photo (95 % interval), on {effort.by_chance.with_masks} photos."
            )
    notes.append(_practice(report.learning))
    if report.left_out:
        reasons = ", ".join(f"{count} ({reason})" for reason, count in report.left_out.items())
        notes.append(f"Photos whose time does not count: {reasons}.")
    return notes


def write_report(
    path: Path, report: EffortReport, test_miou: Mapping[str, float], params: Params, dataset: str
) -> None:
    """Write the page: pictures over the models in their order, and the table of figures."""
    by_model = report.by_model
    names = [name for name in by_model if name != BY_HAND]
    pictures = {
        "Seconds saved per photo with masks, with their 95 % intervals": _draw(lambda axes: _draw_saved(axes, report)),
        "What became of regions": _draw(lambda axes: _draw_shares(axes, by_model)),
        "Seconds per photo: means of photos at the same time, not adjusted": _draw(
            lambda axes: _draw_seconds(axes, by_model)
        ),
        "How good the masks were": _draw(lambda axes: _draw_quality(axes, names, by_model, test_miou)),
    }
    if learning := report.learning:
        pictures["What practice did: seconds of the average photo, without masks, at equal garments"] = _draw(
            lambda axes: _draw_learning(axes, learning)
        )
    labels = [label for label in ("", *params.label_ids) if any(label in by_model[name].iou for name in names)]
    if labels:
        height = 1 + 0.28 * len(labels)
        pictures["IoU of pre-labels by label"] = _draw(lambda axes: _draw_labels(axes, names, labels, by_model), height)
    html = render(
        _TEMPLATE,
        dataset=dataset,
        pictures=pictures,
        rows=_rows(report, test_miou),
        notes=as_notes(report),
        names=names,
        classes=[[label or "background", *(_figure(by_model[n].iou.get(label)) for n in names)] for label in labels],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def miou_on_test(registry: Registry) -> dict[str, float]:
    """Return the mIoU of each registered model on the test photos of its own dataset."""
    return {version.served_as: version.miou for version in registry.versions()}


def _rows(report: EffortReport, test_miou: Mapping[str, float]) -> list[list[str]]:
    """Return the table's cells, a row per model and one for all of them."""
    rows = [[
        _title(name), _figure(test_miou.get(name)), str(effort.photos),
        *(f"{share:.0%}" for share in effort.shares.values()), _figure(effort.miou),
        _seconds(effort.seconds_with_masks, effort.median_seconds_with_masks),
        _seconds(effort.seconds_without_masks, effort.median_seconds_without_masks),
        *((_NONE, _NONE) if name == BY_HAND else _saved(effort.saving)),
    ] for name, effort in report.by_model.items()]  # fmt: skip
    if any(name != BY_HAND for name in report.by_model):
        in_all = report.in_all
        rows.append(["in all", _NONE, str(in_all.photos), *[_NONE] * 7, *_saved(in_all)])
    return rows


def _saved(saving: Saving) -> tuple[str, str]:
    """Write what was saved per photo, and in hours, each with its interval or why there is none."""
    if saving.per_photo is None or saving.hours is None:
        return TOO_FEW, _NONE
    return _interval(saving.per_photo, 0), _interval(saving.hours, 1)


def _practice(learning: Learning | None) -> str:
    if learning is None:
        return "What practice did: too few photos to tell."
    (first, then), (last, now) = learning.curve[0], learning.curve[-1]
    share = learning.change.times(100)
    return (
        f"What practice did, at equal garments and without masks: after {last} photos a person takes "
        f"{_interval(share, 0)} % of the seconds of the first ones (95 % interval): the average photo took "
        f"{_interval(then, 0)} s after {first} photos and takes {_interval(now, 0)} s now."
    )


def _draw(draw: Callable[[Axes], None], height: float = 3) -> str:
    figure = Figure(figsize=(7, height), layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return inline(file.getvalue(), "png")


def _draw_saved(axes: Axes, report: EffortReport) -> None:
    savings = {name: effort.saving for name, effort in report.by_model.items() if name != BY_HAND}
    savings |= {"in all": report.in_all} if savings else {}
    axes.axhline(0, color="#b0b0b0", linewidth=1)
    axes.set_xticks(range(len(savings)), _ticks(list(savings)))
    for place, saving in enumerate(savings.values()):
        if saved := saving.per_photo:
            error = [[saved.value - saved.low], [saved.high - saved.value]]
            axes.errorbar([place], [saved.value], yerr=error, fmt="o", color=_WITH, capsize=5)
        else:
            axes.text(place, 0, TOO_FEW.replace("photos ", "photos\n"), ha="center", va="bottom", fontsize=8)
    axes.margins(x=0.2, y=0.15)
    axes.set_ylabel("seconds saved per photo")


def _draw_shares(axes: Axes, by_model: Mapping[str, Effort]) -> None:
    bottom = np.zeros(len(by_model))
    for what, color in _COLORS.items():
        shares = np.array([100 * effort.shares[what] for effort in by_model.values()])
        axes.bar(_ticks(by_model), shares, bottom=bottom, color=color, label=what, width=0.7)
        bottom += shares
    axes.set_ylabel("% of regions")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _draw_seconds(axes: Axes, by_model: Mapping[str, Effort]) -> None:
    places = np.arange(len(by_model))
    for shift, color, label, attribute in (
        (-0.2, _WITH, "with masks", "seconds_with_masks"), (0.2, _WITHOUT, "without", "seconds_without_masks")
    ):  # fmt: skip
        heights = np.nan_to_num([getattr(effort, attribute) for effort in by_model.values()])
        bars = axes.bar(places + shift, heights, color=color, width=0.4, label=label)
        axes.bar_label(bars, [f"{height:.0f}" if height else "" for height in heights])
    axes.set_xticks(places, _ticks(by_model))
    axes.set_ylabel("mean seconds")
    axes.margins(y=0.15)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _draw_learning(axes: Axes, learning: Learning) -> None:
    done = [point for point, _ in learning.curve]
    axes.plot(done, [seconds.value for _, seconds in learning.curve], color=_WITHOUT)
    low, high = zip(*((seconds.low, seconds.high) for _, seconds in learning.curve), strict=True)
    axes.fill_between(done, low, high, color=_WITHOUT, alpha=0.2, linewidth=0, label="95 % interval")
    axes.set(xlabel="photos that a person had done before", ylabel="seconds per photo", ylim=(0, None))
    axes.legend(loc="upper right", frameon=False)


def _draw_quality(
    axes: Axes, names: Sequence[str], by_model: Mapping[str, Effort], test_miou: Mapping[str, float]
) -> None:
    nothing = float("nan")
    axes.plot(_ticks(names), [by_model[n].miou for n in names], "o-", label="pre-labels against what was submitted")
    axes.plot(_ticks(names), [test_miou.get(name, nothing) for name in names], "s--", label="on test photos")
    axes.set(ylabel="mIoU", ylim=(0, 1))
    axes.legend(loc="lower right", frameon=False)


def _draw_labels(axes: Axes, names: Sequence[str], labels: Sequence[str], by_model: Mapping[str, Effort]) -> None:
    values = np.array([[by_model[name].iou.get(label, np.nan) for name in names] for label in labels])
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
    return _NONE if value is None or np.isnan(value) else f"{value:.{places}f}"


def _seconds(mean: float, median: float) -> str:
    return _NONE if np.isnan(mean) else f"{mean:.0f} ({median:.0f})"


def _interval(interval: Interval, places: int) -> str:
    value, low, high = (
        f"{bound:,.{places}f}".replace("-", "−") for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} … {high})"
