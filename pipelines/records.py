"""Frozen records handed from station to station.

JSON of Label Studio, rows of Parquet and objects of MLflow stay in their own rooms; between rooms travel these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

Metadata = Mapping[str, str]
CATALOG_COLUMNS = (
    "id_file", "year", "collection", "season", "subject", "media_type", "name", "theme", "typology", "typology.sub",
)  # fmt: skip
NO_MODEL = "no-champion"  # the segmentation service's model version while there is nothing to predict with
# What Google, Amazon, CloudFront and Azure add to an address to let its holder in.
_SIGNATURES = (
    "x-goog-", "googleaccessid=", "x-amz-", "awsaccesskeyid=", "signature=", "expires=", "policy=", "key-pair-id=",
    "sig=", "se=", "sp=", "sr=", "st=", "sv=", "spr=",
)  # fmt: skip


@dataclass(frozen=True)
class ObjectRef:
    """One object of a bucket at one generation, as a listing showed it."""

    bucket: str
    name: str
    generation: int
    size: int = -1  # bytes; -1 when unknown
    md5: str = ""  # base64, as the listing gave it; empty for composite objects

    @property
    def uri(self) -> str:
        """Give `gs://bucket/name`."""
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True)
class ImageRef:
    """One photo: which object, at which generation, with which bytes; sizes are upright (EXIF applied), in pixels.

    `phash` is its perceptual hash, 16 hex digits (see `images.perceptual_hash`), or empty when it was never taken.
    """

    uri: str
    generation: int
    sha256: str
    height: int
    width: int
    phash: str = ""


@dataclass(frozen=True)
class PhotoAddress:
    """A photo as task data names it; generation 0 is the object as it is now (tasks that Maskloop did not make).

    A photo of a web server has an `etag` instead.
    """

    uri: str
    generation: int
    etag: str = ""

    @property
    def key(self) -> str:
        """Identify the photo's content; signatures in a web address change with every look and do not count."""
        uri, _, query = self.uri.partition("?") if self.uri.startswith("https://") else (self.uri, "", "")
        kept = [part for part in query.split("&") if part and not part.lower().startswith(_SIGNATURES)]
        return f"{'?'.join([uri, *filter(None, ['&'.join(kept)])])}#{self.etag or self.generation}"


@dataclass(frozen=True)
class PhotoTask:
    """One labeling task of Label Studio: the photo that it shows, and what the catalogue says of that."""

    id: int
    image: ImageRef
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Task(PhotoTask):
    """A labeling task with the model versions that already predicted it, and what people did with it."""

    prediction_versions: tuple[str, ...] = ()  # each once
    prediction_count: int = 0
    annotation_count: int = 0
    skipped_count: int = 0  # of these annotations, who pressed «Skip»
    opened: bool = False  # somebody has a draft or an annotation on it
    is_open: bool = True  # the labeling stream hands it out, to one more person where some have drawn it


@dataclass(frozen=True)
class RegionMask:
    """One region by itself, as a click gives it: `mask` is (height, width) bool, `score` 0..1."""

    label: str
    mask: np.ndarray
    score: float


@dataclass(frozen=True)
class RegionScore:
    """One label of a prediction; `score` 0..1 is the chance that a person leaves the region as it is.

    Where the model does not know that, it is the mean probability of the label over its pixels.
    """

    label: str
    label_id: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo, as far as it is worth showing.

    `mask` is (height, width) uint8, one label id per pixel, 0 = background; `regions` names the ids in it. `score` 0..1
    is the mean probability of the winning class over the pixels that are garments to the model, shown or not, or over
    all pixels where there is no garment.
    """

    mask: np.ndarray
    regions: tuple[RegionScore, ...]
    score: float
    model_version: str


@dataclass(frozen=True)
class Proposal:
    """How the pre-label that an annotation started from compares with what was submitted.

    `deleted` counts regions that were thrown away; `pixels` holds per label (the empty one is background) how many
    pixels were proposed, how many submitted, and how many both.
    """

    deleted: int
    pixels: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Annotation:
    """One submitted annotation; `raw` is its Label Studio JSON, kept whole because it is the label's only source."""

    uuid: str
    task_id: int
    image: ImageRef
    metadata: Metadata
    annotator: str
    updated_at: datetime
    lead_time_s: float
    cancelled: bool
    prediction_version: str  # model version of the pre-label it started from; empty when drawn from nothing
    raw: Mapping[str, Any]
    proposal: Proposal | None = None  # None when it started from none, or from one that is not known any more
    planted: str = ""  # `found` or `missed` when it held a wrong region on purpose: it measures a person, never a model


@dataclass(frozen=True)
class DatasetVersion:
    """One published dataset: its git tag and commit, and what changed since the version before."""

    tag: str
    revision: str
    photos: int
    annotations: int
    summary: str


@dataclass(frozen=True)
class ModelVersion:
    """One version of the MLflow registry; `served_as` is the model_version that predictions carry."""

    name: str
    version: int
    run_id: str
    dataset: str
    miou: float
    promoted: bool = False
    reason: str = ""
    done_steps: int = 0  # of the optimizer; 0 in versions that did not record them
    planned_steps: int = 0
    ended_by: str = ""  # `schedule`, `patience` or `minutes`; empty in versions that did not record it
    paused: str = ""  # why it draws no masks for people though it is champion; empty when it does

    @property
    def is_complete(self) -> bool:
        """Tell whether its training came to its end: it did its planned steps, or validation got no better."""
        return self.done_steps >= self.planned_steps or self.ended_by == "patience"

    @property
    def served_as(self) -> str:
        """Give the version string that predictions and `/setup` carry, such as `clothing:v3`."""
        return f"{self.name}:v{self.version}"
