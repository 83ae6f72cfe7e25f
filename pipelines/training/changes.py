"""What differs between a challenger's training and the champion's: data, parameters, code, packages."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.dataset.published import Published
from pipelines.dataset.summary import describe_change
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, StorageError
from pipelines.models.run import REVISION, Training
from pipelines.models.versions import Versions
from pipelines.records import ModelVersion

logger = logging.getLogger(__name__)
_CODE = ("pipelines", "dvc.yaml", "params.yaml")
_MOST_FILES = 40


@dataclass(frozen=True)
class Difference:
    """One parameter or package that differs; "–" stands for what one of both does not have."""

    name: str
    champion: str
    challenger: str


@dataclass(frozen=True)
class Changes:
    """What changed since `champion`: a sentence on the data, parameters, packages, and the code's `git diff --stat`."""

    champion: str
    dataset: str
    params: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    code: str


def changes_since(
    champion: ModelVersion, challenger: ModelVersion, training: Training, registry: Versions, published: Published,
    clone: Workspace,
) -> Changes:  # fmt: skip
    """Compare two versions by what their runs hold; the history of `clone` has the code of both."""
    tags, champion_tags = (registry.client.get_run(version.run_id).data.tags for version in (challenger, champion))
    params = (registry.file(champion, "params.yaml"), (training.folder / "params.yaml").read_text(encoding="utf-8"))
    packages = [
        json.loads(registry.file(version, "environment.json") or "{}").get("packages", {})
        for version in (champion, challenger)
    ]
    return Changes(
        champion.served_as,
        _change_of_data(champion.dataset, challenger.dataset, published),
        differences(*(yaml.safe_load(text) or {} for text in params)),
        differences(*packages),
        _change_of_code(clone, champion_tags.get(REVISION, ""), tags.get(REVISION, training.revision)),
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Compare nested mappings key by key; keys of several levels are joined by dots."""
    old, new = _flat(before), _flat(now)
    return tuple(
        Difference(key, old.get(key, "–"), new.get(key, "–"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(values, Mapping) and values:
        return {name: text for key, value in values.items() for name, text in _flat(value, f"{prefix}.{key}").items()}
    return {prefix[1:]: str(values)} if prefix else {}


def _change_of_data(before: str, now: str, published: Published) -> str:
    if before == now:
        return f"the same dataset, {now}"
    try:
        return f"{before} → {now}: {describe_change(published.manifest(before), published.manifest(now))}"
    except (DatasetError, StorageError) as error:
        logger.warning("what changed from %s to %s is not known: %s", before, now, error)
        return f"{before} → {now}; {before} cannot be read any more"


def _change_of_code(clone: Workspace, before: str, now: str) -> str:
    if not before:
        return "the champion's revision is not known"
    try:
        lines = clone.git("diff", "--stat=100", before, now, "--", *_CODE).splitlines()
    except DatasetError as error:
        logger.warning("the code of %s cannot be compared: %s", before, error)
        return f"{before[:12]} is not among the commits of {clone.path}"
    if len(lines) > _MOST_FILES:
        lines = [*lines[: _MOST_FILES - 1], " …", lines[-1]]
    return "\n".join(lines) or "no change"
