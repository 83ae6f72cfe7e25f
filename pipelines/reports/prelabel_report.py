"""Usage of pre-labels and time saved per model: metrics in MLflow, tables for a terminal, and a page of plots."""

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

from pipelines.dataset.published import Published
from pipelines.models.registry import Registry
from pipelines.params import Params, load_params
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
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
matplotlib.use("agg")
_TEMPLATE = Path(__file__).with_name("prelabel_report.html.j2")
_COLORS = {"untouched": "#2ca02c", "corrected": "#ffbf00", "drawn": "#1f77b4", "deleted": "#b0b0b0"}
_WITH, _WITHOUT = "#2ca02c", "#1f77b4"
_NONE = "–"
_PAUSED = "paused.md"  # artifact of a run: why its version was paused
_USAGE_COLUMNS = (
    "model", "test mIoU", "photos", "untouched", "corrected", "drawn", "deleted", "pre-label\nmIoU",
)  # fmt: skip
_TIME_COLUMNS = (
    "model", "s with masks\nmean (median)", "s without masks\nmean (median)", "saved s per photo\n95 % interval",
    "saved hours\n95 % interval",
)  # fmt: skip


def log_usage(settings: Settings, dataset: str) -> list[str]:
    """Log the usage of each model's masks up to a dataset version; see `log_effort`."""
    manifest = Published.of(settings).manifest(dataset)
    return log_effort(Registry(settings), manifest, dataset, load_params(settings.params_path))


def log_effort(registry: Registry, manifest: pd.DataFrame, dataset: str, params: Params) -> list[str]:
    """Log the usage of each model's masks and the time saved to its run, with the dataset's number as step.

    A champion whose masks cost people time is paused: it draws no more masks until a version is promoted. Returns the
    models with new metrics; those of other registries, or whose run was deleted, are left out.
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
    """Pause a champion, unless people resumed it after an earlier pause."""
    if champion.paused:
        return
    if registry.file(champion, _PAUSED):
        logger.warning(
            "%s was paused before and resumed by hand, so it is not paused again, but %s", champion.served_as, reason
        )
        return
    logger.warning("%s is paused and draws no more masks: %s", champion.served_as, reason)
    registry.pause(champion, reason)
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / _PAUSED
        note.write_text(f"{champion.served_as} was paused: {reason}.\n", encoding="utf-8")
        registry.log_file(champion.run_id, note)  # last: after a kill before this line it is paused again


def as_tables(report: EffortReport, test_miou: Mapping[str, float], dataset: str) -> tuple[Table, Table]:
    """Return two tables for a terminal of 120 columns: the usage of masks and the time saved, a row per model."""
    rows = _rows(report, test_miou)
    usage = _table(f"Usage of masks, in {dataset}", _USAGE_COLUMNS, [row[: len(_USAGE_COLUMNS)] for row in rows])
    saved = _table(f"Time saved, in {dataset}", _TIME_COLUMNS, [[row[0], *row[len(_USAGE_COLUMNS) :]] for row in rows])
    return usage, saved


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(columns[0], overflow="fold")  # a name is never cut
    for heading in columns[1:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def as_notes(report: EffortReport) -> list[str]:
    """Return sentences about what the tables leave open: missing estimates, the effect of practice, photos left out."""
    notes = [f"{name}: {effort.saving.reason}." for name, effort in report.by_model.items() if effort.saving.reason]
    for name, effort in report.by_model.items():
        if by_chance := effort.by_chance.per_photo:
            notes.append(
                f"{name}, only photos chosen for the queue at random: {_interval(by_chance, 0)} s saved "
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
    """Write the page: plots over the models in their order, and the table of metrics."""
    by_model = report.by_model
    names = [name for name in by_model if name != BY_HAND]
    plots = {
        "Seconds saved per photo with masks, with their 95 % intervals": _draw(lambda axes: _draw_saved(axes, report)),
        "Shares of regions": _draw(lambda axes: _draw_shares(axes, by_model)),
        "Seconds per photo: means of photos of the same time, not adjusted": _draw(
            lambda axes: _draw_seconds(axes, by_model)
        ),
        "Quality of the masks": _draw(lambda axes: _draw_quality(axes, names, by_model, test_miou)),
    }
    if learning := report.learning:
        plots["Effect of practice: seconds of the average photo, without masks, at equal garments"] = _draw(
            lambda axes: _draw_learning(axes, learning)
        )
    labels = [label for label in ("", *params.label_ids) if any(label in by_model[name].iou for name in names)]
    if labels:
        height = 1 + 0.28 * len(labels)
        plots["IoU of pre-labels by label"] = _draw(lambda axes: _draw_labels(axes, names, labels, by_model), height)
    html = render(
        _TEMPLATE,
        dataset=dataset,
        plots=plots,
        rows=_rows(report, test_miou),
        notes=as_notes(report),
        names=names,
        classes=[[label or "background", *(_number(by_model[n].iou.get(label)) for n in names)] for label in labels],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def miou_on_test(registry: Registry) -> dict[str, float]:
    """Return the mIoU of each registered model on the test photos of its own dataset."""
    return {version.served_as: version.miou for version in registry.versions()}


def _rows(report: EffortReport, test_miou: Mapping[str, float]) -> list[list[str]]:
    """Return the cells of the usage columns and then of the time columns, a row per model and one for all models."""
    rows = [[
        _title(name), _number(test_miou.get(name)), str(effort.photos),
        *(f"{share:.0%}" for share in effort.shares.values()), _number(effort.miou),
        _seconds(effort.seconds_with_masks, effort.median_seconds_with_masks),
        _seconds(effort.seconds_without_masks, effort.median_seconds_without_masks),
        *((_NONE, _NONE) if name == BY_HAND else _saved(effort.saving)),
    ] for name, effort in report.by_model.items()]  # fmt: skip
    if any(name != BY_HAND for name in report.by_model):
        in_all = report.in_all
        rows.append(["in all", _NONE, str(in_all.photos), *[_NONE] * 7, *_saved(in_all)])
    return rows


def _saved(saving: Saving) -> tuple[str, str]:
    """Return the cells for the seconds saved per photo and the saved hours, or the reason why there are none."""
    if saving.per_photo is None or saving.hours is None:
        return TOO_FEW, _NONE
    return _interval(saving.per_photo, 0), _interval(saving.hours, 1)


def _practice(learning: Learning | None) -> str:
    if learning is None:
        return "Effect of practice: too few photos to tell."
    (first, then), (last, now) = learning.curve[0], learning.curve[-1]
    share = learning.change.times(100)
    return (
        f"Effect of practice, at equal garments and without masks: after {last} photos a person takes "
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
    for share, color in _COLORS.items():
        shares = np.array([100 * effort.shares[share] for effort in by_model.values()])
        axes.bar(_ticks(by_model), shares, bottom=bottom, color=color, label=share, width=0.7)
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
        axes.text(column, row, _number(value, 2), ha="center", va="center", fontsize=8)


def _ticks(names: Mapping[str, Effort] | Sequence[str]) -> list[str]:
    return [_title(name) for name in names]


def _title(name: str) -> str:
    return name or "by hand"


def _number(value: float | None, places: int = 3) -> str:
    return _NONE if value is None or np.isnan(value) else f"{value:.{places}f}"


def _seconds(mean: float, median: float) -> str:
    return _NONE if np.isnan(mean) else f"{mean:.0f} ({median:.0f})"


def _interval(interval: Interval, places: int) -> str:
    value, low, high = (
        f"{bound:,.{places}f}".replace("-", "−") for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} … {high})"
