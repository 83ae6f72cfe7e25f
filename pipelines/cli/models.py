"""Commands for judging models and labels, and for changing the champion by hand."""

from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def promote(version: Annotated[int, typer.Argument(min=1, help="Number of the model version, such as 3")]) -> None:
    """Make a model version champion by hand, whatever the gate said."""
    from pipelines.training.pipeline import promote_by_hand

    console.print(f"{promote_by_hand(get_settings(), version).served_as} is champion", highlight=False)


@app.command()
def rollback() -> None:
    """Bring back the model that served before the champion; once more, the one before that."""
    from pipelines.training.pipeline import roll_back

    leaving, back = roll_back(get_settings())
    gone = leaving.served_as if leaving else "a deleted version"
    console.print(f"{gone} left, {back.served_as} is champion again", highlight=False)


@app.command()
def quality() -> None:
    """Show masks that look wrong in Label Studio's tab «Review»; measure how well people agree and what they miss."""
    from pipelines.dataset.published import Published
    from pipelines.labelstudio.client import connect
    from pipelines.models.registry import Registry
    from pipelines.params import load_params
    from pipelines.quality.metrics import as_tables, log_quality
    from pipelines.quality.review import review

    settings = get_settings()
    published = Published.of(settings)
    registry = Registry(settings)
    found = review(settings, published, registry, connect(settings), load_params(settings.params_path))
    log_quality(registry, found)
    for table in as_tables(found):
        console.print(table)


@app.command()
def report() -> None:
    """Show what people did with each model's masks and what these saved, as a table and as a page of pictures."""
    from pipelines.dataset.published import Published
    from pipelines.models.registry import Registry
    from pipelines.params import load_params
    from pipelines.reports.effort import measure_effort
    from pipelines.reports.prelabel_report import as_notes, as_table, miou_on_test, write_report

    settings = get_settings()
    published = Published.of(settings)
    dataset, params = published.newest(), load_params(settings.params_path)
    found, scores = measure_effort(published.manifest(dataset), params), miou_on_test(Registry(settings))
    page = settings.var / "report.html"
    write_report(page, found, scores, params, dataset)
    console.print(as_table(found, scores, dataset))
    for note in as_notes(found):
        console.print(note, highlight=False)
    console.print(f"pictures: {page}", highlight=False)
