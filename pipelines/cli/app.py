"""The command line's root, which the modules beside it hang their commands on."""

import sys

import typer
from rich.console import Console

app = typer.Typer(
    help="Maskloop: from photos in a bucket to a model that pre-labels the next ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 120)  # logs are no 80-column terminal
