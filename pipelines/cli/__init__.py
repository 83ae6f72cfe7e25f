"""The command line `maskloop`: the local stack, each pipeline by hand, models, data, and trials of the loop.

A command imports what it runs inside its function, so that `maskloop --help` starts quickly.
"""

import sys

from rich.logging import RichHandler

from pipelines.cli import stack, models, remarks, data, forget, trials  # isort: skip  # in the order that --help shows
from pipelines.cli import pipelines
from pipelines.cli.app import app, console
from pipelines.errors import MaskloopError
from pipelines.log import configure_logging

__all__ = ["app", "data", "forget", "main", "models", "pipelines", "remarks", "stack", "trials"]


def main() -> None:
    """Run the command line; a MaskloopError is shown without a traceback."""
    configure_logging(RichHandler(console=console, show_path=False))
    try:
        app()
    except MaskloopError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
