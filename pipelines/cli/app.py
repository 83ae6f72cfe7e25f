"""The root of the command line, to which the modules beside it add their commands."""

import sys

import typer
from rich.console import Console

app = typer.Typer(
    help="Maskloop: from photos in a bucket to a model that pre-labels the next ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 120)  # a log is not limited to 80 columns
