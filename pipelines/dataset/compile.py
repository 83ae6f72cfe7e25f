"""DVC stage `compile`: annotations → one index mask per photo, and the manifest with a row per photo."""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd

from pipelines.dataset.files import (
    ANNOTATIONS,
    MANIFEST,
    MASKS,
    fresh,
    mask_path,
    parse_annotation_json,
    write_mask,
)
from pipelines.errors import AnnotationError, DatasetError
from pipelines.images import sha256_hex
from pipelines.labelstudio.regions import CompiledMask, compile_regions
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.records import Annotation

logger = logging.getLogger(__name__)


def compile_dataset(params: Params) -> pd.DataFrame:
    """Compile data/annotations into data/masks and data/manifest.parquet; gives the manifest.

    Of several annotations of one photo the one updated last counts. An annotation that cannot be read is reported, left
    out, and stops nothing. Raises ContractError when one has a label that params.yaml does not know: leaving
    all of these out would shrink the dataset silently.
    """
    shutil.rmtree(MASKS, ignore_errors=True)
    MASKS.mkdir(parents=True)
    rows = []
    for annotation in latest_per_photo(read_annotations()):
        try:
            compiled = compile_regions(
                annotation.raw["result"],
                params.label_ids,
                annotation.image.height,
                annotation.image.width,
                params.compile.alpha_threshold,
            )
        except AnnotationError as error:
            logger.warning("annotation %s of %s is left out: %s", annotation.uuid, annotation.image.uri, error)
            continue
        png = write_mask(mask_path(annotation.image.sha256), compiled.mask)
        rows.append(_row(annotation, compiled, png, params))
    if not rows:
        raise DatasetError("there is no usable annotation yet: submit some in Label Studio, then run `maskloop sync`")
    table = pd.DataFrame(rows).sort_values("uri", ignore_index=True)
    table.to_parquet(fresh(MANIFEST), index=False)
    return table


def read_annotations() -> list[Annotation]:
    """Read every annotation file in name order."""
    return [parse_annotation_json(path.read_bytes(), str(path)) for path in sorted(ANNOTATIONS.glob("*.json"))]


def latest_per_photo(annotations: list[Annotation]) -> list[Annotation]:
    """Keep, per photo content, the annotation updated last; ties go to the larger uuid, so that order never matters."""
    latest: dict[str, Annotation] = {}
    for annotation in sorted(annotations, key=lambda a: (a.updated_at, a.uuid)):
        latest[annotation.image.sha256] = annotation
    return sorted(latest.values(), key=lambda a: a.image.uri)


def _row(annotation: Annotation, compiled: CompiledMask, png: bytes, params: Params) -> dict[str, object]:
    image = annotation.image
    areas = {name: int((compiled.mask == label_id).sum()) for name, label_id in params.label_ids.items()}
    return {
        "uri": image.uri,
        "generation": image.generation,
        "sha256": image.sha256,
        "height": image.height,
        "width": image.width,
        "mask_sha256": sha256_hex(png),
        "mask_height": compiled.mask.shape[0],
        "mask_width": compiled.mask.shape[1],
        "class_ids": sorted(int(label_id) for label_id in set(compiled.mask.ravel().tolist()) if label_id),
        "label_pixels": json.dumps({name: area for name, area in areas.items() if area}, sort_keys=True),
        "annotation": annotation.uuid,
        "annotator": annotation.annotator,
        "updated_at": annotation.updated_at.isoformat(),
        "lead_time_s": annotation.lead_time_s,
        "prediction_version": annotation.prediction_version,
        "regions_untouched": compiled.origins.get("prediction", 0),
        "regions_changed": compiled.origins.get("prediction-changed", 0),
        "regions_manual": compiled.origins.get("manual", 0),
        "overlap_pixels": compiled.overlap_pixels,
        **{f"meta_{key}": value for key, value in sorted(annotation.metadata.items())},
    }


def main() -> None:
    """Run the stage in the current folder."""
    table = compile_dataset(load_params(Path("params.yaml")))
    logger.info("compiled %d photos", len(table))


if __name__ == "__main__":
    run_stage("compile", main)
