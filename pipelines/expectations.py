"""Great Expectations behind one function, so that ingest and dataset checks state rules and read answers.

Importing great_expectations takes seconds; it happens inside the function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Rule:
    """One expectation: its Great Expectations name, its arguments, and what to tell a person when it fails.

    A rule that is not `critical` is reported and stops nothing.
    """

    expectation: str
    arguments: Mapping[str, Any]
    message: str
    critical: bool = True


@dataclass(frozen=True)
class Finding:
    """A rule that did not hold, with up to five of the offending values."""

    rule: Rule
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Give the message with its examples."""
        shown = f" (for example {', '.join(self.examples)})" if self.examples else ""
        return f"{self.rule.message}{shown}"


def find_violations(table: pd.DataFrame, rules: Sequence[Rule]) -> list[Finding]:
    """Validate a table with Great Expectations and give the rules that do not hold, in the order of `rules`."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    batch = (
        context.data_sources.add_pandas("maskloop")
        .add_dataframe_asset("table")
        .add_batch_definition_whole_dataframe("all")
        .get_batch(batch_parameters={"dataframe": table})
    )
    suite = gx.ExpectationSuite(name="rules")
    for number, rule in enumerate(rules):
        suite.add_expectation(getattr(gxe, rule.expectation)(**rule.arguments, meta={"rule": number}))
    findings = []
    for result in batch.validate(suite).results:
        if not result.success:
            assert result.expectation_config is not None
            number = result.expectation_config.meta["rule"]
            examples = (result.result or {}).get("partial_unexpected_list") or []
            findings.append((number, Finding(rules[number], _shown(examples))))
    return [finding for _, finding in sorted(findings, key=lambda pair: pair[0])]


def _shown(examples: Sequence[Any]) -> tuple[str, ...]:
    """Write up to five values as text: empty ones say nothing, and pairs are set against each other."""
    pairs = (example if isinstance(example, tuple) else (example,) for example in examples)
    return tuple(" ≠ ".join(map(str, pair)) for pair in pairs if not any(pd.isna(value) for value in pair))[:5]
