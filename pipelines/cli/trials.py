"""Commands that try the loop out: on simulated labelers, and on photos whose masks are known."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def simulate(
    photos: Annotated[Path, typer.Argument(help="Folder of photos")],
    masks: Annotated[Path, typer.Argument(help="Folder of index masks, PNG, named like the photos")],
    labels: Annotated[Path, typer.Argument(help="CSV with columns index and label: mask value → label of params.yaml")],
    sizes: Annotated[str, typer.Option(help="Photos labelled after each batch")] = "50,100,200",
    seeds: Annotated[int, typer.Option(min=1, help="How often each order is tried")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each training")] = 200,
    height: Annotated[int, typer.Option(help="Height of photos in training, in pixels")] = 192,
    width: Annotated[int, typer.Option(help="Their width")] = 128,
) -> None:
    """Measure what labelling more photos is worth, taken by chance or by the queue, on photos whose masks are known."""
    import time

    import torch
    from rich.progress import track

    from pipelines.masked_photos import masked_photos
    from pipelines.params import load_params
    from pipelines.simulation.results import as_table, draw_curve, write_figures
    from pipelines.simulation.rounds import as_curve, version_of
    from pipelines.simulation.rounds import simulate as run

    settings, started = get_settings(), time.monotonic()
    params = load_params(settings.params_path)
    smaller = params.train.model_copy(update={"image_height": height, "image_width": width})
    params = params.model_copy(update={"train": smaller})
    source = masked_photos(photos, masks, labels, params)
    counts = sorted({int(size) for size in sizes.split(",")})
    folder = settings.var / "simulation" / f"{photos.resolve().parent.name}-{steps}-{version_of(params, source)}"
    torch.set_num_threads(os.cpu_count() or 1)
    rounds = run(source, params, folder, counts, range(seeds), steps)
    done = list(track(rounds, "simulating", total=2 * seeds * len(counts), console=console))
    curve = as_curve(done)
    draw_curve(curve, folder / "curve.png")
    names = " ".join(f"…/{path.parent.name}/{path.name}" for path in (photos, masks, labels))
    command = (
        f"maskloop simulate {names} --sizes {sizes} --seeds {seeds} --steps {steps} --height {height} --width {width}"
    )
    write_figures(settings.var / "bench" / "simulate.json", done, command, time.monotonic() - started)
    console.print(as_table(curve))
    console.print(f"picture: {folder / 'curve.png'}", highlight=False)


@app.command()
def demo(
    photos: Annotated[str, typer.Option(help="Folder of real photos (with --masks and --labels)")] = "",
    masks: Annotated[str, typer.Option(help="Folder of index masks, PNG, named like the photos")] = "",
    labels: Annotated[
        str, typer.Option(help="CSV with columns index and label: mask value → label of params.yaml")
    ] = "",
    count: Annotated[int, typer.Option(help="How many photos in all")] = 96,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds")] = 2,
) -> None:
    """Run whole rounds of the loop with simulated labelers, on synthetic or on your own masked photos."""
    from pipelines.demo.run import run_demo

    source = (Path(photos), Path(masks), Path(labels)) if photos or masks or labels else None
    run_demo(console, source, count, rounds)
