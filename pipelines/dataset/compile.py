"""DVC stage `compile`: annotations → one index mask per photo, and the table of photos with a row per photo."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.dataset import files
from pipelines.dataset import merge_annotators as merge
from pipelines.dataset.files import (
    ANNOTATIONS,
    MASKS,
    PHOTOS,
    encode_mask,
    fresh,
    make_hold,
    mask_path,
    parse_annotation_json,
)
from pipelines.dataset.memory import Memory, Source, opened
from pipelines.dataset.merge_annotators import disagreement, merge_masks
from pipelines.errors import AnnotationError, DatasetError
from pipelines.labelstudio import brush_rle as brush
from pipelines.labelstudio import regions, shapes
from pipelines.labelstudio.regions import IMPORTED, CompiledMask, compile_annotation
from pipelines.log import run_stage
from pipelines.params import IGNORE, Params, load_params
from pipelines.photos import decode as images
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

logger = logging.getLogger(__name__)
_FEW = 64  # photos that are compiled sooner than processes start
_CHUNK = 16

Row = dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """One photo's row and mask (PNG), or no mask when none of its annotations can be read; `problems` says why."""

    row: Row
    png: bytes
    problems: tuple[str, ...]


def compile_dataset(params: Params) -> pd.DataFrame:
    """Compile data/annotations into data/masks and data/photos.parquet; gives the table.

    Of several annotations of one photo the newest of each annotator counts, or only what somebody marked as ground
    truth, or only what was drawn without a model's masks, and `compile.annotators` says how these are merged.
    Annotations that started from a wrong region put there on purpose measure people and are left out. An annotation
    that cannot be read is reported, left out, and stops nothing. What an earlier run compiled of the same bytes, with
    the same parameters and code, is remembered, and masks that are right already are not touched. Raises ContractError
    when an annotation has a label that params.yaml does not know: leaving all of these out would shrink the dataset
    silently.
    """
    MASKS.mkdir(parents=True, exist_ok=True)
    rows = []
    with opened() as memory:
        for photo, compiled in _compiled(newest_per_annotator(_usable(read_sources(memory))), memory, params):
            for problem in compiled.problems:
                logger.warning("%s: %s", photo[-1].uri, problem)
            if compiled.png:
                make_hold(mask_path(photo[-1].photo), compiled.png)
                rows.append(compiled.row)
    if not rows:
        raise DatasetError("there is no usable annotation yet: submit some in Label Studio, then run `maskloop sync`")
    for stale in {entry.name for entry in os.scandir(MASKS)} - {mask_path(row["sha256"]).name for row in rows}:
        (MASKS / stale).unlink()
    table = pd.DataFrame(rows).sort_values(["uri", "sha256"], ignore_index=True)
    table.to_parquet(fresh(PHOTOS), index=False)
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
            digest = sha256_hex(data)
            source = Source(
                annotation.uuid, image.sha256, image.uri, annotation.annotator, updated_at, digest,
                gold=bool(annotation.raw.get("ground_truth")), blind=not annotation.prediction_version,
                planted=bool(annotation.planted),
            )  # fmt: skip
            memory.keep_source(entry.name, stamp, source)
        sources.append(source)
    memory.forget_other_files(entry.name for entry in entries)
    return sources


def _usable(sources: Sequence[Source]) -> list[Source]:
    usable = [source for source in sources if not source.planted]
    if len(usable) < len(sources):
        logger.info(
            "%d annotations measure the people who drew them and are no part of the dataset", len(sources) - len(usable)
        )
    return usable


def newest_per_annotator(sources: Iterable[Source]) -> list[tuple[Source, ...]]:
    """Give, per photo content, each annotator's annotation updated last, the newest of all at the end.

    Of a photo with ground truth only the annotations that are marked so count, and of a photo that somebody drew blind
    only the blind ones. Ties go to the larger uuid, so that the order in which files are listed never matters.
    """
    usable = list(sources)
    for mark in ("gold", "blind"):
        marked = {source.photo for source in usable if getattr(source, mark)}
        usable = [source for source in usable if getattr(source, mark) or source.photo not in marked]
    photos: dict[str, dict[str, Source]] = {}
    for source in sorted(usable, key=lambda s: (datetime.fromisoformat(s.updated_at), s.uuid)):
        of_photo = photos.setdefault(source.photo, {})
        of_photo.pop(source.annotator, None)  # so that the newest stands at the end
        of_photo[source.annotator] = source
    chosen = [tuple(of_photo.values()) for of_photo in photos.values()]
    return sorted(chosen, key=lambda photo: (photo[-1].uri, photo[-1].photo))


