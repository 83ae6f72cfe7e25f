"""Check what readers of results rely on: the JSON shape, the registry, and that a page keeps its own text."""

import json
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main, registry
from benchmarks.harness import Row, compare, compare_memory, format_value, peak_memory_mb, write_rows
from benchmarks.results import BEGIN, END, update_page

ROW = Row("decode 2x3", ours=0.5, peer=20.0, ratio=40.0, unit="ms", rounds=3)


@pytest.fixture
def folder_with_one_result(tmp_path: Path) -> Path:
    write_rows("codec", [ROW], tmp_path / "bench")
    return tmp_path / "bench"


def test_json_holds_name_date_machine_and_rows(folder_with_one_result: Path) -> None:
    result = json.loads((folder_with_one_result / "codec.json").read_text())
    assert set(result) == {"name", "measured_at", "machine", "rows"}
    assert result["name"] == "codec"
    assert datetime.fromisoformat(result["measured_at"]).tzinfo is not None
    assert set(result["machine"]) == {"cpu_count", "platform", "python"}
    assert result["rows"] == [
        {"metric": "decode 2x3", "ours": 0.5, "peer": 20.0, "ratio": 40.0, "unit": "ms", "rounds": 3}
    ]


def test_ways_take_turns_and_the_first_turn_changes() -> None:
    calls: list[str] = []
    row = compare("turns", lambda: calls.append("o"), lambda: calls.append("p"), rounds=4)
    assert "".join(calls) == "op" + "oppo" * 2
    assert (row.metric, row.unit, row.rounds) == ("turns", "ms", 4)


def test_ratio_says_how_many_times_faster_ours_is() -> None:
    row = compare("sleep", lambda: time.sleep(0.002), lambda: time.sleep(0.02), rounds=3, unit="s")
    assert row.ratio == pytest.approx(row.peer / row.ours)
    assert row.ratio > 2
    assert 0.02 <= row.peer < 1


def test_memory_is_the_peak_in_megabytes() -> None:
    assert peak_memory_mb(lambda: np.zeros(5_000_000, np.uint8)) == pytest.approx(5, rel=0.05)
    row = compare_memory("load", lambda: bytes(1_000_000), lambda: bytes(4_000_000))
    assert (row.metric, row.unit) == ("load memory", "MB")
    assert row.ratio == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (0.04567, "0.0457"), (3, "3")])
def test_values_are_short(value: float, text: str) -> None:
    assert format_value(value) == text


def test_registry_holds_the_modules_that_run() -> None:
    assert "codec" in registry()
    assert not {"harness", "results", "__main__"} & set(registry())


def test_unknown_benchmark_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "codec" in capsys.readouterr().err


def test_absent_page_is_created(folder_with_one_result: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    update_page(page, folder_with_one_result)
    text = page.read_text()
    assert text.startswith("# Results\n")
    assert "`python -m benchmarks codec`" in text
    assert "| decode 2x3 | 0.5 | 20 | ms | 40 | 3 |" in text


def test_only_the_text_between_the_markers_is_rewritten(folder_with_one_result: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    elsewhere = "## another\n\nmeasured on another day"
    page.write_text(f"# Mine\n\nabove\n\n{BEGIN}\n\n## codec\n\nold\n\n{elsewhere}\n\n{END}\n\nbelow\n")
    update_page(page, folder_with_one_result)
    first = page.read_text()
    assert f"\n\n{elsewhere}\n\n## codec\n" in first, "what was not measured anew stays"
    assert first.startswith(f"# Mine\n\nabove\n\n{BEGIN}\n")
    assert first.endswith(f"{END}\n\nbelow\n")
    assert "old" not in first
    update_page(page, folder_with_one_result)
    assert page.read_text() == first


@pytest.mark.parametrize("text", ["no markers", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_page_with_damaged_markers_is_left_alone(text: str, folder_with_one_result: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        update_page(page, folder_with_one_result)
    assert page.read_text() == text
