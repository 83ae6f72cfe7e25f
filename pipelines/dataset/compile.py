"""DVC stage `compile`: annotations → one index mask per photo, and the table of photos with a row per photo.

Each shard is compiled by itself, and again only when its annotations, the parameters or the code changed.
"""

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from rich.progress import track

from pipelines.dataset import merge_annotators, records, shards
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MASKS, PHOTOS
from pipelines.dataset.merge_annotators import disagreement, merge_masks
from pipelines.dataset.records import encode_mask
from pipelines.errors import AnnotationError, DatasetError
from pipelines.fs import write_atomically
from pipelines.labelstudio import brush_rle, brush_stream, regions, shapes
from pipelines.labelstudio.regions import IMPORTED, CompiledMask, compile_annotation
from pipelines.log import run_stage
from pipelines.params import IGNORE, Params, load_params
from pipelines.photos import decode
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation

logger = logging.getLogger(__name__)
CACHE = Path(".dvc/tmp/compiled")  # in a folder that git and DVC ignore; without it the next run compiles everything
_MAX_BYTES_INLINE = 2_000_000  # of annotation shards; so few are compiled sooner than processes start

Row = dict[str, Any]


@dataclass(frozen=True)
class CompiledShard:
    """The rows of a shard's photos, and why annotations were left out: a line of the log by UUID, and the reason."""

    rows: list[Row]
    problems: list[str]
    left_out: dict[str, str]


def compile_dataset(dataset: Dataset, params: Params) -> pd.DataFrame:
    """Compile a dataset's annotations into its masks and its table of photos; return the table.

    Of several annotations of one photo the newest of each annotator counts (see `newest_per_annotator`), and
    `compile.annotators` names how these are merged. Annotations with planted errors measure annotators and are left
    out. What is odd in an annotation is noted in the column `odd` of its photo. An annotation that cannot be read is
    left out, logged, and noted in data/left_out.json, so that the next review shows its photo.
    """
    dataset.path(MASKS).mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(params)
    keys = {shard: _key(fingerprint, dataset, shard) for shard in dataset.annotations.shards()}
    compiled = {shard: cached for shard, key in keys.items() if (cached := _cached(dataset, shard, key))}
    todo = sorted(keys.keys() - compiled.keys())
    logger.info("%d of %d shards are compiled", len(todo), len(keys))
    compiled |= _compile_shards(dataset, todo, keys, params)
    dataset.masks.drop_others(keys)
    problems = sorted(problem for result in compiled.values() for problem in result.problems)
    for problem in problems:
        logger.warning("%s", problem)
    dataset.write_left_out({uuid: reason for result in compiled.values() for uuid, reason in result.left_out.items()})
    rows = [row for result in compiled.values() for row in result.rows]
    if not rows:
        why = f" ({len(problems)} are left out, such as {problems[0]})" if problems else ""
        raise DatasetError(
            f"there is no usable annotation yet: submit some in Label Studio, then run `maskloop sync`{why}"
        )
    table = pd.DataFrame(rows).sort_values(["uri", "sha256"], ignore_index=True)
    dataset.write_table(PHOTOS, table)
    return table


def _compile_shards(
    dataset: Dataset, todo: Sequence[str], keys: dict[str, str], params: Params
) -> Iterator[tuple[str, CompiledShard]]:
    """Yield compiled shards by name, compiled on all processors when there is much to do."""
    work = partial(_compile_shard, dataset, params=params)
    jobs = [(shard, keys[shard]) for shard in todo]
    if sum(dataset.annotations.path(shard).stat().st_size for shard in todo) <= _MAX_BYTES_INLINE:
        yield from zip(todo, map(work, jobs), strict=True)
        return
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = track(pool.map(work, jobs), "compiling", total=len(todo), transient=True)
        yield from zip(todo, results, strict=True)


def _compile_shard(dataset: Dataset, job: tuple[str, str], params: Params) -> CompiledShard:
    """Write the masks of a shard, and cache the rows of its photos under the key of what they were made from."""
    shard, key = job
    annotations = dataset.annotations.read_shard(shard)
    planted = [annotation for annotation in annotations if annotation.planted]
    if planted:
        logger.info("%d annotations measure the people who drew them and are no part of the dataset", len(planted))
    rows: list[Row] = []
    pngs: dict[str, bytes] = {}
    problems: list[str] = []
    left_out: dict[str, str] = {}
    for photo in newest_per_annotator(annotation for annotation in annotations if not annotation.planted):
        readable, unreadable = _compile_annotations(photo, params)
        for annotation, reason in unreadable:
            who = f"annotation {annotation.uuid} of {annotation.annotator}"
            problems.append(f"{annotation.image.uri}: {who} is left out: {reason}")
        if readable and params.compile.annotators == "latest":  # what was drawn before is replaced, readable or not
            newer = photo[photo.index(readable[-1][0]) :]
            unreadable = [(annotation, reason) for annotation, reason in unreadable if annotation in newer]
        left_out |= {annotation.uuid: reason for annotation, reason in unreadable}
        if readable:
            row, pngs[row["sha256"]] = _merge(readable, [reason for _, reason in unreadable], params)
            rows.append(row)
    dataset.masks.write_shard(shard, pngs)
    result = CompiledShard(rows, problems, left_out)
    fields = {
        "key": key, "masks": dataset.masks.digest(shard), "rows": rows, "problems": problems, "left_out": left_out,
    }  # fmt: skip
    write_atomically(dataset.path(CACHE) / f"{shard}.json", orjson.dumps(fields))
    return result


