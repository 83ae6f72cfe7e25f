"""The labeling interface: what labelers see and what Label Studio parses."""

from xml.etree import ElementTree as xml

import pytest

from pipelines.errors import ContractError, DataError
from pipelines.labelstudio.controls import BOX, BRUSH, DOUBT, IMAGE, POINT, SKIP_REASON
from pipelines.labelstudio.interface import DOUBT_FIELD, brush_labels, labeling_interface, require_same_labels
from pipelines.params import Params


@pytest.fixture
def view(two_labels: Params) -> xml.Element:
    return xml.fromstring(labeling_interface(two_labels))


@pytest.mark.parametrize("name", [BRUSH, POINT, BOX])
def test_each_tool_offers_every_label_in_its_colour(view: xml.Element, two_labels: Params, name: str) -> None:
    labels = view.findall(f".//*[@name='{name}']/Label")

    assert [(label.get("value"), label.get("background")) for label in labels] == [
        *((label.name, label.color) for label in two_labels.labels),
        ("unclear", two_labels.ignore.color),
    ]


@pytest.mark.parametrize(("tag", "name"), [("KeyPointLabels", POINT), ("RectangleLabels", BOX)])
def test_prompts_are_smart_only_and_never_annotations(view: xml.Element, tag: str, name: str) -> None:
    (tool,) = view.findall(f".//{tag}")

    assert (tool.get("name"), tool.get("smart"), tool.get("smartOnly")) == (name, "true", "true")


def test_the_brush_is_no_smart_tool(view: xml.Element) -> None:
    assert view.find(".//BrushLabels").get("smart") == "false"


def test_every_tool_draws_on_the_image_that_task_data_names(view: xml.Element) -> None:
    tools = [tool for tool in view.iter() if tool.get("toName")]

    assert view.find(".//Image").get("value") == f"${IMAGE}"
    assert {tool.tag for tool in tools} == {"BrushLabels", "MagicWand", "KeyPointLabels", "RectangleLabels", "TextArea"}
    assert {tool.get("toName") for tool in tools} == {view.find(".//Image").get("name")}


def test_the_magic_wand_may_read_the_pixels(view: xml.Element) -> None:
    assert view.find(".//MagicWand") is not None
    assert view.find(".//Image").get("crossOrigin") == "anonymous"


def test_catalogue_columns_stand_above_the_photo(view: xml.Element, two_labels: Params) -> None:
    header = view.find("View/Header")

    assert all(f"${column}" in header.get("value") for column in two_labels.project.metadata)


def test_without_columns_there_is_no_header(two_labels: Params) -> None:
    bare = two_labels.model_copy(update={"project": two_labels.project.model_copy(update={"metadata": ()})})

    assert xml.fromstring(labeling_interface(bare)).find("View/Header") is None


def test_a_doubt_can_be_written_in_words_and_need_not_be(view: xml.Element) -> None:
    field = view.find(f".//TextArea[@name='{DOUBT}']")

    assert field.get("placeholder") == DOUBT_FIELD
    assert field.get("maxSubmissions") == "1"
    assert field.get("required") is None


def test_the_reason_of_a_skip_has_a_field_that_nobody_sees(view: xml.Element) -> None:
    [hidden] = [part for part in view.iter("View") if part.find(f"TextArea[@name='{SKIP_REASON}']") is not None]

    assert hidden.get("style") == "display: none"


def test_labels_with_signs_of_xml_survive(two_labels: Params) -> None:
    odd = two_labels.labels[0].model_copy(update={"name": 'hat & "veil" <lace>'})

    view = xml.fromstring(labeling_interface(two_labels.model_copy(update={"labels": (odd,)})))

    assert view.find(".//BrushLabels/Label").get("value") == odd.name


def test_the_labels_of_the_interface_are_read_back(two_labels: Params) -> None:
    assert brush_labels(labeling_interface(two_labels)) == {"coat", "dress", "unclear"}


def test_a_configuration_that_cannot_be_parsed_names_the_remedy() -> None:
    with pytest.raises(DataError, match=r"cannot be read.*maskloop setup"):
        brush_labels("<View>")


@pytest.mark.parametrize("offered", [None, ("coat", "dress"), ("dress", "coat", "unclear")])
@pytest.mark.parametrize("model_labels", [(), ("coat",), ("dress", "coat")])
def test_the_ignore_label_may_be_offered_and_a_model_may_lack_labels(
    two_labels: Params, offered: tuple[str, ...] | None, model_labels: tuple[str, ...]
) -> None:
    require_same_labels(two_labels, offered=offered, model_labels=model_labels)


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        (("coat", "dress", "cape"), r"only in Label Studio: \['cape'\]; only in params.yaml: none\. .*maskloop setup"),
        (("coat", "unclear"), r"only in Label Studio: none; only in params.yaml: \['dress'\]"),
        ((), r"only in params.yaml: \['coat', 'dress'\]"),
    ],
)
def test_labels_of_the_project_that_differ_are_named(
    two_labels: Params, offered: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        require_same_labels(two_labels, offered=offered)


@pytest.mark.parametrize("unknown", ["cape", "unclear"])
def test_a_model_must_not_predict_other_labels(two_labels: Params, unknown: str) -> None:
    with pytest.raises(ContractError, match=f"clothing:v3 predicts labels that params.yaml does not have: {unknown}"):
        require_same_labels(two_labels, model_labels=("coat", unknown), model="clothing:v3")
