"""Great Expectations behind one function, so that the checks state rules and read answers.

Importing great_expectations takes seconds; it happens inside the function.
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
    """One expectation: its Great Expectations name, its arguments, and what to tell a person when it fails.

    A rule that is not `critical` is reported and stops nothing.
    """

    expectation: str
    arguments: Mapping[str, Any]
    message: str
    critical: bool = True


def by_severity(rules: Iterable[tuple[str, Rule]], severity: Mapping[str, Severity]) -> list[Rule]:
    """Give named rules with the severity of their name, without those that are off."""
    return [replace(rule, critical=severity[name] == "critical") for name, rule in rules if severity[name] != "off"]


@dataclass(frozen=True)
class Finding:
    """A rule that did not hold, with up to five of the offending values."""

    rule: Rule
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Give the message with its examples."""
        shown = f" (for example {', '.join(self.examples)})" if self.examples else ""
        return f"{self.rule.message}{shown}"


def find_violations(table: pd.DataFrame, rules: Sequence[Rule], page: Path | None = None) -> list[Finding]:
    """Validate a table with Great Expectations and give the rules that do not hold, in the order of `rules`.

    `page` is where its Data Docs page of the validation is written to, as one HTML file.
    """
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
    findings = []
    for result in validation.results:
        if not result.success:
            assert result.expectation_config is not None
            number = result.expectation_config.meta["rule"]
            examples = (result.result or {}).get("partial_unexpected_list") or []
            findings.append((number, Finding(rules[number], _shown(examples))))
    found = [finding for _, finding in sorted(findings, key=lambda pair: pair[0])]
    if page:
        _write_page(validation, rules, found, page)
    return found


def _write_page(validation: Any, rules: Sequence[Rule], found: Sequence[Finding], page: Path) -> None:
    """Write the Data Docs page, with a table of the rules in words before it."""
    from great_expectations.core import expectationSuiteValidationResultSchema as schema
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    plain = schema.load(json.loads(json.dumps(validation.to_json_dict())))  # the renderer trips over NumPy numbers
    html = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=False).render(plain))
    page.parent.mkdir(parents=True, exist_ok=True)
    finding_of = {id(finding.rule): finding for finding in found}
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
    """Write up to five values as text: empty ones say nothing, and pairs are set against each other."""
    pairs = (example if isinstance(example, tuple) else (example,) for example in examples)
    return tuple(" ≠ ".join(map(str, pair)) for pair in pairs if not any(pd.isna(value) for value in pair))[:5]
