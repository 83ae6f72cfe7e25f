"""The labeling interface as XML: brush, eraser, magic wand, smart keypoints and smart boxes for each label."""

from xml.etree import ElementTree as xml  # builds text only; nothing from outside is parsed

from pipelines.errors import DataError
from pipelines.labelstudio.controls import BOX, BRUSH, IMAGE, POINT
from pipelines.params import Label, Params


def labeling_interface(params: Params) -> str:
    """Render the labeling configuration of the project."""
    view = xml.Element("View")
    if params.project.metadata:
        text = "  ·  ".join(f"${column}" for column in params.project.metadata)
        xml.SubElement(view, "Header", value=text, size="5")
    desk = xml.SubElement(view, "View", style="display: flex; gap: 12px")
    # A column per tool, so that nobody has to scroll to the label they need.
    labels = xml.SubElement(desk, "View", style="display: flex; gap: 8px; flex: 0 0 auto; zoom: 0.85")
    _labels(labels, "Brush", "BrushLabels", BRUSH, params.labels, smart="false")
    # Smart prompts ask the interactive service and are never annotations themselves.
    _labels(labels, "Smart point", "KeyPointLabels", POINT, params.labels, smart="true", smartOnly="true")
    _labels(labels, "Smart box", "RectangleLabels", BOX, params.labels, smart="true", smartOnly="true")
    photo = xml.SubElement(desk, "View", style="flex: 1 1 auto; min-width: 0")
    xml.SubElement(
        photo, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true", brightnessControl="true",
        contrastControl="true", crossOrigin="anonymous", smoothing="true", maxHeight="76vh",
    )  # fmt: skip
    xml.SubElement(photo, "MagicWand", name="wand", toName=IMAGE)
    xml.indent(view)
    return xml.tostring(view, encoding="unicode")


def brush_labels(config: str) -> set[str]:
    """Read the brush labels out of a labeling configuration; raises DataError when it is no XML."""
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

    try:
        controls = parse_config(config)
    except Exception as error:  # the SDK raises this very class for what it cannot parse
        raise DataError(f"the labeling configuration cannot be read: {error}; run `maskloop setup`") from error
    return set(controls.get(BRUSH, {}).get("labels", ()))


def _labels(
    columns: xml.Element, heading: str, tag: str, name: str, labels: tuple[Label, ...], **attributes: str
) -> None:
    column = xml.SubElement(columns, "View", style="max-width: 150px")
    xml.SubElement(column, "Header", value=heading, size="6")
    group = xml.SubElement(column, tag, {"name": name, "toName": IMAGE, "showInline": "false", **attributes})
    for label in labels:
        xml.SubElement(group, "Label", value=label.name, background=label.color)
