"""Commands that try the loop on simulated labelers and on photos whose masks are known."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings

if TYPE_CHECKING:
    from rich.table import Table


class Kind(StrEnum):
    """The kinds of models."""

    masks = "masks"
    clicks = "clicks"


evaluations = typer.Typer(help="Measure models on photos whose masks are known, without a stack.", no_args_is_help=True)
app.add_typer(evaluations, name="evaluate")
PhotosFolder = Annotated[Path, typer.Argument(help="Folder of photos")]
MasksFolder = Annotated[Path, typer.Argument(help="Folder of index masks, PNG, named like the photos")]
LabelsTable = Annotated[
    Path, typer.Argument(help="CSV with columns index and label: mask value → label of params.yaml")
]


@app.command()
def simulate(
    photos: Annotated[Path, typer.Argument(help="Folder of photos")],
    masks: Annotated[Path, typer.Argument(help="Folder of index masks, PNG, named like the photos")],
    labels: Annotated[Path, typer.Argument(help="CSV with columns index and label: mask value → label of params.yaml")],
    sizes: Annotated[str, typer.Option(help="Photos labelled after each batch")] = "25,75,200,300",
    seeds: Annotated[int, typer.Option(min=1, help="Random orders to try")] = 3,
    orders: Annotated[str, typer.Option(help="Orders of the queue to compare with chance")] = "uncertainty",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each training")] = 300,
    height: Annotated[int, typer.Option(help="Height of photos in training, in pixels; 0: that of params.yaml")] = 0,
    width: Annotated[int, typer.Option(help="Their width; 0: that of params.yaml")] = 0,
    learning: Annotated[
        bool, typer.Option("--learning", help="Let encoders learn, as they do with many photos: far slower")
    ] = False,
) -> None:
    """Measure how much more labels help, in each order that the queue can have, on photos whose masks are known."""
    import time

    import torch
    from rich.progress import track

    from pipelines.exchange.masked_photos import masked_photos
    from pipelines.params import load_params
    from pipelines.simulation.results import as_table, draw_curve, gains_table, write_results
    from pipelines.simulation.rounds import CHANCE, against_chance, as_curve, chosen_orders, for_simulation, version_of
    from pipelines.simulation.rounds import simulate as run

    settings, started = get_settings(), time.monotonic()
    params = load_params(settings.params_path)
    params, compared = for_simulation(params, height, width, steps, learning=learning), chosen_orders(orders)
    source = masked_photos(photos, masks, labels, params)
    counts = sorted({int(size) for size in sizes.split(",")})
    folder = settings.var / "simulation" / f"{photos.resolve().parent.name}-{steps}-{version_of(params, source)}"
    torch.set_num_threads(os.cpu_count() or 1)
    rounds = run(source, params, folder, counts, range(seeds), steps, compared)
    done = list(track(rounds, "simulating", total=len(compared) * seeds * len(counts), console=console))
    curve = as_curve(done)
    draw_curve(curve, folder / "curve.png")
    names = " ".join(f"…/{path.parent.name}/{path.name}" for path in (photos, masks, labels))
    size = params.train.image_height, params.train.image_width
    command = (
        f"maskloop simulate {names} --sizes {sizes} --seeds {seeds} --orders {','.join(compared[1:]) or CHANCE} "
        f"--steps {steps} --height {size[0]} --width {size[1]}{' --learning' if learning else ''}"
    )
    write_results(settings.var / "bench" / "simulate.json", done, command, time.monotonic() - started)
    console.print(as_table(curve))
    if len(compared) > 1:
        console.print(gains_table(against_chance(done)))
    console.print(f"plot: {folder / 'curve.png'}", highlight=False)


@app.command()
def train(
    photos: PhotosFolder,
    masks: MasksFolder,
    labels: LabelsTable,
    out: Annotated[Path, typer.Option(help="Folder for the model, its metrics and report.html")],
    minutes: Annotated[
        float, typer.Option(min=-1, help="Safety net in minutes; 0: none, -1: train.max_minutes of params.yaml")
    ] = -1,
    what: Annotated[Kind, typer.Option(help="Which model: masks (the clothing model) or clicks")] = Kind.masks,
    model: Annotated[
        Path | None, typer.Option(help="Clothing model that a click model begins with: a folder; left out: none")
    ] = None,
) -> None:
    """Train a model on a folder of masked photos as the loop would, with its split, metrics and report."""
    import torch

    from pipelines.exchange.masked_photos import masked_photos
    from pipelines.params import load_params
    from pipelines.training.folder import train_on_folder
    from pipelines.training.folder_clicks import train_clicks_on_folder

    settings = get_settings()
    params = load_params(settings.params_path)
    torch.set_num_threads(os.cpu_count() or 1)
    if what is Kind.clicks:
        source = masked_photos(photos, masks, labels, params)
        result = train_clicks_on_folder(
            settings, source, params, out, minutes=None if minutes < 0 else minutes, start=model
        )
        console.print(click_table(result))
        console.print(f"model: {out}; pictures: {out / 'clicks_report'}", highlight=False)
        return
    metrics = train_on_folder(
        masked_photos(photos, masks, labels, params), params, out, minutes=None if minutes < 0 else minutes
    )
    interval = f" ({metrics['miou_low']:.3f} … {metrics['miou_high']:.3f})" if "miou_low" in metrics else ""
    console.print(f"test mIoU {metrics['miou']:.3f}{interval} on {metrics['photos']} photos", highlight=False)
    console.print(f"model: {out}; report: {out / 'report.html'}", highlight=False)


@evaluations.command("masks")
def evaluate_masks(
    photos: PhotosFolder,
    masks: MasksFolder,
    labels: LabelsTable,
    model: Annotated[
        str, typer.Option(help="models:/NAME@champion, models:/NAME/3, or a model folder")
    ] = "models:/clothing@champion",
    json: Annotated[Path | None, typer.Option(help="File to write the metrics to, as JSON")] = None,
) -> None:
    """Measure a clothing model on every photo of a folder whose masks are known."""
    import json as writer

    from rich import box
    from rich.table import Table

    from pipelines.exchange.masked_photos import masked_photos
    from pipelines.params import load_params
    from pipelines.training.folder import evaluate_on_folder, load_named_model

    settings = get_settings()
    params = load_params(settings.params_path)
    source = masked_photos(photos, masks, labels, params)
    result = evaluate_on_folder(source, params, load_named_model(settings, model))
    if json:
        json.write_text(writer.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = Table(title=f"{model} on {result['photos']} photos", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "value", "95 % of resamples"):
        table.add_column(heading, justify="left" if not heading else "right")
    metrics = {key: value for key, value in result.items() if key not in ("photos", "iou")}
    metrics |= {f"IoU {label}": value for label, value in result["iou"].items()}
    for name, value in metrics.items():
        interval = f"{value['low']:.3f} … {value['high']:.3f}" if "low" in value else "–"
        table.add_row(name, f"{value['value']:.3f}", interval)
    console.print(table)


@evaluations.command("clicks")
def evaluate_clicks(
    photos: PhotosFolder,
    masks: MasksFolder,
    labels: LabelsTable,
    segmenter: Annotated[
        list[str] | None,
        typer.Option(
            help="grabcut, sam, a click model's folder or the folder sam/ in it, models:/clicks@champion or "
            "models:/clicks/3; repeatable; "
            "left out: all that are there"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Clothing model whose masks are corrected; left out: masks are damaged by chance")
    ] = "",
    garments: Annotated[int, typer.Option(min=1, help="Garments to measure, chosen by chance")] = 200,
    json: Annotated[Path | None, typer.Option(help="File to write the measures to, as JSON")] = None,
) -> None:
    """Measure how many clicks segmenters need on the photos of a folder whose masks are known."""
    import json as writer

    import torch

    from pipelines.exchange.masked_photos import masked_photos
    from pipelines.params import load_params
    from pipelines.training.folder_clicks import evaluate_clicks_on_folder

    settings = get_settings()
    params = load_params(settings.params_path)
    torch.set_num_threads(os.cpu_count() or 1)
    source = masked_photos(photos, masks, labels, params)
    result = evaluate_clicks_on_folder(settings, source, params, segmenter or [], model, garments)
    if json:
        json.write_text(writer.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(click_table(result))


def click_table(result: Mapping[str, Any]) -> "Table":
    """Return a table of measured segmenters."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"Clicks on {result['photos']} photos", title_justify="left", box=box.SIMPLE_HEAD)
    headings = ("IoU after 1", "2", "4", "NoC80", "NoC85", "NoC90", "not in 20", "box", "from a mask", "harm", "ms")
    for heading in ("", *headings):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values in result["segmenters"].items():
        mask = values.get("from_mask")
        table.add_row(
            name, *(f"{values['iou_after'][clicks - 1]:.3f}" for clicks in (1, 2, 4)),
            *(f"{values[key]:.2f}" for key in ("noc80", "noc85", "noc90")), f"{values['failures']['85']:.0%}",
            f"{values['box']:.3f}", f"{mask['noc85']:.2f}" if mask else "–",
            f"{values['harm']:.1%}" if mask else "–", f"{1000 * values['seconds']:.0f}",
        )  # fmt: skip
    return table


@app.command()
def demo(
    photos: Annotated[str, typer.Option(help="Folder of real photos (with --masks and --labels)")] = "",
    masks: Annotated[str, typer.Option(help="Folder of index masks, PNG, named like the photos")] = "",
    labels: Annotated[
        str, typer.Option(help="CSV with columns index and label: mask value → label of params.yaml")
    ] = "",
    count: Annotated[int, typer.Option(help="How many photos in all")] = 120,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds")] = 2,
) -> None:
    """Run whole rounds of the loop with simulated labelers, on synthetic or on your own masked photos."""
    from pipelines.demo.run import run_demo

    source = (Path(photos), Path(masks), Path(labels)) if photos or masks or labels else None
    run_demo(console, source, count, rounds)
