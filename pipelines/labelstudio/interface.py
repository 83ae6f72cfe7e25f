"""The labeling interface: its XML for each label of params.yaml, and the check that all sides know the same labels.

The interface has brush, magic wand, smart keypoints and smart boxes. The ignore label stands last in each column, for
regions that nobody can name. A field takes a doubt in words; a hidden one takes the reason of a skip, for which the
page asks (Label Studio itself does not).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from xml.etree import ElementTree as xml  # builds text only; nothing from outside is parsed
from xml.parsers import expat

from pipelines.errors import ContractError, DataError
from pipelines.labelstudio.controls import BOX, BRUSH, DOUBT, IMAGE, POINT, SKIP_REASON
from pipelines.params import IgnoreLabel, Label, Params

DOUBT_FIELD = "I am in doubt: … · Ho un dubbio: …"  # both languages: Label Studio shows every person the same text


def labeling_interface(params: Params) -> str:
    """Render the labeling configuration of the project as XML."""
    view = xml.Element("View")
    top = xml.SubElement(view, "View", style="display: flex; gap: 12px; justify-content: space-between")
    if params.project.metadata:
        text = "  ·  ".join(f"${column}" for column in params.project.metadata)
        xml.SubElement(top, "Header", value=text, size="5")
    doubt = xml.SubElement(top, "View", style="flex: 0 1 420px")
    _text(doubt, DOUBT, placeholder=DOUBT_FIELD, editable="true")
    _text(xml.SubElement(top, "View", style="display: none"), SKIP_REASON)
    columns = xml.SubElement(view, "View", style="display: flex; gap: 12px")
    # A column per tool, so that nobody has to scroll to the label they need.
    labels = xml.SubElement(columns, "View", style="display: flex; gap: 8px; flex: 0 0 auto; zoom: 0.85")
    offered: list[Label | IgnoreLabel] = [*params.labels, params.ignore]
    _labels(labels, "Brush", "BrushLabels", BRUSH, offered, smart="false")
    # Smart prompts ask the interactive service and are never annotations themselves.
    _labels(labels, "Smart point", "KeyPointLabels", POINT, offered, smart="true", smartOnly="true")
    _labels(labels, "Smart box", "RectangleLabels", BOX, offered, smart="true", smartOnly="true")
    photo = xml.SubElement(columns, "View", style="flex: 1 1 auto; min-width: 0")
    xml.SubElement(
        photo, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true", brightnessControl="true",
        contrastControl="true", crossOrigin="anonymous", smoothing="true", maxHeight="76vh",
    )  # fmt: skip
    xml.SubElement(photo, "MagicWand", name="wand", toName=IMAGE)
    xml.indent(view)
    return xml.tostring(view, encoding="unicode")


def brush_labels(config: str) -> set[str]:
    """Read the brush labels out of a labeling configuration (XML); raises DataError when it cannot be parsed."""
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

    try:
        controls = parse_config(config)
    except Exception as error:  # the SDK raises this very class for what it cannot parse
        raise DataError(f"the labeling configuration cannot be read: {error}; run `maskloop setup`") from error
    return set(controls.get(BRUSH, {}).get("labels", ()))


@lru_cache(maxsize=16)
def brush_controls(config: str) -> Mapping[str, tuple[str, str]]:
    """Return the names of the brush control and of its image by label, as regions carry them.

    `config` is a labeling configuration (XML); a label that it offers under an alias has both names. Nothing is
    returned when it has no brush, cannot be parsed, or defines entities. Unlike the SDK it takes no seconds to load.
    """
    controls: dict[str, tuple[str, str]] = {}
    brushes: list[tuple[str, str]] = []  # that the parser is in

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "BrushLabels":
            image = attributes.get("toName", IMAGE).partition(",")[0].strip()
            brushes.append((attributes.get("name", BRUSH), image))
        elif tag == "Label" and brushes:
            for label in filter(None, (attributes.get("value"), attributes.get("alias"))):
                controls.setdefault(label, brushes[-1])

    def end(tag: str) -> None:
        if tag == "BrushLabels":
            brushes.pop()

    def refuse(name: str, *_: object) -> None:
        raise DataError(f"the labeling configuration defines the entity {name!r}")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, end, refuse
    try:
        parser.Parse(config, True)
    except (DataError, expat.ExpatError, ValueError):  # ValueError: an encoding that Python does not know
        return {}
    return controls


def require_same_labels(
    params: Params,
    *,
    offered: Collection[str] | None = None,
    model_labels: Collection[str] = (),
    model: str = "the model",
) -> None:
    """Raise ContractError when the project or a model has other labels than params.yaml; the message names them.

    `offered` are the brush labels of the project's labeling interface; None leaves the project out. They must be those
    of params.yaml; the ignore label may be among them and need not, so that projects made before there was one can be
    worked in. `model_labels` are those that `model` predicts. It may lack labels: these are drawn by hand until the
    next training. It must not know others, nor the ignore label: nobody may be shown masks of what nobody can name.
    """
    expected = set(params.label_ids)
    if offered is not None and (labels := set(offered) - {params.ignore.name}) != expected:
        raise ContractError(
            f"labels differ: only in Label Studio: {sorted(labels - expected) or 'none'}; only in params.yaml: "
            f"{sorted(expected - labels) or 'none'}. Correct params.yaml or run `maskloop setup`"
        )
    if unknown := sorted(set(model_labels) - expected):
        raise ContractError(
            f"{model} predicts labels that params.yaml does not have: {', '.join(unknown)}. Put them back into "
            "`labels`, or retrain and promote a model for the labels as they are now"
        )


def _text(view: xml.Element, name: str, **attributes: str) -> None:
    """Add a field for one text about the whole photo."""
    xml.SubElement(view, "TextArea", {"name": name, "toName": IMAGE, "rows": "1", "maxSubmissions": "1", **attributes})


def _labels(
    columns: xml.Element, heading: str, tag: str, name: str, labels: Sequence[Label | IgnoreLabel], **attributes: str
) -> None:
    column = xml.SubElement(columns, "View", style="max-width: 150px")
    xml.SubElement(column, "Header", value=heading, size="6")
    group = xml.SubElement(column, tag, {"name": name, "toName": IMAGE, "showInline": "false", **attributes})
    for label in labels:
        xml.SubElement(group, "Label", value=label.name, background=label.color)
