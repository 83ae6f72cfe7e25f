"""The command line: each station by hand, and the local stack."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from pipelines.errors import MaskloopError, ServiceError
from pipelines.log import configure_logging
from pipelines.settings import get_settings

app = typer.Typer(
    help="Maskloop: from photos in a bucket to a model that pre-labels the next ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 120)  # logs are no 80-column terminal


@app.command()
def up() -> None:
    """Start the local stack and wait until every service is healthy."""
    from pipelines.stack.lifecycle import addresses
    from pipelines.stack.lifecycle import up as start

    settings = start(console)
    console.print(addresses(settings))


@app.command()
def down() -> None:
    """End what `up` started; everything is kept in the state folder."""
    from pipelines.stack.lifecycle import down as stop

    stop(console)


@app.command()
def status() -> None:
    """Show services, memory, models, and where the loop stands."""
    from pipelines.stack.status import show_status

    show_status(get_settings(), console)


@app.command()
def doctor() -> None:
    """Check every connection and every known trap, and say how to mend what is wrong."""
    from pipelines.stack.doctor import examine

    if not examine(get_settings(), console):
        raise typer.Exit(1)


@app.command()
def setup() -> None:
    """Create or mend buckets, Label Studio project and Airflow pool; changes only what differs."""
    from pipelines.stack.lifecycle import set_up

    for line in set_up(get_settings()) or ["nothing to change"]:
        console.print(line)


buckets = typer.Typer(help="The buckets' settings as code.", no_args_is_help=True)
app.add_typer(buckets, name="buckets")


@buckets.command("setup")
def buckets_setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing")] = False,
) -> None:
    """Create or mend source, target and dataset bucket; shows what differs first."""
    from pipelines import storage
    from pipelines.buckets import as_table, bring_in_line, differences, require_kept

    settings = get_settings()
    client = storage.connect(settings)
    found = differences(client, settings)
    console.print(as_table(found) if found else "all buckets are as they must be")
    if dry_run or not found:
        return
    left = bring_in_line(client, settings, found)
    require_kept(left, settings)
    console.print(f"{len(found) - len(left)} settings brought in line")
    if left:
        console.print(f"the local bucket server does not know: {', '.join(sorted({one.setting for one in left}))}")


@app.command()
def ingest() -> None:
    """Turn new and changed photos of the source bucket into tasks."""
    from pipelines import storage
    from pipelines.ingest import ingest as run
    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params

    settings = get_settings()
    report = run(storage.connect(settings), connect(settings), settings, load_params(settings.params_path))
    console.print(str(report), highlight=False)


@app.command()
def prelabel() -> None:
    """Give tasks that nobody opened the champion's masks."""
    from rich.progress import track

    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params
    from pipelines.prelabel import plan_batches, prelabel_batch

    settings = get_settings()
    params, labels = load_params(settings.params_path), connect(settings)
    reports = [
        prelabel_batch(labels, settings, params, batch)
        for batch in track(plan_batches(labels, settings, params), "pre-labelling", console=console)
    ]
    console.print(f"{sum(r.created for r in reports)} predictions, {sum(len(r.problems) for r in reports)} problems")


@app.command()
def sync() -> None:
    """Publish what people submitted as a dataset version."""
    from pipelines import storage
    from pipelines.dataset.published import Published
    from pipelines.dataset.workspace import Workspace
    from pipelines.labelstudio.client import connect
    from pipelines.report import log_effort
    from pipelines.sync import sync as run
    from pipelines.training.registry import Registry

    settings = get_settings()
    bucket = storage.connect(settings)
    version = run(bucket, connect(settings), settings)
    console.print(f"{version.tag}: {version.summary}" if version else "nothing changed", highlight=False)
    if version:
        published = Published(Workspace(settings.workspace_path, settings), bucket)
        try:
            log_effort(Registry(settings), published.manifest(version.tag), version.tag)
        except ServiceError as error:  # the version is published; the next one's figures hold all of these
            console.print(f"what people saved is not in MLflow: {error}", highlight=False)


@app.command()
def retrain(
    again: Annotated[bool, typer.Option(help="Train even if a model was trained on the newest dataset")] = False,
) -> None:
    """Train on the newest dataset version, and promote the model if it is better."""
    from pipelines import storage
    from pipelines.retrain import dataset_to_train, register, train

    settings = get_settings()
    bucket = storage.connect(settings)
    dataset = dataset_to_train(bucket, settings, again=again)
    if dataset is None:
        return
    train(settings, dataset, again=again)
    version = register(bucket, settings, dataset)
    console.print(f"{version.served_as}: {'promoted' if version.promoted else 'not promoted'}: {version.reason}")


@app.command()
def promote(version: Annotated[int, typer.Argument(min=1, help="Number of the model version, such as 3")]) -> None:
    """Make a model version champion by hand, whatever the gate said."""
    from pipelines.retrain import promote_by_hand

    console.print(f"{promote_by_hand(get_settings(), version).served_as} is champion", highlight=False)


