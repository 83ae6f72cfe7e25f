"""Run rules on a table with Great Expectations, behind one function.

Importing great_expectations takes seconds, so it happens inside the function.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.params import Severity


@dataclass(frozen=True)
class Rule:
    """One expectation: its name in Great Expectations, its arguments, and the message when it fails.

    A rule that is not `critical` is reported but stops nothing.
    """

    expectation: str
    arguments: Mapping[str, Any]
    message: str
    critical: bool = True


def by_severity(rules: Iterable[tuple[str, Rule]], severity: Mapping[str, Severity]) -> list[Rule]:
    """Return named rules with the severity of their name, without those that are off."""
    return [replace(rule, critical=severity[name] == "critical") for name, rule in rules if severity[name] != "off"]


@dataclass(frozen=True)
class Finding:
    """A rule that did not hold, with up to five of the offending values."""

    rule: Rule
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Return the message with its examples."""
        shown = f" (for example {', '.join(self.examples)})" if self.examples else ""
        return f"{self.rule.message}{shown}"


def find_violations(table: pd.DataFrame, rules: Sequence[Rule], page: Path | None = None) -> list[Finding]:
    """Return the rules that a table violates, validated with Great Expectations, in the order of `rules`.

    The Data Docs page of the validation is written to `page`, as one HTML file. Without rules nothing is validated, and
    there is no page.
    """
    if not rules:
        return []
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
        suite.add_expectation(
            getattr(gxe, rule.expectation)(
                **rule.arguments, meta={"rule": number}, notes=rule.message,
                severity="critical" if rule.critical else "warning",
            )
        )  # fmt: skip
    validation = batch.validate(suite)
    numbered = []
    for result in validation.results:
        if not result.success:
            assert result.expectation_config is not None
            number = result.expectation_config.meta["rule"]
            examples = (result.result or {}).get("partial_unexpected_list") or []
            numbered.append((number, Finding(rules[number], _shown(examples))))
    findings = [finding for _, finding in sorted(numbered, key=lambda pair: pair[0])]
    if page:
        _write_page(validation, rules, findings, page)
    return findings


def _write_page(validation: Any, rules: Sequence[Rule], findings: Sequence[Finding], page: Path) -> None:
    """Write the Data Docs page, preceded by a table of the rules' messages."""
    from great_expectations.core import expectationSuiteValidationResultSchema as schema
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    plain = schema.load(json.loads(json.dumps(validation.to_json_dict())))  # the renderer fails on NumPy numbers
    html = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=False).render(plain))
    page.parent.mkdir(parents=True, exist_ok=True)
    finding_of = {id(finding.rule): finding for finding in findings}
    rows = "".join(
        f"<tr><td>{'passed' if id(rule) not in finding_of else 'CRITICAL' if rule.critical else 'note'}</td>"
        f"<td>{escape(str(finding_of.get(id(rule), 'not found: ' + rule.message)))}</td></tr>"
        for rule in sorted(rules, key=lambda rule: (id(rule) not in finding_of, not rule.critical))
    )
    # The page's style sheets come from the internet; without them its tables stay readable.
    style = (
        "<style>table {border-collapse: collapse; margin: 1em} td, th {border: 1px solid #ccc; padding: .3em}</style>"
    )
    html = html.replace("</head>", f"{style}</head>", 1).replace("<body>", f"<body><table>{rows}</table>", 1)
    page.write_text(html, encoding="utf-8")


def _shown(examples: Sequence[Any]) -> tuple[str, ...]:
    """Return up to five values as text, without empty ones; the values of a pair stand around a ≠."""
    pairs = (example if isinstance(example, tuple) else (example,) for example in examples)
    return tuple(" ≠ ".join(map(str, pair)) for pair in pairs if not any(pd.isna(value) for value in pair))[:5]
