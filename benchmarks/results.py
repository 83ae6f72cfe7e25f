"""Keep the tables of docs/results.md equal to the last measurements: `python -m benchmarks.results`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS_DIR, format_value

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

_NEW_PAGE = f"""# Results

How Maskloop compares with the usual way of doing the same work. Both ways are measured in one run, taking turns, and
the tables hold medians; «times better» is the peer's value divided by ours. Run it again with the command above each
table, then write the tables with `python -m benchmarks.results`.

{BEGIN}
{END}
"""


def render(result: dict[str, Any]) -> str:
    """Write one benchmark's JSON object as a Markdown section: the command, the machine and a table."""
    machine = result["machine"]
    name, day = result["name"], result["measured_at"][:10]
    place = f"{machine['cpu_count']} CPUs, {machine['platform']}, Python {machine['python']}"
    lines = [
        f"## {name}",
        "",
        f"`python -m benchmarks {name}`, measured {day} on {place}.",
        "",
        "| metric | ours | peer | unit | times better | rounds |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for row in result["rows"]:
        ours, peer, ratio = (format_value(row[key]) for key in ("ours", "peer", "ratio"))
        lines.append(f"| {row['metric']} | {ours} | {peer} | {row['unit']} | {ratio} | {row['rounds']} |")
    return "\n".join(lines)


def update_page(page: Path = PAGE, folder: Path = RESULTS_DIR) -> None:
    """Rewrite what lies between the markers of `page` from the JSON files in `folder`, and nothing else.

    Create the page if it is absent. Raise ValueError if it does not hold the two markers once each, in order.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else _NEW_PAGE
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"{page} must hold the lines {BEGIN} and {END} once each, in this order; restore them")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    sections = "".join(f"\n{render(result)}\n" for result in results)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{BEGIN}\n{sections}\n{END}{after}" if results else text, encoding="utf-8")


if __name__ == "__main__":
    update_page()
    sys.stdout.write(f"{PAGE} updated\n")
