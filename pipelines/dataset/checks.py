"""DVC stage `check`: Great Expectations on the table of photos; a critical finding stops the version.

The Data Docs page of the last run is written to `PAGE`, whether it passed or not; sync publishes it.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.expectations import Rule, by_severity, find_violations
from pipelines.dataset.files import CHECKS, PHOTOS
from pipelines.errors import ChecksError, DatasetError
from pipelines.log import run_stage
from pipelines.params import IGNORE, CheckParams, Params, load_params

logger = logging.getLogger(__name__)
PAGE = Path(".dvc/tmp/checks.html")  # a folder that git and DVC ignore
_COLUMNS = (
    "uri", "generation", "sha256", "phash", "height", "width", "mask_sha256", "mask_height", "mask_width", "class_ids",
    "label_pixels", "ignored_pixels", "annotations", "annotators", "disagreement", "updated_at", "lead_time_s",
    "prediction_version",
)  # fmt: skip
_REQUIRED = ("uri", "generation", "sha256", "mask_sha256", "updated_at")
_DELETED_USER = re.compile(r"user \d+")  # how an annotator is named whom Label Studio does not know any more
_MIN_PHOTOS = 20  # with fewer, neither outliers nor shares mean anything
_FENCE = 3.0  # quartile distances; beyond is "far out" in Tukey, "Exploratory Data Analysis" (1977)


def check_dataset(dataset: Dataset, params: Params) -> dict[str, object]:
    """Check a dataset's table of photos, write the page of the checks, and return a summary for data/checks.json.

    Raise ChecksError listing every critical finding with examples.
    """
    table, before = dataset.photos(), dataset.before()
    if lacking := [name for name in _COLUMNS if name not in table.columns]:
        raise DatasetError(f"{PHOTOS} lacks the columns {', '.join(lacking)}; run `dvc repro compile`")
    rules = dataset_rules(table, before, params)
    findings = find_violations(_measured(table, before, params), rules, dataset.path(PAGE))
    critical = [str(finding) for finding in findings if finding.rule.critical]
    for finding in findings:
        logger.warning("%s: %s", "critical" if finding.rule.critical else "note", finding)
    if critical:
        raise ChecksError(f"the dataset is not published: {'; '.join(critical)}. The last good version stays in use")
    return {"photos": len(table), "rules": len(rules), "notes": [str(finding) for finding in findings]}


def dataset_rules(table: pd.DataFrame, before: pd.DataFrame | None, params: Params) -> list[Rule]:
    """Return the rules for a dataset version, with the severity of params.yaml."""
    return by_severity(_named_rules(table, before, params), params.check.severity)


def _named_rules(table: pd.DataFrame, before: pd.DataFrame | None, params: Params) -> Iterator[tuple[str, Rule]]:
    known, check = sorted(params.label_names), params.check
    for name in _REQUIRED:
        yield "complete", Rule("ExpectColumnValuesToNotBeNull", {"column": name}, f"{name} is empty")
    yield "complete", _none("unnamed", "a mask has no annotation or no annotator")
    yield "unique", Rule("ExpectColumnValuesToBeUnique", {"column": "sha256"}, "a photo stands in the table twice")
    yield "unique", _none("used_twice", "an annotation is used twice")
    yield "mask_size", _equal("mask_height", "height")
    yield "mask_size", _equal("mask_width", "width")
    ids = f"{known[0]}…{known[-1]}" if len(known) > 1 else str(known[0])
    yield "known_labels", _none("unknown_ids", f"masks hold class ids other than {ids} of params.yaml")
    yield (
        "empty_masks",
        Rule(
            "ExpectColumnMeanToBeBetween", {"column": "is_empty", "max_value": check.max_empty_share},
            f"more than {check.max_empty_share:.0%} of the photos have no garment",
        ),
    )  # fmt: skip
    yield (
        "stray_strokes",
        Rule(
            "ExpectColumnMinToBeBetween", {"column": "smallest_share", "min_value": check.min_region_share},
            "some labels cover hardly a pixel; look for stray strokes",
        ),
    )  # fmt: skip
    yield "area_outliers", _none("outliers", "labels much larger or smaller than on other photos")
    yield "known_annotators", _none("unknown_annotators", "drawn by people who are not known (check.annotators)")
    yield (
        "disagreement",
        Rule(
            "ExpectColumnValuesToBeBetween", {"column": "disagreement", "max_value": check.max_disagreement},
            f"annotators disagree on more than {check.max_disagreement:.0%} of what they labelled",
        ),
    )  # fmt: skip
    drift, words = _drift(table, before, params)
    message = (
        f"the photos that show {words}"
        if drift > check.max_class_drift
        else "labels' shares of the photos changed much"
    )
    yield (
        "class_drift",
        Rule(
            "ExpectColumnMaxToBeBetween", {"column": "drift", "max_value": check.max_class_drift},
            message,
        ),
    )  # fmt: skip


def _none(column: str, message: str) -> Rule:
    """Return the rule that a column of texts is empty; each text names what is wrong with its photo."""
    return Rule("ExpectColumnValuesToBeInSet", {"column": column, "value_set": [""]}, message)


def _equal(column: str, other: str) -> Rule:
    arguments = {"column_A": column, "column_B": other}
    return Rule("ExpectColumnPairValuesToBeEqual", arguments, f"{column} is not the photo's {other}")


def _measured(table: pd.DataFrame, before: pd.DataFrame | None, params: Params) -> pd.DataFrame:
    """Return the table with the columns that rules check: numbers, and texts that name what is wrong with a photo."""
    pixels = [json.loads(text) for text in table["label_pixels"]]
    sizes = table["height"] * table["width"]
    known = {*params.label_names, IGNORE}
    used = Counter(uuid for uuids in table["annotations"] for uuid in uuids)
    return table.drop(columns=["class_ids", "annotations", "annotators"]).assign(
        unnamed=[
            "" if len(uuids) and len(people) and all(uuids) and all(people) else str(uri)
            for uri, uuids, people in zip(table["uri"], table["annotations"], table["annotators"], strict=True)
        ],
        used_twice=[" ".join(sorted(uuid for uuid in set(uuids) if used[uuid] > 1)) for uuids in table["annotations"]],
        unknown_ids=[",".join(str(i) for i in sorted(set(ids) - known)) for ids in table["class_ids"]],
        # Whoever marked something as unclear did not submit the photo unseen.
        is_empty=[
            float(not areas and not ignored) for areas, ignored in zip(pixels, table["ignored_pixels"], strict=True)
        ],
        smallest_share=[min(areas.values(), default=size) / size for areas, size in zip(pixels, sizes, strict=True)],
        outliers=_outliers(table),
        unknown_annotators=[_unknown_annotators(people, params.check) for people in table["annotators"]],
        disagreement=table["disagreement"].astype(float),
        drift=_drift(table, before, params)[0],
    )


def _outliers(table: pd.DataFrame) -> list[str]:
    """Return, per photo, the labels whose share of it is far from what is usual for the label, as a text."""
    areas = [
        (photo, label, area)
        for photo, text in enumerate(table["label_pixels"])
        for label, area in json.loads(text).items()
    ]
    measured = pd.DataFrame(areas, columns=["photo", "label", "area"])
    sizes = (table["height"] * table["width"]).to_numpy()
    measured["log"] = np.log(np.maximum(measured["area"], 1) / sizes[measured["photo"].astype(int)])
    outliers: dict[int, list[str]] = {}
    for label, of_label in measured.groupby("label"):
        low, high = of_label["log"].quantile([0.25, 0.75])
        reach = _FENCE * max(high - low, 0.1)
        if len(of_label) >= _MIN_PHOTOS:
            for photo in of_label["photo"][(of_label["log"] < low - reach) | (of_label["log"] > high + reach)]:
                outliers.setdefault(photo, []).append(str(label))
    return [
        f"{' and '.join(outliers[photo])} on {uri}" if photo in outliers else ""
        for photo, uri in enumerate(table["uri"])
    ]


def _unknown_annotators(people: Sequence[str], check: CheckParams) -> str:
    known = set(check.annotators)
    return " ".join(name for name in people if (known and name not in known) or _DELETED_USER.fullmatch(str(name)))


def _drift(table: pd.DataFrame, before: pd.DataFrame | None, params: Params) -> tuple[float, str]:
    """Return the largest change of the share of photos that show a label (0..1), and its description."""
    if before is None or min(len(table), len(before)) < _MIN_PHOTOS:
        return 0.0, ""
    shares = []
    for rows in (before, table):
        shown = Counter(label for text in rows["label_pixels"] for label in json.loads(text))
        shares.append({label: shown[label] / len(rows) for label in params.label_ids})
    old, new = shares
    label = max(old, key=lambda name: abs(new[name] - old[name]))
    return abs(new[label] - old[label]), f'"{label}" went from {old[label]:.0%} to {new[label]:.0%}'


def main() -> None:
    """Run the stage in the current folder."""
    dataset = Dataset(Path.cwd())
    summary = check_dataset(dataset, load_params(Path("params.yaml")))
    dataset.path(CHECKS).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("check", main)
