"""DVC stage `compile`: annotations → one index mask per photo, and the manifest with a row per photo."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines import images
from pipelines.dataset import files
from pipelines.dataset.files import (
    ANNOTATIONS,
    MANIFEST,
    MASKS,
    encode_mask,
    fresh,
    mask_path,
    parse_annotation_json,
)
from pipelines.dataset.memory import Memory, Source, opened
from pipelines.errors import AnnotationError, DatasetError
from pipelines.images import sha256_hex
from pipelines.labelstudio import brush, regions
from pipelines.labelstudio.regions import CompiledMask, compile_regions
from pipelines.log import run_stage
from pipelines.params import Params, load_params
from pipelines.records import Annotation

logger = logging.getLogger(__name__)
_FEW = 64  # annotations that are compiled sooner than processes start
_CHUNK = 16

Row = dict[str, Any]


def compile_dataset(params: Params) -> pd.DataFrame:
    """Compile data/annotations into data/masks and data/manifest.parquet; gives the manifest.

    Of several annotations of one photo the one updated last counts. An annotation that cannot be read is reported, left
    out, and stops nothing. What an earlier run compiled of the same bytes, with the same parameters and code, is
    remembered. Raises ContractError when an annotation has a label that params.yaml does not know: leaving all of these
    out would shrink the dataset silently.
    """
    shutil.rmtree(MASKS, ignore_errors=True)
    MASKS.mkdir(parents=True)
    rows = []
    with opened() as memory:
        chosen = latest_per_photo(read_sources(memory))
        for source, (row, png) in _compiled(chosen, memory, params):
            fresh(mask_path(source.photo)).write_bytes(png)
            rows.append(row)
    if not rows:
        raise DatasetError("there is no usable annotation yet: submit some in Label Studio, then run `maskloop sync`")
    table = pd.DataFrame(rows).sort_values(["uri", "sha256"], ignore_index=True)
    table.to_parquet(fresh(MANIFEST), index=False)
    return table


def read_sources(memory: Memory) -> list[Source]:
    """Read which annotation files there are, parsing those that are new."""
    entries = sorted((e for e in os.scandir(ANNOTATIONS) if e.name.endswith(".json")), key=lambda entry: entry.name)
    sources = []
    for entry in entries:
        stat = entry.stat()
        stamp = f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        source = memory.source(entry.name, stamp)
        if source is None:
            data = Path(entry.path).read_bytes()
            annotation = parse_annotation_json(data, entry.path)
            image, updated_at = annotation.image, annotation.updated_at.isoformat()
            source = Source(annotation.uuid, image.sha256, image.uri, updated_at, sha256_hex(data))
            memory.keep_source(entry.name, stamp, source)
        sources.append(source)
    memory.forget_other_files(entry.name for entry in entries)
    return sources


def latest_per_photo(sources: Iterable[Source]) -> list[Source]:
    """Keep, per photo content, the annotation updated last; ties go to the larger uuid, so that order never matters."""
    latest: dict[str, Source] = {}
    for source in sorted(sources, key=lambda s: (datetime.fromisoformat(s.updated_at), s.uuid)):
        latest[source.photo] = source
    return sorted(latest.values(), key=lambda s: (s.uri, s.photo))


def _compiled(sources: Iterable[Source], memory: Memory, params: Params) -> Iterator[tuple[Source, tuple[Row, bytes]]]:
    """Give rows and masks, from memory or compiled on all processors; those that cannot be compiled are left out."""
    made_by = _fingerprint(params)
    todo = []
    for source in sources:
        if found := memory.mask(made_by + source.digest):
            yield source, found
        else:
            todo.append(source)
    logger.info("%d photos are compiled", len(todo))
    pool = ProcessPoolExecutor(os.cpu_count()) if len(todo) > _FEW else nullcontext()
    with pool:
        work = partial(_compile_one, params=params)
        names = [f"{source.uuid}.json" for source in todo]
        results = pool.map(work, names, chunksize=_CHUNK) if isinstance(pool, ProcessPoolExecutor) else map(work, names)
        for source, result in zip(todo, track(results, "compiling", total=len(todo), transient=True), strict=True):
            if isinstance(result, AnnotationError):
                logger.warning("annotation %s of %s is left out: %s", source.uuid, source.uri, result)
                continue
            memory.keep_mask(made_by + source.digest, *result)
            yield source, result
    memory.forget_unused_masks()


def _compile_one(name: str, params: Params) -> tuple[Row, bytes] | AnnotationError:
    annotation = parse_annotation_json((ANNOTATIONS / name).read_bytes(), name)
    image = annotation.image
    try:
        compiled = compile_regions(
            annotation.raw["result"], params.label_ids, image.height, image.width, params.compile.alpha_threshold
        )
    except AnnotationError as error:
        return error
    png = encode_mask(compiled.mask)
    return _row(annotation, compiled, png, params), png


def _fingerprint(params: Params) -> str:
    """Name the parameters and the code that masks depend on."""
    code = [Path(str(module.__file__)).read_bytes() for module in (files, images, brush, regions)]
    settings = [repr(params.label_ids), repr(params.compile), Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256(b"\0".join([*code, *(one.encode() for one in settings)])).hexdigest()


def _row(annotation: Annotation, compiled: CompiledMask, png: bytes, params: Params) -> Row:
    image = annotation.image
    pixels = np.bincount(compiled.mask.ravel(), minlength=256)
    areas = {name: int(pixels[label_id]) for name, label_id in params.label_ids.items()}
    return {
        "uri": image.uri,
        "generation": image.generation,
        "sha256": image.sha256,
        "height": image.height,
        "width": image.width,
        "mask_sha256": sha256_hex(png),
        "mask_height": compiled.mask.shape[0],
        "mask_width": compiled.mask.shape[1],
        "class_ids": [int(label_id) for label_id in np.flatnonzero(pixels) if label_id],
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
