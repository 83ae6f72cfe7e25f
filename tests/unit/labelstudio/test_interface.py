"""The labeling interface: what labelers see and what Label Studio parses."""

from xml.etree import ElementTree as xml

import pytest

from pipelines.labelstudio.controls import BOX, BRUSH, IMAGE, POINT
from pipelines.labelstudio.interface import labeling_interface
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
    assert {tool.tag for tool in tools} == {"BrushLabels", "MagicWand", "KeyPointLabels", "RectangleLabels"}
    assert {tool.get("toName") for tool in tools} == {view.find(".//Image").get("name")}


def test_the_magic_wand_may_read_the_pixels(view: xml.Element) -> None:
    assert view.find(".//MagicWand") is not None
    assert view.find(".//Image").get("crossOrigin") == "anonymous"


def test_catalogue_columns_stand_above_the_photo(view: xml.Element, two_labels: Params) -> None:
    header = view.find("Header")

    assert all(f"${column}" in header.get("value") for column in two_labels.project.metadata)


def test_without_columns_there_is_no_header(two_labels: Params) -> None:
    bare = two_labels.model_copy(update={"project": two_labels.project.model_copy(update={"metadata": ()})})

    assert xml.fromstring(labeling_interface(bare)).find("Header") is None


def test_labels_with_signs_of_xml_survive(two_labels: Params) -> None:
    odd = two_labels.labels[0].model_copy(update={"name": 'hat & "veil" <lace>'})

    view = xml.fromstring(labeling_interface(two_labels.model_copy(update={"labels": (odd,)})))

    assert view.find(".//BrushLabels/Label").get("value") == odd.name
