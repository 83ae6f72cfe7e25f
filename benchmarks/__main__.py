"""Run benchmarks: `python -m benchmarks` runs all, `python -m benchmarks codec` one; results go to var/bench/."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.harness import Row, format_value, write_rows


def registry() -> dict[str, Callable[[], list[Row]]]:
    """Return the `run` function of each benchmark by its name: the modules of this folder that have one."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in sorted(names)}
    return {name: module.run for name, module in modules.items() if hasattr(module, "run")}


def table(name: str, rows: list[Row]) -> Table:
    """Lay the rows of one benchmark out for the terminal."""
    view = Table("metric", title=name)
    for column in ("ours", "peer", "unit", "times better", "rounds"):
        view.add_column(column, justify="right")
    for row in rows:
        cells = (format_value(row.ours), format_value(row.peer), row.unit, format_value(row.ratio), str(row.rounds))
        view.add_row(row.metric, *cells)
    return view


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks, or all; print their tables and write their JSON files."""
    known = registry()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(known)}; all when left out")
    names = parser.parse_args(arguments).names or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")
    console = Console()
    for name in names:
        rows = known[name]()
        if not rows:
            console.print(f"{name} cannot be measured here; the first lines of benchmarks/{name}.py say what it needs")
            continue
        console.print(table(name, rows))
        console.print(f"written to {write_rows(name, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
