"""Names and shapes of the files in a dataset workspace; stages and stations read and write them only through here.

data/annotations/<uuid>.json   one annotation as Label Studio gave it, with its photo's identity
data/images/<sha256>           the photo's bytes at its generation; named by content, never by object name
data/masks/<sha256>.png        index mask of the upright photo, uint8, 0 = background
data/photos.parquet            one row per photo
data/before.parquet            the last published version's manifest; no bytes before there was one
data/manifest.parquet          data/photos.parquet with the group and the side of each photo
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pandas as pd

from pipelines.errors import DatasetError
from pipelines.fs import write_atomically
from pipelines.records import Annotation, ImageRef, Proposal

ANNOTATIONS = Path("data/annotations")
IMAGES = Path("data/images")
MASKS = Path("data/masks")
PHOTOS = Path("data/photos.parquet")
BEFORE = Path("data/before.parquet")
MANIFEST = Path("data/manifest.parquet")
NO_PHOTOS = b""  # data/before.parquet of the first version
CHECKS = Path("data/checks.json")
START = Path("data/start")  # the network that a training goes on from, if it does
MODEL = Path("model")
CURVES = Path("curves.csv")
METRICS = Path("metrics.json")
REPORT = Path("report")
PROPOSALS = Path("proposals.json")  # which of the model's regions pay; travels beside the weights
STEPS = MODEL / "training.json"  # how many steps were planned and done, and what the training started from
TRAINING = Path("training")  # checkpoints of a training that is not done


def image_path(sha256: str) -> Path:
    """Name the file of a photo's bytes."""
    return IMAGES / sha256


def mask_path(sha256: str) -> Path:
    """Name the file of a photo's index mask."""
    return MASKS / f"{sha256}.png"


def fresh(path: Path) -> Path:
    """Give the path with its folder made and any old file gone.

    DVC may have linked the old file into its cache: writing into it would damage the version that is kept there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def make_hold(path: Path, data: bytes) -> bool:
    """Make a file hold these bytes; False, and it is not touched, when it already does."""
    if path.exists() and path.read_bytes() == data:
        return False
    write_atomically(path, data)
    return True


def read_before() -> pd.DataFrame | None:
    """Read the last published version's manifest; None before there was one."""
    return pd.read_parquet(BEFORE) if BEFORE.stat().st_size else None


def annotation_json(annotation: Annotation) -> bytes:
    """Serialise an annotation; the same annotation always gives the same bytes."""
    fields: dict[str, Any] = {
        "uuid": annotation.uuid,
        "task": annotation.task_id,
        "image": asdict(annotation.image),
        "metadata": dict(annotation.metadata),
        "annotator": annotation.annotator,
        "updated_at": annotation.updated_at.isoformat(),
        "lead_time_s": annotation.lead_time_s,
        "prediction_version": annotation.prediction_version,
        "proposal": asdict(annotation.proposal) if annotation.proposal else None,
        **({"planted": annotation.planted} if annotation.planted else {}),
        "raw": annotation.raw,
    }
    return (json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def parse_annotation_json(data: bytes, source: str) -> Annotation:
    """Read what `annotation_json` wrote; raises DatasetError naming `source`."""
    try:
        fields: Mapping[str, Any] = orjson.loads(data)  # brush strokes are long lists
        return Annotation(
            uuid=fields["uuid"],
            task_id=fields["task"],
            image=ImageRef(**fields["image"]),
            metadata=fields["metadata"],
            annotator=fields["annotator"],
            updated_at=datetime.fromisoformat(fields["updated_at"]),
            lead_time_s=fields["lead_time_s"],
            cancelled=False,
            prediction_version=fields["prediction_version"],
            raw=fields["raw"],
            proposal=_proposal(fields.get("proposal")),
            planted=fields.get("planted", ""),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source} is no annotation file ({error!r}); run `maskloop sync` again") from error


def _proposal(fields: Mapping[str, Any] | None) -> Proposal | None:
    if fields is None:
        return None
    return Proposal(fields["deleted"], {label: tuple(counts) for label, counts in fields["pixels"].items()})


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a (H, W) uint8 index mask as PNG; equal masks give equal bytes."""
    # Rows of an index mask repeat: differences to the row above, run by run, are smaller and quicker than the default.
    settings = [
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
        cv2.IMWRITE_PNG_FILTER,
        cv2.IMWRITE_PNG_FILTER_UP,
    ]
    done, encoded = cv2.imencode(".png", mask, settings)
    assert done, f"OpenCV cannot encode a {mask.dtype} mask of shape {mask.shape}"
    return encoded.tobytes()


def decode_mask(data: bytes, what: str = "the mask") -> np.ndarray:
    """Decode the (H, W) uint8 index mask that `encode_mask` wrote; raises DatasetError naming `what` is damaged."""
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise DatasetError(f"{what} is missing or no 8-bit index mask; run `dvc pull` or `dvc repro compile`")
    return mask


def read_mask(path: Path) -> np.ndarray:
    """Read a (H, W) uint8 index mask; raises DatasetError when the file is missing or damaged."""
    return decode_mask(path.read_bytes() if path.exists() else b"", str(path))
