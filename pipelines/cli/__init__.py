"""The command line: each station by hand, the local stack, models and data."""

import sys

from rich.logging import RichHandler

from pipelines.cli import stack, models, data, trials  # isort: skip  # in the order that --help shows
from pipelines.cli import pipelines as stations
from pipelines.cli.app import app, console
from pipelines.errors import MaskloopError
from pipelines.log import configure_logging

__all__ = ["app", "data", "main", "models", "stack", "stations", "trials"]


def main() -> None:
    """Run the command line; errors that Maskloop knows are shown without a traceback."""
    configure_logging(RichHandler(console=console, show_path=False))
    try:
        app()
    except MaskloopError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
