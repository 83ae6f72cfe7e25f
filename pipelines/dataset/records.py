"""Write annotations as JSON and index masks as PNG: equal inputs give equal bytes."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import cv2
import numpy as np
import orjson

from pipelines.errors import DatasetError
from pipelines.records import Annotation, ImageRef, Proposal


def annotation_json(annotation: Annotation) -> bytes:
    """Return an annotation as JSON; equal annotations give equal bytes."""
    fields: dict[str, Any] = {
        "uuid": annotation.uuid,
        "task": annotation.task_id,
        "image": {key: value for key, value in asdict(annotation.image).items() if not key.startswith("shown")},
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
    """Return the annotation that `annotation_json` wrote; raise DatasetError with `source` for anything else."""
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
        raise DatasetError(f"{source} holds no annotation ({error!r}); run `maskloop sync` again") from error


def _proposal(fields: Mapping[str, Any] | None) -> Proposal | None:
    if fields is None:
        return None
    return Proposal(fields["deleted"], {label: tuple(counts) for label, counts in fields["pixels"].items()})


def encode_mask(mask: np.ndarray) -> bytes:
    """Return a (H, W) uint8 index mask as PNG; equal masks give equal bytes."""
    # Rows of an index mask repeat: differences to the row above, run by run, are smaller and quicker than the default.
    settings = [
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
        cv2.IMWRITE_PNG_FILTER,
        cv2.IMWRITE_PNG_FILTER_UP,
    ]
    encoded_ok, encoded = cv2.imencode(".png", mask, settings)
    assert encoded_ok, f"OpenCV cannot encode a {mask.dtype} mask of shape {mask.shape}"
    return encoded.tobytes()


def decode_mask(data: bytes, source: str = "the mask") -> np.ndarray:
    """Return the (H, W) uint8 index mask that `encode_mask` wrote; raise DatasetError with `source` for other data."""
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise DatasetError(f"{source} is missing or no 8-bit index mask; run `dvc pull` or `dvc repro compile`")
    return mask
