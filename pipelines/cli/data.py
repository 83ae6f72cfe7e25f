"""Commands for lineage, export and import of data."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def lineage(
    what: Annotated[str, typer.Argument(help="gs://bucket/photo, dataset-0007, or models:/clothing@champion")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a tree")] = False,
) -> None:
    """Show the lineage of a photo, a dataset version or a model version."""
    from pipelines.dataset.published import Published
    from pipelines.models.registry import Registry
    from pipelines.reports.lineage import Lineage

    settings = get_settings()
    published = Published.of(settings)
    link = Lineage(published, Registry(settings)).of(what)
    if json:
        console.print_json(data=link.as_json())
    else:
        console.print(link.as_tree(), highlight=False)


@app.command()
def export(
    dataset: Annotated[str, typer.Argument(help="A dataset version, such as dataset-0007")],
    form: Annotated[str, typer.Argument(help="coco, png, yolo, huggingface or voc")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet")],
    split: Annotated[list[str] | None, typer.Option(help="Only photos of this split; may be repeated")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only photos that show this label; may be repeated")] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="Only photos marked as ground truth, or drawn by several people")
    ] = False,
    size: Annotated[int | None, typer.Option(min=1, help="Reduce photos to this longer edge in pixels")] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="An object for each region instead of each label (coco, yolo, voc)")
    ] = False,
) -> None:
    """Write a dataset version, or a part of it, in a format that other tools read."""
    from pipelines.dataset.published import Published
    from pipelines.exchange.export import export as run
    from pipelines.exchange.selection import Selection
    from pipelines.params import load_params

    settings = get_settings()
    published = Published.of(settings)
    selection = Selection(tuple(split or ()), tuple(label or ()), reviewed, size, instances)
    report = run(published, dataset, form, folder, load_params(settings.params_path), selection)
    console.print(f"{report} of {dataset} as {form} in {folder}", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"  {note}", highlight=False, markup=False)


@app.command()
def verify(
    datasets: Annotated[list[str] | None, typer.Argument(help="Dataset versions; the newest if none is given")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every version")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Download what the remote holds, and hash it")] = False,
) -> None:
    """Compare a dataset version's files with their hashes, in the cache and on the remote, and repair what can be."""
    from pipelines.dataset.objects import Objects
    from pipelines.dataset.published import Published
    from pipelines.dataset.verify import verify as run
    from pipelines.dataset.workspace import Workspace

    settings = get_settings()
    published = Published.of(settings)
    tags = published.tags() if everything else datasets or [published.newest()]
    verification = run(Workspace(settings.workspace_path, settings), Objects(settings), tags, deep=deep)
    console.print(str(verification), highlight=False)
    if verification.damages:
        console.print(verification.as_table())
    if verification.unrepaired:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A dataset version, such as dataset-0006")],
    after: Annotated[str, typer.Argument(help="The version to compare it with, such as dataset-0007")],
    html: Annotated[Path | None, typer.Option(help="File to write a page with both versions' masks to")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Photos that the page shows; it lists the others")] = 60,
) -> None:
    """Show which photos came, went or have other masks between two dataset versions, label by label."""
    from pipelines.dataset.diff import compare_versions
    from pipelines.dataset.published import Published
    from pipelines.reports.version_diff import as_tables, write_page

    published = Published.of(get_settings())
    difference = compare_versions(published, before, after)
    console.print(as_tables(difference), highlight=False)
    if html:
        write_page(html, difference, published.summary(after), pictures)
        console.print(f"page: {html}", highlight=False)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Remove old versions, models and files as `retention` in params.yaml says; what is in use stays."""
    from pipelines.params import load_params
    from pipelines.retention.collect import Sources, as_tables, is_empty, plan, remove

    settings = get_settings()
    sources = Sources.of(settings, load_params(settings.params_path))
    plans = plan(sources.kinds())
    for table in as_tables(plans):
        console.print(table, highlight=False)
    if is_empty(plans):
        console.print("nothing to remove")
    elif not dry_run and (yes or typer.confirm("Remove what goes?")):
        plans = remove(sources.kinds(), plans)
        for table in as_tables(plans, done=True):
            console.print(table, highlight=False)
    if any(kind.problem for kind in plans):
        raise typer.Exit(1)


@app.command("import")
def import_labels(
    photos: Annotated[Path, typer.Argument(help="Dataset folder or its annotation file; or, with MASKS, photos alone")],
    masks: Annotated[Path | None, typer.Argument(help="Folder of index masks, PNG, named like the photos")] = None,
    labels: Annotated[Path | None, typer.Argument(help="CSV with index and label: mask value → label")] = None,
    form: Annotated[
        str, typer.Option("--format", help="coco, yolo, voc, cvat, labelstudio, huggingface or png; else recognised")
    ] = "",
    renames: Annotated[
        Path | None, typer.Option("--labels", help="CSV with name and label: label there → label of params.yaml")
    ] = None,
    name: Annotated[str, typer.Option(help="Folder of the source bucket that the photos go to")] = "imported",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and upload nothing")] = False,
) -> None:
    """Import labelled photos of other tools as annotations that people can correct."""
    from pipelines.errors import ConfigurationError
    from pipelines.exchange import importer
    from pipelines.exchange.label_names import LabelNames, read_renames
    from pipelines.exchange.labelled_photos import LabelledPhotos
    from pipelines.exchange.masked_photos import masked_photos_of
    from pipelines.exchange.readers import read_labelled_photos
    from pipelines.gcs import client as gcs
    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params

    settings = get_settings()
    params = load_params(settings.params_path)
    names = LabelNames(params, read_renames(renames) if renames else None)
    source: LabelledPhotos
    if masks and labels:
        source = masked_photos_of(photos, masks, labels, names)
    elif masks:
        raise ConfigurationError("a folder of masks needs LABELS, a CSV with the columns index and label, after it")
    else:
        source = read_labelled_photos(photos, names, form)
    if dry_run:
        report = importer.dry_run(source, params)
    else:
        report = importer.import_labelled(gcs.connect(settings), connect(settings), settings, params, source, name)
    console.print(str(report), highlight=False, markup=False, soft_wrap=True)