@app.command()
def rollback() -> None:
    """Bring back the model that was champion before."""
    from pipelines.retrain import roll_back

    leaving, back = roll_back(get_settings())
    console.print(f"{leaving.served_as} left, {back.served_as} is champion again", highlight=False)


@app.command()
def quality() -> None:
    """Find annotations that look wrong, show them in Label Studio's tab «Review», and measure how well people agree."""
    from pipelines import storage
    from pipelines.dataset.published import Published
    from pipelines.dataset.workspace import Workspace
    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params
    from pipelines.quality.review import as_tables, log_quality, review
    from pipelines.training.registry import Registry

    settings = get_settings()
    published = Published(Workspace(settings.workspace_path, settings), storage.connect(settings))
    registry = Registry(settings)
    found = review(settings, published, registry, connect(settings), load_params(settings.params_path))
    log_quality(registry, found)
    for table in as_tables(found):
        console.print(table)


@app.command()
def report() -> None:
    """Show what people did with each model's pre-labels and what that saved, as a table and as a page of pictures."""
    from pipelines import storage
    from pipelines.dataset.published import Published
    from pipelines.dataset.workspace import Workspace
    from pipelines.effort import effort_by_model
    from pipelines.params import load_params
    from pipelines.report import as_table, miou_on_test, write_report
    from pipelines.training.registry import Registry

    settings = get_settings()
    published = Published(Workspace(settings.workspace_path, settings), storage.connect(settings))
    dataset = published.newest()
    found, scores = effort_by_model(published.manifest(dataset)), miou_on_test(Registry(settings))
    page = settings.var / "report.html"
    write_report(page, found, scores, load_params(settings.params_path), dataset)
    console.print(as_table(found, scores, dataset))
    console.print(f"pictures: {page}", highlight=False)


@app.command()
def lineage(
    what: Annotated[str, typer.Argument(help="gs://bucket/photo, dataset-0007, or models:/clothing@champion")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a tree")] = False,
) -> None:
    """Show where a photo went, what a dataset is made of, or what a model was made from."""
    from pipelines import storage
    from pipelines.dataset.published import Published
    from pipelines.dataset.workspace import Workspace
    from pipelines.lineage import Lineage
    from pipelines.training.registry import Registry

    settings = get_settings()
    published = Published(Workspace(settings.workspace_path, settings), storage.connect(settings))
    link = Lineage(published, Registry(settings)).of(what)
    if json:
        console.print_json(data=link.as_json())
    else:
        console.print(link.as_tree(), highlight=False)


@app.command()
def export(
    dataset: Annotated[str, typer.Argument(help="A dataset version, such as dataset-0007")],
    form: Annotated[str, typer.Argument(help="coco, png, yolo or huggingface")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet")],
) -> None:
    """Write a dataset version in a form that other tools read."""
    from pipelines import storage
    from pipelines.dataset.published import Published
    from pipelines.dataset.workspace import Workspace
    from pipelines.export import export as run
    from pipelines.params import load_params

    settings = get_settings()
    published = Published(Workspace(settings.workspace_path, settings), storage.connect(settings))
    count = run(published, dataset, form, folder, load_params(settings.params_path))
    console.print(f"{count} photos of {dataset} as {form} in {folder}", highlight=False)


@app.command("import")
def import_labels(
    photos: Annotated[Path, typer.Argument(help="Folder of photos")],
    masks: Annotated[Path, typer.Argument(help="Folder of index masks, PNG, named like the photos")],
    labels: Annotated[Path, typer.Argument(help="CSV with columns index and label: mask value → label of params.yaml")],
    name: Annotated[str, typer.Option(help="Folder of the source bucket that the photos go to")] = "imported",
) -> None:
    """Bring photos that are labelled already into the loop, as annotations that people can correct."""
    from pipelines import storage
    from pipelines.import_labels import import_labelled
    from pipelines.labelstudio.client import connect
    from pipelines.masked_photos import masked_photos
    from pipelines.params import load_params

    settings = get_settings()
    params = load_params(settings.params_path)
    source = masked_photos(photos, masks, labels, params)
    report = import_labelled(storage.connect(settings), connect(settings), settings, params, source, name)
    console.print(str(report), highlight=False)


@app.command()
def simulate(
    photos: Annotated[Path, typer.Argument(help="Folder of photos")],
    masks: Annotated[Path, typer.Argument(help="Folder of index masks, PNG, named like the photos")],
    labels: Annotated[Path, typer.Argument(help="CSV with columns index and label: mask value → label of params.yaml")],
    sizes: Annotated[str, typer.Option(help="Photos labelled after each batch")] = "50,100,200",
    seeds: Annotated[int, typer.Option(min=1, help="How often each order is tried")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each training")] = 200,
    height: Annotated[int, typer.Option(help="The network's input in pixels")] = 192,
    width: Annotated[int, typer.Option(help="Likewise")] = 128,
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


def main() -> None:
    """Run the command line; errors that Maskloop knows are shown without a traceback."""
    configure_logging(RichHandler(console=console, show_path=False))
    try:
        app()
    except MaskloopError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
