"""Files of MLflow's runs that show or name a photo."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipelines.forget.models import ModelsStore, acquainted_models, runs_with_example
from pipelines.forget.traces import Trace
from pipelines.models.registry import Registry
from pipelines.records import ModelVersion
from tests.unit.forget.test_subjects import OTHER, SHA256, SUBJECTS

Add = Callable[..., ModelVersion]


class OneVersion:
    """Published versions: one, whose first test photo is the one to be removed."""

    def tags(self) -> list[str]:
        return ["dataset-0001"]

    def manifest(self, tag: str) -> pd.DataFrame:
        return pd.DataFrame({"sha256": [SHA256, OTHER, "0" * 64], "split": ["test", "test", "train"]})


def test_models_that_knew_the_photo_are_named_with_what_to_do(registry: Registry, add_version: Add) -> None:
    known, _ = add_version(), add_version(dataset="dataset-0002")
    registry.promote(known, "better")
    [model] = acquainted_models(OneVersion(), registry, SUBJECTS)  # type: ignore[arg-type]  # what is asked of it
    assert (model.served_as, model.run_id, model.splits, model.alias) == (
        "clothing:v1", known.run_id, ("test",), "champion",
    )  # fmt: skip
    assert "was judged by it: test of dataset-0001" in str(model)
    assert "learned from it" in str(replace(model, splits=("train",)))
    assert runs_with_example(OneVersion(), registry, SUBJECTS) == (known.run_id,)  # type: ignore[arg-type]  # a stand-in


def test_files_of_runs_are_named_and_with_published_versions_cleaned(
    registry: Registry, add_version: Add, tmp_path: Path
) -> None:
    run, client = add_version().run_id, registry.client
    picture = tmp_path / f"overlay-00-miou-0.10-{SHA256[:8]}.jpg"
    picture.write_bytes(b"\xff\xd8\xff")
    client.log_artifact(run, str(picture), "report")
    client.log_text(run, f"<img> {SHA256[:12]}", "report.html")
    client.log_text(run, json.dumps({"test_families": [OTHER, SHA256]}), "gate.json")
    client.log_text(run, "label,iou\ncoat,1\n", "report/classes.csv")

    def traces(*, published: bool) -> list[Trace]:
        return list(ModelsStore(registry, replace(SUBJECTS, published=published)).traces())

    assert sorted(trace.what for trace in traces(published=False)) == ["picture", "text", "text"]
    assert all(trace.remove is None and "--published" in trace.reason for trace in traces(published=False))
    for trace in traces(published=True):
        assert trace.remove is not None
        trace.remove()
    assert traces(published=True) == []
    names = {file.path for folder in (None, "report") for file in client.list_artifacts(run, folder)}
    assert names == {"gate.json", "report", "report/classes.csv"}
    gate = Path(client.download_artifacts(run, "gate.json", str(tmp_path))).read_text(encoding="utf-8")
    assert json.loads(gate) == {"test_families": [OTHER, "photo-1"]}
