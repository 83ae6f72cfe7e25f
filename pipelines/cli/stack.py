"""Commands for the local stack and its buckets."""

import sys
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


backups = typer.Typer(help="A server's backups in a bucket.", no_args_is_help=True)
app.add_typer(backups, name="backups")


@backups.command("list")
def backups_list(
    place: Annotated[str, typer.Argument(help="gs://bucket/prefix; MASKLOOP_BACKUP if none is given")] = "",
) -> None:
    """Show the backups in a bucket, with their sizes, and which can be restored."""
    from rich.filesize import decimal
    from rich.table import Table

    from pipelines.gcs.backups import list_backups
    from pipelines.gcs.client import connect

    settings = get_settings()
    table = Table("backup", "begun at", "size", "")
    for backup in list_backups(connect(settings), place or settings.backup):
        note = "" if backup.is_complete else "interrupted, cannot be restored"
        table.add_row(backup.folder, f"{backup.begun_at:%Y-%m-%d %H:%M} UTC", decimal(backup.size), note)
    console.print(table)


@backups.command("store")
def backups_store(
    folder: Annotated[str, typer.Argument(help="The backup's folder, gs://bucket/prefix/20261130T020000Z")],
    name: Annotated[str, typer.Argument(help="Name of the part")],
) -> None:
    """Stream a part of a backup from standard input to its folder; `deploy/maskloop backup` does it."""
    from pipelines.gcs.backups import store_part
    from pipelines.gcs.client import connect

    store_part(connect(get_settings()), folder, name, sys.stdin.buffer)


@backups.command("complete")
def backups_complete(
    folder: Annotated[str, typer.Argument(help="The backup's folder")],
    names: Annotated[list[str], typer.Argument(help="Its parts")],
    keep: Annotated[int, typer.Option("--keep", min=1, help="Complete backups that stay; older ones go")] = 14,
) -> None:
    """List the parts of a backup, which makes it one that can be restored, and delete old ones."""
    from rich.filesize import decimal

    from pipelines.gcs.backups import complete, drop_old
    from pipelines.gcs.client import connect

    client = connect(get_settings())
    size = decimal(sum(part.size for part in complete(client, folder, names)))
    old = drop_old(client, folder.rstrip("/").rpartition("/")[0], keep)
    gone = f"; {len(old)} older ones are deleted" if old else ""
    console.print(f"{folder}: {size}. It holds every password: few may read that bucket{gone}", highlight=False)


@backups.command("fetch")
def backups_fetch(
    place: Annotated[str, typer.Argument(help="A backup's folder, or where the newest is to be taken from")],
) -> None:
    """Write a backup to standard output, as a tar archive; `deploy/maskloop restore` reads it."""
    from pipelines.gcs.backups import find_backup, write_tar
    from pipelines.gcs.client import connect

    client = connect(get_settings())
    write_tar(client, find_backup(client, place), sys.stdout.buffer)


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