def _compiled(
    photos: Iterable[tuple[Source, ...]], memory: Memory, params: Params
) -> Iterator[tuple[tuple[Source, ...], Compiled]]:
    """Give rows and masks, from memory or compiled on all processors."""
    made_by = _fingerprint(params)
    todo = []
    for photo in photos:
        if found := memory.mask(_key(made_by, photo)):
            yield photo, Compiled(*found, problems=())
        else:
            todo.append(photo)
    logger.info("%d photos are compiled", len(todo))
    pool = ProcessPoolExecutor(os.cpu_count()) if len(todo) > _FEW else nullcontext()
    with pool:
        work = partial(_compile_photo, params=params)
        names = [tuple(f"{source.uuid}.json" for source in photo) for photo in todo]
        results = pool.map(work, names, chunksize=_CHUNK) if isinstance(pool, ProcessPoolExecutor) else map(work, names)
        for photo, result in zip(todo, track(results, "compiling", total=len(todo), transient=True), strict=True):
            if not result.problems:  # these are told again on every run
                memory.keep_mask(_key(made_by, photo), result.row, result.png)
            yield photo, result
    memory.forget_unused_masks()


def _key(made_by: str, photo: tuple[Source, ...]) -> str:
    return hashlib.sha256("".join([made_by, *map(attrgetter("digest"), photo)]).encode()).hexdigest()


def _compile_photo(names: Sequence[str], params: Params) -> Compiled:
    """Compile the annotations in these files, one per annotator, the newest last."""
    readable: list[tuple[Annotation, CompiledMask]] = []
    problems = []
    settings = params.compile
    for name in names:
        annotation = parse_annotation_json((ANNOTATIONS / name).read_bytes(), name)
        try:
            compiled = compile_annotation(annotation, params)
        except AnnotationError as error:
            problems.append(f"annotation {annotation.uuid} of {annotation.annotator} is left out: {error}")
        else:
            readable.append((annotation, compiled))
    if not readable:
        return Compiled({}, b"", tuple(problems))
    masks = [compiled.mask for _, compiled in readable]
    merged = merge_masks(masks, settings.annotators)
    png = encode_mask(merged)
    used = readable[-1:] if settings.annotators == "latest" else readable
    disputed = disagreement(masks) if len(masks) > 1 else None
    return Compiled(_row(used, merged, png, disputed, params), png, tuple(problems))


def _fingerprint(params: Params) -> str:
    """Name the parameters and the code that masks depend on."""
    modules = (files, images, merge, brush, regions, shapes)
    code = [Path(str(module.__file__)).read_bytes() for module in modules]
    settings = [repr(params.region_ids), repr(params.compile), Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256(b"\0".join([*code, *(one.encode() for one in settings)])).hexdigest()


def _row(
    used: Sequence[tuple[Annotation, CompiledMask]],
    mask: np.ndarray,
    png: bytes,
    disputed: float | None,
    params: Params,
) -> Row:
    """Describe a photo; what is said of the annotations that made the mask is summed up over these."""
    newest = used[-1][0]
    image = newest.image
    painted = sorted(frozenset().union(*(compiled.painted for _, compiled in used)))
    # Sorting or counting all values of a mask would take longer than everything else.
    areas = {label_id: area for label_id in painted if (area := int(np.count_nonzero(mask == label_id)))}
    ignored = areas.pop(IGNORE, 0)  # no class
    named = {params.label_names.get(label_id, str(label_id)): area for label_id, area in areas.items()}
    return {
        "uri": image.uri,
        "generation": image.generation,
        "sha256": image.sha256,
        "phash": image.phash,
        "height": image.height,
        "width": image.width,
        "mask_sha256": sha256_hex(png),
        "mask_height": mask.shape[0],
        "mask_width": mask.shape[1],
        "class_ids": list(areas),
        "label_pixels": json.dumps(named, sort_keys=True),
        "ignored_pixels": ignored,
        "annotations": [annotation.uuid for annotation, _ in used],
        "annotators": [annotation.annotator for annotation, _ in used],
        "disagreement": disputed,
        "updated_at": newest.updated_at.isoformat(),
        "lead_time_s": sum(annotation.lead_time_s for annotation, _ in used),
        "prediction_version": newest.prediction_version,
        "blind": not any(annotation.prediction_version for annotation, _ in used),
        "imported": any(_has_imported_regions(annotation) for annotation, _ in used),
        "regions_untouched": sum(compiled.origins.get("prediction", 0) for _, compiled in used),
        "regions_changed": sum(compiled.origins.get("prediction-changed", 0) for _, compiled in used),
        "regions_manual": sum(compiled.origins.get("manual", 0) for _, compiled in used),
        "regions_deleted": sum(one.proposal.deleted for one, _ in used if one.proposal),
        "prelabel_pixels": json.dumps(newest.proposal.pixels, sort_keys=True) if newest.proposal else "",
        "overlap_pixels": sum(compiled.overlap_pixels for _, compiled in used),
        **{f"meta_{key}": value for key, value in sorted(newest.metadata.items())},
    }


def _has_imported_regions(annotation: Annotation) -> bool:
    """Tell whether somebody worked on a mask that other makers had drawn: that takes less time than drawing it."""
    return any(str(region.get("id", "")).startswith(IMPORTED) for region in annotation.raw["result"])


def main() -> None:
    """Run the stage in the current folder."""
    table = compile_dataset(load_params(Path("params.yaml")))
    logger.info("compiled %d photos", len(table))


if __name__ == "__main__":
    run_stage("compile", main)
