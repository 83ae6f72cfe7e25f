"""What people read on MLflow's pages: names of runs, descriptions, and the table at the top of the experiment.

MLflow's lists show the start of a text without formatting, so each text starts with a plain sentence; links and tables
follow. Links are relative, so that they work behind a proxy. `workflowType` keeps MLflow from opening its pages for
language models, which it does by default.
"""

import base64
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mlflow.entities import Run

from pipelines.models.run import DATASET, MINUTES, STEPS_DONE

# Tags of a run. People's registries hold them, so their names never change.
VERSION, DECISION = "maskloop.version", "maskloop.decision"
GATE, GAIN = "maskloop.gate", "maskloop.gain"  # the gate's verdict and reason, and the gain with its interval
VIEW = "maskloop"  # a saved view of the experiment's runs, with the columns that matter
LISTED_RUNS = 20
REPORT_PAGE = "report.html"
_TRAINING_PAGES = "workflowType=machine_learning"
_LONGEST_DESCRIPTION = 5000  # what MLflow's database holds
_LONGEST_CELL = 80  # more would narrow the other columns until their numbers wrap
_WIDTHS = {  # of the view's columns, in pixels
    "attributes.`Run Name`": 560, "runDateAndNestInfo": 150, "attributes.`Dataset`": 200, "duration": 80,
    "metrics.`test_miou`": 85, f"tags.`{DECISION}`": 600,
}  # fmt: skip


@dataclass(frozen=True)
class VersionStatus:
    """What MLflow shows of a version.

    `verdict` is the gate's ("promoted", "not promoted", "cut short", empty before it has decided) and `reason` its
    reason; `event` is what happened to the version since, such as "rolled back to clothing:v2 by hand"; `paused` says
    why a champion draws no masks.
    """

    served_as: str
    run: Run
    verdict: str
    reason: str
    event: str = ""
    paused: str = ""

    @property
    def decision(self) -> str:
        """Return why the version serves or does not, the text of its tag; empty before the gate has decided."""
        if not self.event:
            return self.reason
        gate = f"the gate: {self.verdict}: {self.reason}" if self.verdict else "never judged"
        return f"{self.event}; {gate}"

    @property
    def sentence(self) -> str:
        """Return in one sentence what happened to the version."""
        text = self.decision if self.event else f"{self.verdict or 'not judged yet'}: {self.reason}".rstrip(": ")
        paused = f"paused, so it draws no masks: {self.paused}; " if self.paused else ""
        return (paused + text)[:1].upper() + (paused + text)[1:]

    @property
    def run_name(self) -> str:
        """Return the version's facts in one line, the most important first, because lists truncate it."""
        tags, metrics = self.run.data.tags, self.run.data.metrics
        word = "paused" if self.paused else self._word()
        parts = [f"{self.served_as.rpartition(':')[2]} {word}"]
        if math.isfinite(miou := metrics.get("test_miou", math.nan)):
            parts.append(f"{miou:.3f} mIoU")
        parts += [tags[GAIN]] if tags.get(GAIN) else []
        parts += [f"{tags[STEPS_DONE]} steps"] if tags.get(STEPS_DONE) else []
        parts += [f"{tags[MINUTES]} min"] if tags.get(MINUTES) else []
        return " · ".join(parts)

    def _word(self) -> str:
        if self.event.startswith(("promoted", "rolled back")):
            return self.event.partition(" to ")[0]
        return self.verdict or "not judged yet"

    def description(self, table: str) -> str:
        """Return the version's description in Markdown; `table` is the gate's."""
        tags, run = self.run.data.tags, self.run.info
        page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}"
        facts = [
            f"[Report]({page}/artifacts/{REPORT_PAGE}?{_TRAINING_PAGES})",
            f"[training]({page}?{_TRAINING_PAGES})",
            f"on {tags.get(DATASET, 'an unknown dataset')}",
        ]
        facts += [f"{tags[STEPS_DONE]} steps"] if tags.get(STEPS_DONE) else []
        facts += [f"{tags[MINUTES]} min"] if tags.get(MINUTES) else []
        text = "\n\n".join(filter(None, (self.sentence, " · ".join(facts), _without_verdict(table))))
        if len(text) <= _LONGEST_DESCRIPTION:
            return text
        return text[: _LONGEST_DESCRIPTION - 30].rpartition("\n")[0] + "\n\nThe report has the rest."


def _without_verdict(table: str) -> str:
    """Return the gate's table without its first paragraph, which repeats the description."""
    return table.partition("\n\n")[2].strip() if table.startswith("**") else table.strip()


def experiment_note(name: str, champion: VersionStatus | None, runs: Sequence[Run]) -> str:
    """Return the text at the top of the experiment's page: the champion, and a table of runs, newest first."""
    if champion:
        miou = champion.run.data.metrics.get("test_miou", math.nan)
        headline = f"Champion {champion.served_as}" + (f", test mIoU {miou:.3f}" if math.isfinite(miou) else "")
        headline += f", paused: {champion.paused}" if champion.paused else ""
    else:
        headline = "There is no champion yet"
    lines = [headline + "."]
    if runs:
        address = f"#/experiments/{runs[0].info.experiment_id}/runs?viewStateShareKey={VIEW}&{_TRAINING_PAGES}"
        lines[0] += f" [Runs with decisions, gains and steps]({address})"
        lines += ["", "| | decision | mIoU | gain | steps | min | dataset | |", "|---|---|--:|--:|--:|--:|---|---|"]
        lines += [_row(name, run) for run in runs]
    return "\n".join(lines)


def _row(name: str, run: Run) -> str:
    tags, page = run.data.tags, f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    served_as, miou = tags.get(VERSION, ""), run.data.metrics.get("test_miou", math.nan)
    model = f"#/models/{quote(name)}/versions/{served_as.rpartition(':v')[2]}?{_TRAINING_PAGES}"
    decision = tags.get(DECISION, run.info.status.lower()).replace("|", "/").replace("\n", " ")
    cells = [
        f"[{served_as.rpartition(':')[2]}]({model})" if served_as else f"[run]({page}?{_TRAINING_PAGES})",
        decision if len(decision) <= _LONGEST_CELL else decision[:_LONGEST_CELL] + "…",
        f"{miou:.3f}" if math.isfinite(miou) else "",
        *(tags.get(tag, "") for tag in (GAIN, STEPS_DONE, MINUTES, DATASET)),
        f"[report]({page}/artifacts/{REPORT_PAGE}?{_TRAINING_PAGES})" if served_as else "",
    ]
    return f"| {' | '.join(cells)} |"


def experiment_tags(now_ms: int) -> dict[str, str]:
    """Return the tags that make MLflow show an experiment's runs as trainings, with a view of the gate's decisions.

    MLflow 3.17 stores a saved view as a tag: JSON, deflated, in base64. `now_ms` is in milliseconds since 1970.
    """
    state = {
        "orderByKey": "attributes.start_time", "orderByAsc": False, "lifecycleFilter": "Active", "searchFilter": "",
        "startTime": "ALL", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": [column for column in _WIDTHS if "`" in column],
        "columnOrder": list(_WIDTHS), "columnWidths": _WIDTHS, "runsHiddenMode": "FIRST_10_RUNS", "groupBy": None,
        "viewMaximized": False, "runListHidden": False,
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "Decisions", "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"}
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
    }
