"""params.yaml is checked as a whole, and a mistake in it is named with its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.errors import ConfigurationError
from pipelines.params import IGNORE, Params, load_params
from pipelines.settings import PROJECT_ROOT

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def document() -> dict[str, Any]:
    """The project's params.yaml as plain data, to be spoilt."""
    return yaml.safe_load((PROJECT_ROOT / "params.yaml").read_text(encoding="utf-8"))


def load(document: Any, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(path)


def test_the_projects_own_file_is_good() -> None:
    params = load_params(PROJECT_ROOT / "params.yaml")
    assert params.label_names == {label_id: name for name, label_id in params.label_ids.items()}
    assert len(params.label_ids) == len(params.labels) > 1


@pytest.mark.parametrize(
    ("damage", "place", "problem"),
    [
        (lambda d: d["train"].update(epoch=3), "train.epoch", "Extra inputs"),
        (lambda d: d.update(trian={}), "trian", "Extra inputs"),
        (lambda d: d["split"].pop("salt"), "split.salt", "Field required"),
        (lambda d: d.pop("promote"), "promote", "Field required"),
        (lambda d: d["labels"][0].update(color="red"), "labels.0.color", "should match pattern"),
        (lambda d: d["labels"][0].update(id=255), "labels.0.id", "less than or equal to 254"),
        (lambda d: d["labels"][0].update(id=0), "labels.0.id", "greater than or equal to 1"),
        (lambda d: d["labels"][0].update(name=""), "labels.0.name", "match pattern"),
        (lambda d: d["labels"][1].update(id=d["labels"][0]["id"]), "labels", "label id used twice: 1"),
        (lambda d: d["labels"][1].update(name="bag-belt"), "labels", "label name used twice: bag-belt"),
        (lambda d: d.update(labels=[]), "labels", "at least one label"),
        (lambda d: d["train"].update(image_height=300), "train.image_height", "multiple of 32"),
        (lambda d: d["split"].update(test_share=1), "split.test_share", "less than 1"),
        (lambda d: d["compile"].update(overlap="largest"), "compile.overlap", "'z-order'"),
        (lambda d: d["compile"].update(priority=["cape"]), "", "priority names labels that are none: cape"),
        (lambda d: d["ingest"].update(columns={"id": "Nr"}), "ingest.columns", "id: no such column; write"),
        (lambda d: d["ingest"].update(columns={"id": "Nr"}), "ingest.columns", "id_file, year, collection, season"),
        (lambda d: d["ingest"].update(columns={"name": " "}), "ingest.columns.name", "match pattern"),
        (lambda d: d["ingest"].update(columns={"name": 3}), "ingest.columns.name", "valid string"),
        (lambda d: d["ingest"].update(columns=["name"]), "ingest.columns", "valid dictionary"),
        (lambda d: d.update(ignore={"name": "coat"}), "", "ignore.name 'coat' is the name of a label as well"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(
    document: dict[str, Any], tmp_path: Path, damage: Change, place: str, problem: str
) -> None:
    damage(document)
    with pytest.raises(ConfigurationError) as caught:
        load(document, tmp_path)
    assert str(tmp_path / "params.yaml") in str(caught.value)
    assert f"{place}: " in str(caught.value)
    assert problem in str(caught.value)


def test_the_ignore_label_is_a_region_but_no_label_and_may_be_the_strongest(
    document: dict[str, Any], tmp_path: Path
) -> None:
    document["compile"].update(overlap="priority", priority=["unclear", "coat"])
    params = load(document, tmp_path)
    assert params.compile.strongest == ("unclear", "coat")
    assert params.region_ids == {**params.label_ids, "unclear": IGNORE}
    assert "unclear" not in params.label_ids


def test_columns_of_the_catalogue_may_have_other_names(document: dict[str, Any], tmp_path: Path) -> None:
    assert load(document, tmp_path).ingest.columns == {}
    document["ingest"].update(columns={"id_file": "Größe, cm"})
    assert load(document, tmp_path).ingest.columns == {"id_file": "Größe, cm"}
    del document["ingest"]["columns"]
    assert load(document, tmp_path).ingest.columns == {}


def test_all_mistakes_are_named_at_once(document: dict[str, Any], tmp_path: Path) -> None:
    document["train"]["epochs"] = 0
    del document["project"]["title"]
    with pytest.raises(ConfigurationError, match=r"project\.title.*train\.epochs"):
        load(document, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere/params\.yaml does not exist; run maskloop from"):
        load_params(tmp_path / "nowhere" / "params.yaml")


@pytest.mark.parametrize("text", ["labels: [", "", "just words", "- a\n- list"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"params\.yaml"):
        load_params(path)


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_params(PROJECT_ROOT / "params.yaml")
    monkeypatch.setenv("MASKLOOP_TRAIN__EPOCHS", "1")
    monkeypatch.setenv("EPOCHS", "1")
    assert load_params(PROJECT_ROOT / "params.yaml") == before


def test_params_are_frozen(params: Params) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 1  # type: ignore[misc]  # frozen: that is what is tested


def test_a_copy_with_other_labels_knows_its_own(params: Params) -> None:
    before = params.label_ids, params.region_ids, params.label_names
    first = params.labels[0]
    copy = params.model_copy(update={"labels": (first,)})
    assert copy.label_ids == {first.name: first.id}
    assert copy.region_ids == {first.name: first.id, params.ignore.name: IGNORE}
    assert copy.label_names == {first.id: first.name}
    assert before == (params.label_ids, params.region_ids, params.label_names)
