"""The command that removes photos and people for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings

if TYPE_CHECKING:
    from pipelines.models.registry import Registry


@app.command()
def forget(
    photos: Annotated[
        list[str] | None, typer.Argument(help="gs:// address, object name below the prefix, SHA-256, or task:12")
    ] = None,
    person: Annotated[list[str] | None, typer.Option(help="Address of a person; may be repeated")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Rewrite published versions and files of MLflow's runs as well")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing")] = False,
    undo: Annotated[str, typer.Option(help="Let a photo, by SHA-256 or gs:// address, become a task again")] = "",
) -> None:
    """Remove photos or people from every store for good; without arguments, continue what was interrupted."""
    from pipelines.errors import ConfigurationError
    from pipelines.forget.find import find_people, find_photos, hash_of
    from pipelines.forget.forget import Stores, acquainted, allow_again, search
    from pipelines.forget.forget import forget as run
    from pipelines.forget.subjects import PENDING, Subjects, joined, load_pending
    from pipelines.forget.traces import as_plan, as_proof
    from pipelines.gcs import client as gcs
    from pipelines.labelstudio.client import connect
    from pipelines.params import load_params

    settings = get_settings()
    bucket = gcs.connect(settings)
    if undo:
        was_listed = allow_again(bucket, settings, hash_of(bucket, undo))
        said = "may become a task again with the next ingest" if was_listed else "was not on the list; nothing changed"
        console.print(f"{undo} {said}", highlight=False, markup=False)
        return
    labels = connect(settings)
    pending = load_pending(settings.var / PENDING)
    wanted = Subjects(
        find_photos(bucket, labels, settings, photos or (), pending),
        find_people(labels, settings, person or (), pending), published,
    )  # fmt: skip
    subjects = joined(pending, wanted)
    if subjects.is_empty:
        raise ConfigurationError("name a photo or a person to forget; there is nothing left of an earlier run")

    def registry() -> "Registry":
        from pipelines.models.registry import Registry

        return Registry(settings)

    stores = Stores(bucket, labels, settings, load_params(settings.params_path), registry)
    subjects = acquainted(stores, subjects)
    plan = search(stores, subjects)
    console.print(as_plan(plan.traces))
    for line in (*plan.problems, *subjects.models):
        console.print(line, highlight=False, markup=False)
    if subjects.tags and not subjects.published:
        console.print(f"still held by {', '.join(subjects.tags)}; --published rewrites them", highlight=False)
    if dry_run or not (yes or typer.confirm("Remove this for good?")):
        return
    result = run(stores, subjects)
    console.print(as_proof([store.name for store in stores.of(subjects)], result.left))
    for line in (*result.remarks, *subjects.models, *result.problems):
        console.print(line, highlight=False, markup=False)
    if not result.is_done:
        console.print("not everything could be removed; run `maskloop forget` again to continue", highlight=False)
        raise typer.Exit(1)
