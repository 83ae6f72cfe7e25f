"""The command that shows what labelers say about photos, and serves skipped photos again."""

from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def remarks(
    again: Annotated[
        list[int] | None, typer.Option(help="Number of a skipped photo that is to be served again; may be repeated")
    ] = None,
) -> None:
    """Show what labelers say about photos, here and in the tab "Review": doubts, and the reasons of skips."""
    from pipelines.fs import held
    from pipelines.labelstudio.client import connect
    from pipelines.labelstudio.project import find_project
    from pipelines.labelstudio.remarks import read_remarks, serve_skipped_again, show_remarks
    from pipelines.params import load_params
    from pipelines.quality.metrics import remarks_table

    settings = get_settings()
    labels = connect(settings)
    project = find_project(labels, load_params(settings.params_path))
    if again:
        served = serve_skipped_again(labels, project, again)
        console.print(f"{len(served)} of {len(again)} photos are served again", highlight=False)
    with held(settings.var / "ingest.lock"):
        show_remarks(labels, project)
    console.print(remarks_table(read_remarks(labels, project)))
