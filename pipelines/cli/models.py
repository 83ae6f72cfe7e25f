"""Commands for evaluating models and labels, and for changing the champion by hand."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.cli.trials import Kind
from pipelines.settings import get_settings


@app.command()
def promote(
    version: Annotated[int, typer.Argument(min=1, help="Number of the model version, such as 3")],
    what: Annotated[Kind, typer.Option(help="Which model: masks (the clothing model) or clicks")] = Kind.masks,
) -> None:
    """Make a model version champion by hand, whatever the gate decided."""
    from pipelines.training.clicks_pipeline import promote_by_hand as promote_clicks
    from pipelines.training.pipeline import promote_by_hand

    change = promote_clicks if what is Kind.clicks else promote_by_hand
    console.print(f"{change(get_settings(), version).served_as} is champion", highlight=False)


@app.command()
def rollback(
    what: Annotated[Kind, typer.Option(help="Which model: masks (the clothing model) or clicks")] = Kind.masks,
) -> None:
    """Make the previous champion champion again; run again, the one before that."""
    from pipelines.training.clicks_pipeline import roll_back as roll_back_clicks
    from pipelines.training.pipeline import roll_back

    leaving, back = (roll_back_clicks if what is Kind.clicks else roll_back)(get_settings())
    gone = leaving.served_as if leaving else "a deleted version"
    console.print(f"{back.served_as} is champion again, in place of {gone}", highlight=False)


@app.command()
def quality() -> None:
    """Show suspicious masks in Label Studio's tab "Review"; measure how well people agree and what they miss."""
    from pipelines.dataset.published import Published
    from pipelines.labelstudio.client import connect
    from pipelines.models.registry import Registry
    from pipelines.params import load_params
    from pipelines.quality.metrics import as_tables, log_quality
    from pipelines.quality.review import review

    settings = get_settings()
    published = Published.of(settings)
    registry = Registry(settings)
    result = review(settings, published, registry, connect(settings), load_params(settings.params_path))
    log_quality(registry, result)
    for table in as_tables(result):
        console.print(table)


@app.command()
def report(
    out: Annotated[Path | None, typer.Option(help="File to write the page to, besides var/reports/report.html")] = None,
    json: Annotated[Path | None, typer.Option(help="File to write its numbers to as JSON, likewise")] = None,
    person: Annotated[str, typer.Option("--for", help="Address of a person whose own numbers are shown as well")] = "",
) -> None:
    """Write the page of progress; show the usage of each model's masks and the time that they saved."""
    from pipelines.dataset.published import Published
    from pipelines.fs import write_atomically
    from pipelines.reports.progress_page import REPORTS, as_html, as_json, numbers_of, read_progress, write_progress

    settings = get_settings()
    progress, people = read_progress(settings)
    write_progress(settings.var / REPORTS, progress, people)
    own = numbers_of(people, person, progress.dataset) if person else None
    if own:
        console.print_json(as_json(own).decode())
    mode = 0o600 if own else 0o666
    if out:
        write_atomically(out, as_html(progress, own).encode(), mode=mode)
    if json:
        write_atomically(json, as_json(progress, own), mode=mode)
    if Published.of(settings).tags():
        _show_usage()
    else:
        console.print("no dataset is published yet, so nothing is known of the usage of masks")
    console.print(f"progress: {out or settings.var / REPORTS / 'report.html'}", highlight=False)


def _show_usage() -> None:
    """Print the usage of each model's masks, and write the page of plots."""
    from pipelines.dataset.published import Published
    from pipelines.models.registry import Registry
    from pipelines.params import load_params
    from pipelines.reports.effort import measure_effort
    from pipelines.reports.prelabel_report import as_notes, as_tables, miou_on_test, write_report

    settings = get_settings()
    published = Published.of(settings)
    dataset, params = published.newest(), load_params(settings.params_path)
    effort, scores = measure_effort(published.manifest(dataset), params), miou_on_test(Registry(settings))
    page = settings.var / "report.html"
    write_report(page, effort, scores, params, dataset)
    for table in as_tables(effort, scores, dataset):
        console.print(table)
    for note in as_notes(effort):
        console.print(note, highlight=False)
    console.print(f"plots: {page}", highlight=False)
