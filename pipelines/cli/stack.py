"""Commands for the local stack and what it needs."""

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
    if not settings.composed:  # what a container prints stays in a log, and this holds passwords
        console.print(addresses(settings))


@app.command()
def down() -> None:
    """End what `up` started; everything is kept in the state folder."""
    from pipelines.local_stack.lifecycle import down as stop

    stop(console)


@app.command("exec", hidden=True)
def become(process: Annotated[str, typer.Argument(help="Name of a process in the Procfile")]) -> None:
    """Become one process of Procfile or deploy/Procfile, with the environment it needs; containers start this way."""
    import os
    import platform

    from pipelines.errors import ConfigurationError
    from pipelines.local_stack.services import environment, read_procfile
    from pipelines.settings import PROJECT_ROOT

    of_servers = PROJECT_ROOT / "deploy" / "Procfile"
    commands = read_procfile() | (read_procfile(of_servers) if of_servers.exists() else {})
    if process not in commands:
        raise ConfigurationError(f"no Procfile has a process {process!r}; they have {', '.join(commands)}")
    os.chdir(PROJECT_ROOT)
    who = {"OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={process}@{platform.node()}"}  # whose metrics are whose
    variables = {**os.environ, **environment(get_settings()), **who}
    os.execve("/bin/sh", ["sh", "-c", commands[process]], variables)  # noqa: S606  a Procfile's lines name variables


@app.command()
def status() -> None:
    """Show services, memory, models, and where the loop stands."""
    from pipelines.local_stack.status import show_status

    show_status(get_settings(), console)


@app.command()
def doctor() -> None:
    """Check every connection and every known trap, and say how to mend what is wrong."""
    from pipelines.local_stack.doctor import examine

    if not examine(get_settings(), console):
        raise typer.Exit(1)


@app.command()
def setup() -> None:
    """Create or mend buckets, Label Studio project and Airflow pool; changes only what differs."""
    from pipelines.local_stack.lifecycle import set_up

    for line in set_up(get_settings()) or ["nothing to change"]:
        console.print(line)


buckets = typer.Typer(help="The buckets' settings as code.", no_args_is_help=True)
app.add_typer(buckets, name="buckets")


@buckets.command("setup")
def buckets_setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing")] = False,
) -> None:
    """Create or mend source, target and dataset bucket; shows what differs first."""
    from pipelines.gcs import client as gcs
    from pipelines.gcs.buckets import as_table, differences, reconcile, require_applied

    settings = get_settings()
    client = gcs.connect(settings)
    found = differences(client, settings)
    console.print(as_table(found) if found else "all buckets are as they must be")
    if dry_run or not found:
        return
    left = reconcile(client, settings, found)
    require_applied(left, settings)
    console.print(f"{len(found) - len(left)} settings brought in line")
    if left:
        console.print(f"the local bucket server does not know: {', '.join(sorted({one.setting for one in left}))}")
