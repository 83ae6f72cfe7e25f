"""Great Expectations behind one function: rules in, findings out."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from pipelines.dataset.expectations import Rule, find_violations

FILLED = Rule("ExpectColumnValuesToNotBeNull", {"column": "name"}, "name is empty")
UNIQUE = Rule("ExpectColumnValuesToBeUnique", {"column": "name"}, "a name stands twice")
SMALL = Rule("ExpectColumnMeanToBeBetween", {"column": "size", "max_value": 5}, "too large", critical=False)


@pytest.fixture
def table_with_faults() -> pd.DataFrame:
    return pd.DataFrame({"name": ["a", "a", None], "size": [10, 20, 30]})


def test_without_rules_nothing_is_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "great_expectations", None)  # importing it would fail

    assert find_violations(pd.DataFrame(), [], tmp_path / "page.html") == []
    assert not (tmp_path / "page.html").exists()


def test_rules_that_hold_give_nothing() -> None:
    assert find_violations(pd.DataFrame({"name": ["a", "b"], "size": [1, 2]}), [FILLED, UNIQUE, SMALL]) == []


def test_findings_come_in_the_order_of_the_rules(table_with_faults: pd.DataFrame) -> None:
    for rules in ([FILLED, UNIQUE, SMALL], [SMALL, UNIQUE, FILLED]):
        assert [finding.rule for finding in find_violations(table_with_faults, rules)] == rules


def test_a_finding_names_offending_values(table_with_faults: pd.DataFrame) -> None:
    [finding] = find_violations(table_with_faults, [UNIQUE])
    assert str(finding) == "a name stands twice (for example a, a)"


def test_five_examples_are_enough() -> None:
    [finding] = find_violations(pd.DataFrame({"name": ["same"] * 50}), [UNIQUE])
    assert len(finding.examples) == 5


def test_missing_values_are_no_examples(table_with_faults: pd.DataFrame) -> None:
    [finding] = find_violations(table_with_faults, [FILLED])
    assert str(finding) == "name is empty"


def test_pairs_are_set_against_each_other() -> None:
    rule = Rule("ExpectColumnPairValuesToBeEqual", {"column_A": "a", "column_B": "b"}, "a is not b")
    [finding] = find_violations(pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 4]}), [rule])
    assert str(finding) == "a is not b (for example 3 ≠ 4)"


def test_a_finding_about_the_whole_column_has_no_examples(table_with_faults: pd.DataFrame) -> None:
    [finding] = find_violations(table_with_faults, [SMALL])
    assert str(finding) == "too large"
    assert not finding.rule.critical


def test_two_rules_of_one_kind_are_kept_apart(table_with_faults: pd.DataFrame) -> None:
    other = Rule(FILLED.expectation, {"column": "size"}, "size is empty")
    assert [str(finding.rule.message) for finding in find_violations(table_with_faults, [other, FILLED])] == [
        "name is empty"
    ]
