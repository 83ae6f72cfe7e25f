"""Keep the tables of docs/results.md equal to the last measurements: `python -m benchmarks.results`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS_DIR, format_value

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

_NEW_PAGE = f"""# Results

Measured by the commands named, and written here by `make results`. Where Maskloop is compared with the usual way of
doing the same work, both are measured alternately in one run, and the tables hold medians; "times better" is the peer's
value divided by ours.

In the tables of the demo, labelers are simulated: they know the true mask, keep a pre-label from an IoU of 0.85 on,
correct it from 0.4 on, and draw the rest by hand; "s per photo" adds up assumed times for each of these. "test mIoU" is
taken over the labels in truth or prediction, background included; "pre-label mIoU" compares the champion's masks with
what was submitted in that round.

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


def render_demo(result: dict[str, Any]) -> str:
    """Write a demo's summary as a Markdown section: the command and a row per round."""
    lines = [
        f"## {result['name']}",
        "",
        f"`{result['command']}`, measured {result['measured_at'][:10]} on {result['cpu_count']} CPUs: "
        f"{result['seconds'] / 60:.1f} min in all.",
        "",
        "| round | tasks | annotations | dataset | model | test mIoU | pre-label mIoU | untouched | s per photo | "
        "min saved per photo with masks (95 %) |",
        "|--:|--:|--:|---|---|--:|--:|--:|--:|--:|",
    ]
    for number, row in enumerate(result["rounds"], start=1):
        prelabel = "–" if row["prelabel_miou"] is None else f"{row['prelabel_miou']:.3f}"
        lines.append(
            f"| {number} | {row['tasks']} | {row['annotations']} | {row['dataset']} | {row['model']} | "
            f"{row['test_miou']:.3f} | {prelabel} | {row['untouched_share']:.0%} | {row['seconds_per_photo']:.0f} | "
            f"{_saved(row)} |"
        )
    return "\n".join(lines)


def _saved(row: dict[str, Any]) -> str:
    """Return what masks saved in a round; results of before that was measured have none."""
    names = ("saved_minutes", "saved_minutes_low", "saved_minutes_high")
    values = [value for name in names if (value := row.get(name)) is not None]
    return f"{values[0]:.2f}" + (f" ({values[1]:.2f} … {values[2]:.2f})" if len(values) == 3 else "") if values else "–"


def render_simulation(result: dict[str, Any]) -> str:
    """Write what a simulation gave as a Markdown section: the command and a row per order and number of photos."""
    lines = [
        f"## {result['name']}",
        "",
        f"`{result['command']}`, measured {result['measured_at'][:10]}: mean and standard deviation over "
        f"{result['seeds']} seeds.",
        "",
        "| order | photos labelled | test mIoU | labelers' time saved on the newest of these |",
        "|---|--:|--:|--:|",
    ]
    for row in result["curve"]:
        lines.append(
            f"| {row['order']} | {row['photos']} | {row['miou_mean']:.3f} ± {row['miou_std']:.3f} | "
            f"{row['saved_mean']:.0%} ± {row['saved_std']:.0%} |"
        )
    lines += _gains(result["against_chance"])
    return "\n".join(lines)


def _gains(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of what the other orders gain over chance; with a single seed there are no intervals."""
    known = [row for row in rows if row["miou_low"] is not None]
    if not known:
        return []
    lines = [
        "", "Against chance, in pairs of a seed each, with 95 % intervals:", "",
        "| order | photos labelled | mIoU | seconds per photo |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    for row in known:
        miou = f"{row['miou']:+.3f} ({row['miou_low']:+.3f} … {row['miou_high']:+.3f})"
        seconds = f"{row['seconds']:+.1f} ({row['seconds_low']:+.1f} … {row['seconds_high']:+.1f})"
        lines.append(f"| {row['order']} | {row['photos']} | {miou} | {seconds} |")
    return lines


def _render_any(result: dict[str, Any]) -> str:
    if "rounds" in result:
        return render_demo(result)
    return render_simulation(result) if "curve" in result else render(result)


def update_page(page: Path = PAGE, folder: Path = RESULTS_DIR) -> None:
    """Rewrite the sections between the markers of `page` that `folder` has a JSON file of, and nothing else.

    Create the page if it is absent. Raise ValueError if it does not hold the two markers once each, in order.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else _NEW_PAGE
    before, begin, rest = text.partition(BEGIN)
    kept, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"{page} must hold the lines {BEGIN} and {END} once each, in this order; restore them")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    by_name = {section.partition("\n")[0]: f"## {section.strip()}" for section in f"\n{kept}".split("\n## ")[1:]}
    by_name |= {result["name"]: _render_any(result) for result in results}
    sections = "".join(f"\n{by_name[name]}\n" for name in sorted(by_name))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{BEGIN}\n{sections}\n{END}{after}" if results else text, encoding="utf-8")


if __name__ == "__main__":
    update_page()
    sys.stdout.write(f"{PAGE} updated\n")
