"""The labeling interface as XML: brush, eraser, magic wand, smart keypoints and smart boxes for each label.

The ignore label stands last in each column, for what nobody can name.
"""

from collections.abc import Collection, Sequence
from xml.etree import ElementTree as xml  # builds text only; nothing from outside is parsed

from pipelines.errors import DataError
from pipelines.labelstudio.controls import BOX, BRUSH, IMAGE, POINT
from pipelines.params import IgnoreLabel, Label, Params


def labeling_interface(params: Params) -> str:
    """Render the labeling configuration of the project."""
    view = xml.Element("View")
    if params.project.metadata:
        text = "  ·  ".join(f"${column}" for column in params.project.metadata)
        xml.SubElement(view, "Header", value=text, size="5")
    desk = xml.SubElement(view, "View", style="display: flex; gap: 12px")
    # A column per tool, so that nobody has to scroll to the label they need.
    labels = xml.SubElement(desk, "View", style="display: flex; gap: 8px; flex: 0 0 auto; zoom: 0.85")
    offered: list[Label | IgnoreLabel] = [*params.labels, params.ignore]
    _labels(labels, "Brush", "BrushLabels", BRUSH, offered, smart="false")
    # Smart prompts ask the interactive service and are never annotations themselves.
    _labels(labels, "Smart point", "KeyPointLabels", POINT, offered, smart="true", smartOnly="true")
    _labels(labels, "Smart box", "RectangleLabels", BOX, offered, smart="true", smartOnly="true")
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


def label_differences(there: Collection[str], params: Params) -> str:
    """Say which labels the project offers (`there`) and params.yaml does not, and the other way; empty if they agree.

    The ignore label may be offered and need not be: a project made before there was one can be worked in.
    """
    offered, ours = set(there) - {params.ignore.name}, set(params.label_ids)
    if offered == ours:
        return ""
    return (
        f"labels differ: only in Label Studio: {sorted(offered - ours) or 'none'}; only in params.yaml: "
        f"{sorted(ours - offered) or 'none'}"
    )


def _labels(
    columns: xml.Element, heading: str, tag: str, name: str, labels: Sequence[Label | IgnoreLabel], **attributes: str
) -> None:
    column = xml.SubElement(columns, "View", style="max-width: 150px")
    xml.SubElement(column, "Header", value=heading, size="6")
    group = xml.SubElement(column, tag, {"name": name, "toName": IMAGE, "showInline": "false", **attributes})
    for label in labels:
        xml.SubElement(group, "Label", value=label.name, background=label.color)