def _cached(dataset: Dataset, shard: str, key: str) -> CompiledShard | None:
    """Return the result of an earlier run with the same annotations, parameters and code, if its masks are intact."""
    try:
        fields = orjson.loads((dataset.path(CACHE) / f"{shard}.json").read_bytes())
        if fields["key"] == key and fields["masks"] == dataset.masks.digest(shard):
            return CompiledShard(fields["rows"], fields["problems"], fields["left_out"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _key(fingerprint: str, dataset: Dataset, shard: str) -> str:
    return sha256_hex(fingerprint.encode() + dataset.annotations.path(shard).read_bytes())


def _fingerprint(params: Params) -> str:
    """Return a hash of the parameters and the code that masks depend on."""
    modules = (records, shards, decode, merge_annotators, brush_rle, brush_stream, regions, shapes)
    code = [Path(str(module.__file__)).read_bytes() for module in modules]
    settings = [repr(params.region_ids), repr(params.compile), Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256(b"\0".join([*code, *(text.encode() for text in settings)])).hexdigest()


def newest_per_annotator(annotations: Iterable[Annotation]) -> list[tuple[Annotation, ...]]:
    """Return the last updated annotation of each annotator, per photo content, the newest at the end.

    If any annotation of a photo is marked as ground truth, only such ones count; if any was drawn blind, only blind
    ones. Ties go to the larger UUID, so that the order in which annotations are listed never matters.
    """
    photos: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in sorted(annotations, key=lambda annotation: (annotation.updated_at, annotation.uuid)):
        photos[annotation.image.sha256].append(annotation)
    chosen = []
    for of_photo in photos.values():
        for marked in (lambda annotation: bool(annotation.raw.get("ground_truth")), is_drawn_blind):
            of_photo = list(filter(marked, of_photo)) or of_photo
        by_annotator: dict[str, Annotation] = {}
        for annotation in of_photo:
            by_annotator.pop(annotation.annotator, None)  # so that the newest is at the end
            by_annotator[annotation.annotator] = annotation
        chosen.append(tuple(by_annotator.values()))
    return sorted(chosen, key=lambda photo: (photo[-1].image.uri, photo[-1].image.sha256))


def is_drawn_blind(annotation: Annotation) -> bool:
    """Return whether no model drew any of an annotation's regions."""
    return not annotation.prediction_version


def _compile_annotations(
    photo: Sequence[Annotation], params: Params
) -> tuple[list[tuple[Annotation, CompiledMask]], list[tuple[Annotation, str]]]:
    """Return a photo's annotations with their masks, and those that cannot be read with the reason, in their order."""
    readable: list[tuple[Annotation, CompiledMask]] = []
    unreadable: list[tuple[Annotation, str]] = []
    for annotation in photo:
        try:
            readable.append((annotation, compile_annotation(annotation, params)))
        except AnnotationError as error:
            unreadable.append((annotation, str(error).encode(errors="replace").decode()))  # ids may hold anything
    return readable, unreadable


def _merge(
    readable: Sequence[tuple[Annotation, CompiledMask]], unreadable: Sequence[str], params: Params
) -> tuple[Row, bytes]:
    """Return a photo's row and mask (PNG) from its annotations, one per annotator, the newest last.

    `unreadable` says why others of the photo are left out.
    """
    masks = [compiled.mask for _, compiled in readable]
    merged = merge_masks(masks, params.compile.annotators)
    png = encode_mask(merged)
    used = readable[-1:] if params.compile.annotators == "latest" else readable
    disputed = disagreement(masks) if len(masks) > 1 else None
    odd = [note for _, compiled in used for note in compiled.odd]
    odd += [f"an annotation is left out: {reason}" for reason in unreadable]
    return _row(used, merged, png, disputed, params) | {"odd": "; ".join(dict.fromkeys(odd))}, png


def _row(
    used: Sequence[tuple[Annotation, CompiledMask]],
    mask: np.ndarray,
    png: bytes,
    disputed: float | None,
    params: Params,
) -> Row:
    """Return a photo's row; values of the annotations that made the mask are summed up over these."""
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
        "regions_deleted": sum(annotation.proposal.deleted for annotation, _ in used if annotation.proposal),
        "prelabel_pixels": json.dumps(newest.proposal.pixels, sort_keys=True) if newest.proposal else "",
        "overlap_pixels": sum(compiled.overlap_pixels for _, compiled in used),
        **{f"meta_{key}": value for key, value in sorted(newest.metadata.items())},
    }


def _has_imported_regions(annotation: Annotation) -> bool:
    """Return whether an annotation started from an imported mask, which takes less time than drawing it."""
    return any(str(region.get("id", "")).startswith(IMPORTED) for region in annotation.raw["result"])


def main() -> None:
    """Run the stage in the current folder."""
    table = compile_dataset(Dataset(Path.cwd()), load_params(Path("params.yaml")))
    logger.info("compiled %d photos", len(table))


if __name__ == "__main__":
    run_stage("compile", main)
