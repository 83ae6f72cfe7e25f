"""Frozen records that packages exchange: photos, tasks, annotations, predictions, dataset and model versions.

JSON of Label Studio, rows of Parquet files and objects of MLflow stay within the packages that read and write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.labelstudio.schema import AnnotationJson

Metadata = Mapping[str, str]
CATALOG_COLUMNS = (
    "id_file", "year", "collection", "season", "subject", "media_type", "name", "theme", "typology", "typology.sub",
)  # fmt: skip
# Keys of task data, beside the catalogue's: the split and the group that an imported photo had in its own dataset.
IMPORTED_SPLIT, IMPORTED_GROUP = "imported_split", "imported_group"
NO_MODEL = "no-champion"  # the segmentation service's model version while there is nothing to predict with
# Query parameters with which Google, Amazon, CloudFront and Azure sign a URL.
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
    encoding: str = ""  # its Content-Encoding in lower case, such as gzip
    stored_at: datetime | None = field(default=None, compare=False)  # None when unknown

    @property
    def uri(self) -> str:
        """Return `gs://bucket/name`."""
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True)
class ImageRef:
    """One photo: its object, generation and bytes; the size is that of the upright photo (EXIF applied), in pixels.

    `phash` is its perceptual hash, 16 hex digits (see `photos.decode.perceptual_hash`), or empty when there is none.
    `shown` is the address of the copy that people see and draw on, empty for photos that they see as they are. Its size
    in pixels is that of the photo, or `shown_height` and `shown_width` where these are not 0.
    """

    uri: str
    generation: int
    sha256: str
    height: int
    width: int
    phash: str = ""
    shown: str = ""
    shown_height: int = 0
    shown_width: int = 0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Return the (height, width) of what people draw on, in pixels."""
        return self.shown_height or self.height, self.shown_width or self.width


@dataclass(frozen=True)
class PhotoAddress:
    """A photo as task data names it; generation 0 is the object's newest (for tasks that Maskloop did not create).

    A photo on a web server has an `etag` instead.
    """

    uri: str
    generation: int
    etag: str = ""

    @property
    def key(self) -> str:
        """Identify the photo's content; the signature of a web address is left out, because it changes each time."""
        uri, _, query = self.uri.partition("?") if self.uri.startswith("https://") else (self.uri, "", "")
        unsigned = [part for part in query.split("&") if part and not part.lower().startswith(_SIGNATURES)]
        return f"{'?'.join([uri, *filter(None, ['&'.join(unsigned)])])}#{self.etag or self.generation}"


@dataclass(frozen=True)
class PhotoTask:
    """One labeling task of Label Studio: the photo that it shows, with the catalogue's metadata."""

    id: int
    image: ImageRef
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Task(PhotoTask):
    """A labeling task with the model versions of its predictions, and its annotations in numbers."""

    prediction_versions: tuple[str, ...] = ()  # each once
    prediction_count: int = 0
    annotation_count: int = 0
    skipped_count: int = 0  # of these annotations, those submitted with "Skip"
    opened: bool = False  # somebody has a draft or an annotation on it
    is_open: bool = True  # the labeling stream serves it, to one more person where some have drawn it


@dataclass(frozen=True)
class RegionMask:
    """One region, as a click returns it: `mask` is (height, width) bool, `score` 0..1."""

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
    """What a model predicts for one photo, reduced to the regions that are worth showing.

    `mask` is (height, width) uint8, one label id per pixel, 0 = background; `regions` names the ids in it. `score` 0..1
    is the mean probability of the winning class over the pixels that the model predicts as garments, shown or not, or
    over all pixels when it predicts no garment.
    """

    mask: np.ndarray
    regions: tuple[RegionScore, ...]
    score: float
    model_version: str


@dataclass(frozen=True)
class Proposal:
    """The pre-label that an annotation started from, compared with what was submitted.

    `deleted` counts its regions that were deleted; `pixels` holds per label (the empty one is background) how many
    pixels were proposed, how many submitted, and how many both.
    """

    deleted: int
    pixels: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Annotation:
    """One submitted annotation; `raw` is its Label Studio JSON, stored whole because it is the label's only source."""

    uuid: str
    task_id: int
    image: ImageRef
    metadata: Metadata
    annotator: str
    updated_at: datetime
    lead_time_s: float
    cancelled: bool
    prediction_version: str  # model version of the pre-label it started from; empty when drawn from nothing
    raw: "AnnotationJson"
    proposal: Proposal | None = None  # None when it started from none, or from one that no longer exists
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
    paused: str = ""  # why a champion draws no masks for people; empty when it draws them

    @property
    def is_complete(self) -> bool:
        """Return whether the training was completed: all planned steps, or stopped early by its patience."""
        return self.done_steps >= self.planned_steps or self.ended_by == "patience"

    @property
    def served_as(self) -> str:
        """Return the version string that predictions and `/setup` carry, such as `clothing:v3`."""
        return f"{self.name}:v{self.version}"
