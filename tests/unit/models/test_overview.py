"""What stands on MLflow's pages."""

import base64
import json
import zlib

from mlflow.entities import Metric, Run, RunData, RunInfo, RunTag

from pipelines.models.overview import VersionStatus, experiment_note, experiment_tags


def run(**tags: str) -> Run:
    info = RunInfo("a1", "7", "ada", "FINISHED", 0, 1, "active")
    named = [RunTag(f"maskloop.{name}", value) for name, value in tags.items()]
    return Run(info, RunData(metrics=[Metric("test_miou", 0.7124, 0, 0)], tags=named))


def test_a_runs_name_holds_the_facts_in_one_line() -> None:
    whole = run(gain="+0.031 (+0.012…+0.050)", steps="160/160", minutes="4")

    assert VersionStatus("clothing:v2", whole, "promoted", "better").run_name == (
        "v2 promoted · 0.712 mIoU · +0.031 (+0.012…+0.050) · 160/160 steps · 4 min"
    )
    assert VersionStatus("clothing:v2", run(), "", "").run_name == "v2 not judged yet · 0.712 mIoU"


def test_a_description_begins_with_a_plain_sentence_and_fits_into_mlflows_database() -> None:
    status = VersionStatus("clothing:v2", run(dataset="dataset-0002"), "not promoted", "no gain")
    row = "| coat | 7 | 0.5 | 0.5 |"

    text = status.description("**Not promoted**: no gain\n\n" + "\n".join([row] * 400))

    assert text.startswith("Not promoted: no gain\n\n[Report](#/experiments/7/runs/a1/artifacts/report.html?")
    assert "**" not in text
    assert len(text) <= 5000
    assert text.endswith(f"{row}\n\nThe report has the rest."), "no row is cut in two"


def test_before_there_is_a_champion_the_experiment_says_so() -> None:
    assert experiment_note("clothing", None, []) == "There is no champion yet."
    assert "| [run](#/experiments/7/runs/a1?" in experiment_note("clothing", None, [run()])


def test_the_experiment_is_shown_as_one_of_trainings_with_a_view_of_decisions() -> None:
    tags = experiment_tags(1_000)

    assert tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(tags["mlflow.sharedViewState.maskloop"])
    form, _, packed = view["state"].partition(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert (view["name"], form) == ("Decisions", "deflate")
    assert {"metrics.`test_miou`", "tags.`maskloop.decision`"} <= set(state["selectedColumns"])
    assert state["columnOrder"][0] == "attributes.`Run Name`"
