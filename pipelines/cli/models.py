"""Commands for evaluating models and labels, and for changing the champion by hand."""

from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def promote(version: Annotated[int, typer.Argument(min=1, help="Number of the model version, such as 3")]) -> None:
    """Make a model version champion by hand, whatever the gate decided."""
    from pipelines.training.pipeline import promote_by_hand

    console.print(f"{promote_by_hand(get_settings(), version).served_as} is champion", highlight=False)


@app.command()
def rollback() -> None:
    """Make the previous champion champion again; run again, the one before that."""
    from pipelines.training.pipeline import roll_back

    leaving, back = roll_back(get_settings())
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
def report() -> None:
    """Show the usage of each model's masks and the time that they saved, as tables and as a page of plots."""
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
