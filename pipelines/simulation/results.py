"""The results of a simulation as a table, a plot, and JSON for docs/results.md."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from pipelines.fs import write_atomically
from pipelines.simulation.rounds import Step, against_chance, as_curve

matplotlib.use("agg")


def as_table(curve: pd.DataFrame) -> Table:
    """Return the learning curve as a table, a row per order and number of photos."""
    table = Table(title="The value of a round", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("order", "photos", "test mIoU", "time saved on this batch", "seconds per photo"):
        table.add_column(heading, justify="left" if heading == "order" else "right")
    for row in curve.to_dict("records"):
        table.add_row(
            row["order"], str(row["photos"]), f"{row['miou_mean']:.3f} ± {row['miou_std']:.3f}",
            f"{100 * row['saved_mean']:.0f} ± {100 * row['saved_std']:.0f} %",
            f"{row['seconds_mean']:.0f} ± {row['seconds_std']:.0f}",
        )  # fmt: skip
    return table


def gains_table(gains: pd.DataFrame) -> Table:
    """Return what the other orders gain over chance as a table; an interval that excludes 0 is a proof."""
    table = Table(title="Against chance, in pairs", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("order", "photos", "mIoU (95 %)", "seconds per photo (95 %)"):
        table.add_column(heading, justify="left" if heading == "order" else "right")
    for row in gains.to_dict("records"):
        table.add_row(
            row["order"], str(row["photos"]),
            f"{row['miou']:+.3f} ({row['miou_low']:+.3f} … {row['miou_high']:+.3f})",
            f"{row['seconds']:+.1f} ({row['seconds_low']:+.1f} … {row['seconds_high']:+.1f})",
        )  # fmt: skip
    return table


def draw_curve(curve: pd.DataFrame, path: Path) -> None:
    """Draw mIoU and time saved against photos labelled, a line per order with its standard deviation over seeds."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    quality, saved = figure.subplots(1, 2)
    for order, rows in curve.groupby("order"):
        for axes, name, scale in ((quality, "miou", 1), (saved, "saved", 100)):
            axes.errorbar(
                rows["photos"],
                scale * rows[f"{name}_mean"],
                scale * rows[f"{name}_std"],
                fmt="o-",
                capsize=3,
                label=order,
            )
    quality.set(xlabel="photos labelled", ylabel="mIoU on test photos")
    saved.set(xlabel="photos labelled, the newest batch", ylabel="% of the labelers' time saved")
    quality.legend(frameon=False)
    figure.savefig(path, dpi=120)


def write_results(path: Path, steps: Sequence[Step], command: str, seconds: float) -> None:
    """Write the curve as JSON; `command` is how it was measured."""
    curve = as_curve(steps)
    measured = {
        "name": "simulate", "command": command, "seconds": round(seconds, 1),
        "seeds": len({step.seed for step in steps}),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "curve": json.loads(curve.to_json(orient="records")),
        "against_chance": json.loads(against_chance(steps).to_json(orient="records")),
    }  # fmt: skip
    write_atomically(path, (json.dumps(measured, indent=1) + "\n").encode())
