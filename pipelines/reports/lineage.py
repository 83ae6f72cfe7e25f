"""Lineage from photos to models and from models to photos, as one chain in both directions.

MLflow run → dataset version → annotation → the model that pre-labelled it → photo at its generation.
"""

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.tree import Tree

from pipelines.dataset.published import Published
from pipelines.errors import DataError
from pipelines.records import ModelVersion

if TYPE_CHECKING:
    from pipelines.models.registry import Registry

_SHOWN_PHOTOS = 3


@dataclass(frozen=True)
class Link:
    """One element of the chain, its facts, and the elements that follow from it or led to it."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    links: tuple["Link", ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the chain as JSON values."""
        return {"name": self.name, **self.facts, "links": [link.as_json() for link in self.links]}

    def as_tree(self) -> Tree:
        """Return the chain as a tree for a terminal."""
        tree = Tree(f"[bold]{self.name}[/]")
        shown = list(self.facts.items())
        if any(isinstance(value, Mapping) and "annotations" in value for _, value in shown):  # a list of many photos
            shown = [(name, value["annotations"]) for name, value in shown[:_SHOWN_PHOTOS]]
            if len(self.facts) > _SHOWN_PHOTOS:
                shown.append(("…", f"{len(self.facts) - _SHOWN_PHOTOS} more; --json names them all"))
        for name, value in shown:
            tree.add(f"[dim]{name}[/] {value}")
        for link in self.links:
            tree.children.append(link.as_tree())
        return tree


class Lineage:
    """Reads the chain from published manifests and the model registry; nothing is stored a second time."""

    def __init__(self, published: Published, registry: "Registry") -> None:
        self._published, self._registry = published, registry

    def of(self, what: str) -> Link:
        """Return the chain of `gs://bucket/photo`, `dataset-0007`, `models:/clothing@champion` or `models:/clothing/3`.

        Raises DataError for anything else, and when it does not exist.
        """
        if what.startswith("gs://"):
            return self._photo(what)
        if what.startswith("models:/"):
            return self._model(self._version(what), deep=True)
        if what in self._published.tags():
            return self._dataset(what)
        versions = ", ".join(self._published.tags()[-5:]) or "none yet"
        raise DataError(
            f"{what!r} cannot be traced: give gs://bucket/photo, models:/{self._registry.name}@champion, "
            f"or a dataset version ({versions})"
        )

    def _photo(self, uri: str) -> Link:
        links = []
        for tag in self._published.tags():
            photos = self._published.manifest(tag)
            for row in photos[photos["uri"] == uri].to_dict("records"):
                links.append(Link(tag, _facts(row), self._models_of(tag)))
        if not links:
            raise DataError(f"no dataset version holds {uri}; it is not labelled, or not synced yet")
        return Link(uri, {}, tuple(links))

    def _dataset(self, tag: str) -> Link:
        photos = self._published.manifest(tag)
        facts = {
            "commit": self._published.revision(tag), "change": self._published.summary(tag), "photos": len(photos),
            "splits": dict(sorted(Counter(photos["split"]).items())),
            "annotators": dict(Counter(who for people in photos["annotators"] for who in people).most_common()),
        }  # fmt: skip
        started = Counter(version or "drawn by hand" for version in photos["prediction_version"])
        sources = Link("started from", dict(started.most_common()))
        each = {row["uri"]: _facts(row) for row in photos.to_dict("records")}
        return Link(tag, facts, (sources, Link("photos", each), *self._models_of(tag)))

    def _model(self, version: ModelVersion, *, deep: bool = False) -> Link:
        champion = self._registry.champion()
        facts = {
            "run": version.run_id, "test mIoU": round(version.miou, 4), "decision": version.reason or "none yet",
            "champion": champion is not None and champion.version == version.version,
        }  # fmt: skip
        known = version.dataset in self._published.tags()
        return Link(version.served_as, facts, (self._dataset(version.dataset),) if deep and known else ())

    def _models_of(self, tag: str) -> tuple[Link, ...]:
        return tuple(self._model(version) for version in self._registry.versions_trained_on(tag))

    def _version(self, address: str) -> ModelVersion:
        name, _, rest = address.removeprefix("models:/").partition("@")
        if rest and rest != "champion":
            raise DataError(f"there is one alias, champion; or give a number, as in models:/{self._registry.name}/3")
        if not rest:
            name, _, number = name.partition("/")
        version = self._registry.champion() if rest else self._registry.version(number)
        if name != self._registry.name or version is None:
            raise DataError(f"MLflow has no {address}; the model is named {self._registry.name} (MASKLOOP_MODEL_NAME)")
        return version


def _facts(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Return the facts of a manifest's row about a photo."""
    return {
        "generation": int(row["generation"]), "sha256": row["sha256"],
        "annotations": ", ".join(row["annotations"]), "annotators": ", ".join(row["annotators"]),
        "updated": row["updated_at"], "split": row["split"],
        "started from": row["prediction_version"] or "nothing: drawn by hand",
        "pixels": json.loads(row["label_pixels"]),
    }  # fmt: skip
