"""DVC stage `check`: Great Expectations on the manifest; a critical finding stops the version."""

import json
import logging
from pathlib import Path

import pandas as pd

from pipelines.dataset.files import CHECKS, MANIFEST
from pipelines.errors import DatasetError
from pipelines.expectations import Rule, find_violations
from pipelines.log import run_stage
from pipelines.params import Params, load_params

logger = logging.getLogger(__name__)
_REQUIRED = ("uri", "generation", "sha256", "mask_sha256", "annotation", "annotator", "updated_at")


def check_dataset(table: pd.DataFrame, params: Params) -> dict[str, object]:
    """Check a manifest and give a summary for data/checks.json.

    Raises DatasetError listing every critical finding with examples.
    """
    findings = find_violations(_measured(table, params), dataset_rules(params))
    critical = [str(finding) for finding in findings if finding.rule.critical]
    for finding in findings:
        logger.warning("%s: %s", "critical" if finding.rule.critical else "note", finding)
    if critical:
        raise DatasetError(f"the dataset is not published: {'; '.join(critical)}. The last good version stays in use")
    return {"photos": len(table), "rules": len(dataset_rules(params)), "notes": [str(finding) for finding in findings]}


def dataset_rules(params: Params) -> list[Rule]:
    """Give the rules for every dataset version."""
    known = sorted(params.label_names)
    return [
        *(Rule("ExpectColumnValuesToNotBeNull", {"column": name}, f"{name} is empty") for name in _REQUIRED),
        Rule("ExpectColumnValuesToBeUnique", {"column": "sha256"}, "a photo stands in the manifest twice"),
        Rule("ExpectColumnValuesToBeUnique", {"column": "annotation"}, "an annotation is used twice"),
        _equal("mask_height", "height"),
        _equal("mask_width", "width"),
        Rule(
            "ExpectColumnValuesToBeInSet", {"column": "unknown_ids", "value_set": [""]},
            f"masks hold class ids other than {known[0]}…{known[-1]} of params.yaml",
        ),
        Rule(
            "ExpectColumnMeanToBeBetween", {"column": "is_empty", "max_value": params.check.max_empty_share},
            f"more than {params.check.max_empty_share:.0%} of the photos have no garment",
        ),
        Rule(
            "ExpectColumnMinToBeBetween", {"column": "smallest_share", "min_value": params.check.min_region_share},
            "some labels cover hardly a pixel; look for stray strokes", critical=False,
        ),
    ]  # fmt: skip


def _equal(one: str, other: str) -> Rule:
    arguments = {"column_A": one, "column_B": other}
    return Rule("ExpectColumnPairValuesToBeEqual", arguments, f"{one} is not the photo's {other}")


def _measured(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    pixels = [json.loads(text) for text in table["label_pixels"]]
    sizes = table["height"] * table["width"]
    known = set(params.label_names)
    return table.drop(columns=["class_ids"]).assign(
        unknown_ids=[",".join(str(i) for i in sorted(set(ids) - known)) for ids in table["class_ids"]],
        is_empty=[float(not areas) for areas in pixels],
        smallest_share=[min(areas.values(), default=size) / size for areas, size in zip(pixels, sizes, strict=True)],
    )


def main() -> None:
    """Run the stage in the current folder."""
    summary = check_dataset(pd.read_parquet(MANIFEST), load_params(Path("params.yaml")))
    CHECKS.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("check", main)
