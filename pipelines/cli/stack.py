"""Commands for the local stack and its buckets."""

from typing import Annotated

import typer

from pipelines.cli.app import app, console
from pipelines.settings import get_settings


@app.command()
def up() -> None:
    """Start the local stack and wait until every service is healthy."""
    from pipelines.local_stack.lifecycle import addresses
    from pipelines.local_stack.lifecycle import up as start

    settings = start(console)
    if not settings.composed:  # the output of a container stays in a log, and the table has passwords
        console.print(addresses(settings))


@app.command()
def down() -> None:
    """Stop what `up` started; all data stays in the state folder."""
    from pipelines.local_stack.lifecycle import down as stop

    stop(console)


@app.command("exec", hidden=True)
def exec_process(process: Annotated[str, typer.Argument(help="Name of a process in the Procfile")]) -> None:
    """Replace this process by one of Procfile or deploy/Procfile, with its environment; containers start this way."""
    import os
    import platform

    from pipelines.errors import ConfigurationError
    from pipelines.local_stack.services import environment, read_procfile
    from pipelines.settings import PROJECT_ROOT

    server_procfile = PROJECT_ROOT / "deploy" / "Procfile"
    commands = read_procfile() | (read_procfile(server_procfile) if server_procfile.exists() else {})
    if process not in commands:
        raise ConfigurationError(f"no Procfile has a process {process!r}; they have {', '.join(commands)}")
    os.chdir(PROJECT_ROOT)
    identity = {"OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={process}@{platform.node()}"}  # of its metrics
    variables = {**os.environ, **environment(get_settings()), **identity}
    os.execve("/bin/sh", ["sh", "-c", commands[process]], variables)  # noqa: S606  a Procfile's lines name variables


@app.command()
def status() -> None:
    """Show services, memory, models, and the state of the loop."""
    from pipelines.local_stack.status import show_status

    show_status(get_settings(), console)


@app.command()
def doctor() -> None:
    """Check every connection and every known trap, and say how to fix what is wrong."""
    from pipelines.local_stack.doctor import examine

    if not examine(get_settings(), console):
        raise typer.Exit(1)


@app.command()
def setup() -> None:
    """Create or correct buckets, Label Studio project and Airflow pools; changes only what differs."""
    from pipelines.local_stack.lifecycle import set_up

    for line in set_up(get_settings()) or ["nothing to change"]:
        console.print(line)


buckets = typer.Typer(help="The buckets' settings as code.", no_args_is_help=True)
app.add_typer(buckets, name="buckets")


@buckets.command("setup")
def buckets_setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing")] = False,
    harden: Annotated[
        bool, typer.Option("--harden", help="Change a source bucket that exists as well, whoever else reads it")
    ] = False,
) -> None:
    """Create or correct source, target and dataset bucket; shows what differs first."""
    from pipelines.gcs import client as gcs
    from pipelines.gcs.buckets import as_table, differences, left_alone, reconcile, require_applied

    settings = get_settings()
    client = gcs.connect(settings)
    different = differences(client, settings)
    console.print(as_table(different) if different else "all buckets are as they must be")
    if not harden and (others := left_alone(different, settings)):
        console.print(
            f"gs://{settings.source_bucket} exists and may serve others, so it stays as it is; --harden changes it"
        )
        different = [difference for difference in different if difference not in others]
    if dry_run or not different:
        return
    left = reconcile(client, settings, different)
    require_applied(left, settings)
    console.print(f"{len(different) - len(left)} settings changed")
    if left:
        console.print(
            f"the local bucket server does not know: {', '.join(sorted({difference.setting for difference in left}))}"
        )
