"""Commands that run each pipeline by hand: ingest, prelabel, sync, retrain."""

from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.errors import ServiceError
from pipelines.settings import get_settings


@app.command()
def ingest() -> None:
    """Turn new and changed photos of the source bucket into tasks."""
    from pipelines.gcs import client as gcs
    from pipelines.ingest.pipeline import ingest as run
    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params

    settings = get_settings()
    report = run(gcs.connect(settings), connect(settings), settings, load_params(settings.params_path))
    console.print(str(report), highlight=False)


@app.command()
def prelabel() -> None:
    """Add the champion's masks to unopened tasks, and empty predictions to those that are to be drawn blind."""
    from rich.progress import track

    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params
    from pipelines.prelabel.pipeline import plan_batches, prelabel_batch

    settings = get_settings()
    params, labels = load_params(settings.params_path), connect(settings)
    reports = [
        prelabel_batch(labels, settings, params, batch)
        for batch in track(plan_batches(labels, settings, params), "pre-labelling", console=console)
    ]
    console.print(
        f"{sum(r.masks for r in reports)} tasks with masks, {sum(r.blind for r in reports)} to be drawn blind, "
        f"{sum(len(r.problems) for r in reports)} problems"
    )


@app.command()
def sync() -> None:
    """Publish what people submitted as a dataset version."""
    from pipelines.dataset.pipeline import sync as run
    from pipelines.gcs import client as gcs
    from pipelines.labelstudio.client import connect
    from pipelines.models.gain import detectable_gain
    from pipelines.reports.prelabel_report import log_usage

    settings = get_settings()
    bucket = gcs.connect(settings)
    version = run(bucket, connect(settings), settings, detectable_gain(settings))
    console.print(f"{version.tag}: {version.summary}" if version else "nothing changed", highlight=False)
    if version:
        try:
            log_usage(settings, version.tag)
        except ServiceError as error:  # the version is published; the next one logs all of these metrics
            console.print(f"the usage of pre-labels is not logged in MLflow: {error}", highlight=False)


@app.command()
def retrain(
    again: Annotated[bool, typer.Option(help="Train even if a model was trained on the newest dataset")] = False,
) -> None:
    """Train both models on the newest dataset version, and promote those that are better."""
    from pipelines.training.clicks_pipeline import retrain_clicks
    from pipelines.training.pipeline import dataset_to_train, outcome, retrain

    settings = get_settings()
    dataset = dataset_to_train(settings, again=again)
    if dataset is None:
        return
    version = retrain(settings, dataset, again=again)
    console.print(outcome(settings, version), highlight=False)
    if clicks := retrain_clicks(settings, dataset, again=again):
        console.print(
            f"{clicks.served_as} {'promoted' if clicks.promoted else 'stays challenger'}: {clicks.reason}",
            highlight=False,
        )
