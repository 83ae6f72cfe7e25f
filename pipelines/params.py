"""params.yaml as frozen models: whatever changes data bytes or weights is read here and nowhere else.

The environment cannot override these values; a dataset version and a model therefore always name their parameters.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipelines.errors import ConfigurationError

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(Section):
    """One garment label; `id` is its pixel value in index masks (1..254), `color` is #rrggbb."""

    id: Annotated[int, Field(ge=1, le=254)]
    name: Annotated[str, Field(pattern=r"^[\w .:/-]+$")]  # what MLflow allows in the names of metrics
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class ProjectParams(Section):
    """The Label Studio project: its title, and which catalogue columns stand above the photo."""

    title: str
    instruction: str
    metadata: tuple[str, ...]


class IngestParams(Section):
    """Which objects of the source bucket are photos, and how large they may be."""

    suffixes: tuple[str, ...]
    max_megapixels: Annotated[float, Field(gt=0)]


class PrelabelParams(Section):
    """Which photos come next and how they are pre-labelled.

    `ahead` unopened tasks hold the serving model's masks, a `random_share` of them chosen by chance and the others the
    least certain of `pool` scored ones. Regions below `min_region_share` of the photo are dropped. `cold_start` maps
    classes of a SegFormer checkpoint to labels.
    """

    ahead: Annotated[int, Field(ge=1)]
    random_share: Share
    pool: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    min_region_share: Share
    cold_start: dict[str, str]


class EmbedParams(Section):
    """How many of the next photos are kept ready for clicks."""

    ahead: Annotated[int, Field(ge=0)]


class CompileParams(Section):
    """How annotations become index masks."""

    alpha_threshold: Annotated[int, Field(ge=1, le=255)]
    overlap: Literal["z-order"]


class CheckParams(Section):
    """When a dataset version is stopped or reported."""

    max_empty_share: Share
    min_region_share: Share


class SplitParams(Section):
    """How photos are divided; the hash of group and salt decides, so that no photo ever moves."""

    group_by: tuple[str, ...]
    test_share: Annotated[float, Field(gt=0, lt=1)]
    val_share: Annotated[float, Field(ge=0, lt=1)]
    salt: str


class TrainParams(Section):
    """Network, input size in pixels, and optimisation."""

    architecture: str
    encoder: str
    encoder_weights: Literal["imagenet-pypi", "imagenet", "none"]
    image_height: Annotated[int, Field(ge=32, multiple_of=32)]
    image_width: Annotated[int, Field(ge=32, multiple_of=32)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    seed: int


class EvaluateParams(Section):
    """What the evaluation draws."""

    overlays: Annotated[int, Field(ge=0)]


class PromoteParams(Section):
    """When a challenger becomes champion; IoU differences are absolute (0..1)."""

    min_gain: Share
    max_class_drop: Share
    min_class_photos: Annotated[int, Field(ge=1)]


class Params(Section):
    """The whole of params.yaml."""

    labels: tuple[Label, ...]
    project: ProjectParams
    ingest: IngestParams
    prelabel: PrelabelParams
    embed: EmbedParams
    compile: CompileParams
    check: CheckParams
    split: SplitParams
    train: TrainParams
    evaluate: EvaluateParams
    promote: PromoteParams

    @field_validator("labels")
    @classmethod
    def _unique(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        for what in ("id", "name"):
            values = [getattr(label, what) for label in labels]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"label {what} used twice: {', '.join(twice)}")
        if not labels:
            raise ValueError("at least one label is needed")
        return labels

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Map label name to pixel value."""
        return {label.name: label.id for label in self.labels}

    @cached_property
    def label_names(self) -> dict[int, str]:
        """Map pixel value to label name."""
        return {label.id: label.name for label in self.labels}


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises ConfigurationError naming the file and every key that is missing, unknown or out of range.
    """
    try:
        return Params.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist; run maskloop from the project's folder") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"{path}: {problems}") from error
