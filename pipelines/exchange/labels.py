"""The labels of a dataset version, some of which params.yaml may not have any more."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.dataset.dataset import Dataset
from pipelines.params import Label, Params

_PARAMS = "params.yaml"
_COLOR = "#808080"


def with_labels_of(dataset: Dataset, params: Params) -> Params:
    """Return the parameters with a label for each id in the dataset's manifest, those that they lack at the end.

    These have the name that the dataset's own params.yaml gives them, or one with their id.
    """
    ids = {int(label_id) for label_ids in dataset.manifest()["class_ids"] for label_id in label_ids}
    missing = sorted(ids - set(params.label_names))
    if not missing:
        return params
    names, taken = _names(dataset), set(params.region_ids)
    labels = list(params.labels)
    for label_id in missing:
        name = names.get(label_id, f"label-{label_id}")
        name = f"{name}-{label_id}" if name in taken else name
        taken.add(name)
        labels.append(Label(id=label_id, name=name, color=_COLOR))
    fields = {name: getattr(params, name) for name in Params.model_fields}
    return Params.model_validate({**fields, "labels": labels})  # a copy would keep the cached names


def _names(dataset: Dataset) -> dict[int, str]:
    """Return the names of label ids in the params.yaml that made a dataset; none where it cannot be read."""
    try:
        document: Any = yaml.safe_load((dataset.root / _PARAMS).read_text(encoding="utf-8"))
        return {label.id: label.name for label in map(_label, document["labels"])}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return {}


def _label(fields: Mapping[str, Any]) -> Label:
    return Label.model_validate({"color": _COLOR, **fields})
