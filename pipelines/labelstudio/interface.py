"""The labeling interface as XML: brush, eraser, magic wand, smart keypoints and smart boxes for each label."""

from xml.etree import ElementTree as xml  # builds text only; nothing from outside is parsed

from pipelines.params import Label, Params

IMAGE = "image"  # name of the Image tag and of the task's data key
BRUSH = "tag"  # name of the BrushLabels tag: the only regions that datasets are made of
POINT = "point"
BOX = "box"


def labeling_interface(params: Params) -> str:
    """Render the labeling configuration of the project."""
    view = xml.Element("View")
    if params.project.metadata:
        text = "  ·  ".join(f"${column}" for column in params.project.metadata)
        xml.SubElement(view, "Header", value=text, size="5")
    xml.SubElement(
        view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true", brightnessControl="true",
        contrastControl="true", crossOrigin="anonymous", smoothing="true",
    )  # fmt: skip
    _labels(view, "BrushLabels", BRUSH, params.labels, smart="false")
    xml.SubElement(view, "MagicWand", name="wand", toName=IMAGE)
    # Smart prompts ask the interactive service and are never annotations themselves.
    _labels(view, "KeyPointLabels", POINT, params.labels, smart="true", smartOnly="true")
    _labels(view, "RectangleLabels", BOX, params.labels, smart="true", smartOnly="true")
    xml.indent(view)
    return xml.tostring(view, encoding="unicode")


def _labels(view: xml.Element, tag: str, name: str, labels: tuple[Label, ...], **attributes: str) -> None:
    group = xml.SubElement(view, tag, {"name": name, "toName": IMAGE, "showInline": "true", **attributes})
    for label in labels:
        xml.SubElement(group, "Label", value=label.name, background=label.color)
