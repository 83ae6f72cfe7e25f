"""Annotations to masks, against the SDK converter's BRUSH_TO_PNG on the same export.

Photos are drawn, 550×830 pixels, unless MASKLOOP_BENCH_MASKS names a folder of index masks (PNG) with a `labels.csv`
(columns index and label) beside it. Ours ends with one index mask per photo and the table of photos; the peer's ends
with a picture per region. That both hold the same pixels is checked. MASKLOOP_BENCH_PHOTOS limits the photos.
"""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from label_studio_sdk.converter import Converter
from PIL import Image
from rich.progress import track

from benchmarks.harness import Row, seconds
from pipelines.dataset.compile import CACHE, compile_dataset
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MASKS
from pipelines.demo.photos import draw_photo
from pipelines.labelstudio.interface import labeling_interface
from pipelines.labelstudio.render import prediction_json
from pipelines.labelstudio.schema import AnnotationJson
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params, load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef, Prediction, RegionScore
from pipelines.settings import PROJECT_ROOT

_DRAWN, _MOST = 100, 700
_CHECKED = 10
_ROUNDS = 3


def run() -> list[Row]:
    """Compare a full compile with the converter, then time one where a single annotation is new."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    masks = list(_masks(params))
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name:
        folder, dataset = Path(name), Dataset(Path(name) / "dataset")
        annotations = [_annotation(number, mask, params) for number, mask in enumerate(track(masks, "annotations"))]
        dataset.annotations.replace(annotations)
        export, pictures = folder / "export.json", folder / "png"
        export.write_text(json.dumps([_task(annotation) for annotation in annotations]), encoding="utf-8")
        pictures.mkdir()  # the converter leaves that to its caller
        converter = Converter(config=labeling_interface(params), project_dir=name, download_resources=False)
        ours = [_full(dataset, params) for _ in range(_ROUNDS)]
        peer = seconds(lambda: converter.convert(str(export), str(pictures), "BRUSH_TO_PNG", is_dir=False))
        _require_same_pixels(dataset, annotations, masks, pictures)
        ours += [_full(dataset, params) for _ in range(_ROUNDS)]
        dataset.annotations.update([_annotation(0, np.flipud(masks[0]), params)], ())
        one_new = seconds(lambda: compile_dataset(dataset, params))
    full = statistics.median(ours)
    return [
        Row(f"compile {len(masks)} photos", full, peer, peer / full, "s", len(ours)),
        Row(f"compile {len(masks)} photos, one of them changed", one_new, full, full / one_new, "s", 1),
    ]


def _full(dataset: Dataset, params: Params) -> float:
    """Compile everything, as if nothing of it had ever been compiled."""
    for path in (CACHE, MASKS):
        shutil.rmtree(dataset.path(path), ignore_errors=True)  # the first time there are none
    return seconds(lambda: compile_dataset(dataset, params))


def _masks(params: Params) -> Iterator[np.ndarray]:
    folder, limit = os.environ.get("MASKLOOP_BENCH_MASKS"), os.environ.get("MASKLOOP_BENCH_PHOTOS")
    if not folder:
        seeds = range(int(limit or _DRAWN))
        yield from (draw_photo(seed, params.label_ids, (830, 550)).mask for seed in track(seeds, "photos"))
        return
    table = pd.read_csv(Path(folder).parent / "labels.csv").dropna()
    lookup = np.zeros(256, np.uint8)
    for index, label in zip(table["index"], table["label"], strict=True):
        lookup[int(index)] = params.label_ids.get(str(label), 0)
    for path in sorted(Path(folder).glob("*.png"))[: int(limit or _MOST)]:
        with Image.open(path) as picture:  # a palette's indices, which OpenCV would turn into colours
            yield lookup[np.asarray(picture)]


def _annotation(number: int, mask: np.ndarray, params: Params) -> Annotation:
    """Return a mask as an annotation."""
    regions = tuple(RegionScore(params.label_names[int(i)], int(i), 1.0) for i in np.unique(mask) if i)
    result = prediction_json(Prediction(mask, regions, 1.0, ""))["result"]
    uuid, now = f"{number:032x}", datetime(2026, 1, 1, tzinfo=UTC)
    image = ImageRef(f"gs://archive/{number}.jpg", 1, sha256_hex(uuid.encode()), *mask.shape)
    raw: AnnotationJson = {
        "id": number + 1, "unique_id": uuid, "result": result, "completed_by": 1, "was_cancelled": False,
        "updated_at": now.isoformat(), "lead_time": 1.0,
    }  # fmt: skip
    return Annotation(uuid, number + 1, image, {}, "ada@example.org", now, 1.0, False, "", raw)


def _task(annotation: Annotation) -> dict[str, Any]:
    """Return an annotation's task as Label Studio exports it."""
    return {"id": annotation.task_id, "data": task_data(annotation.image, {}), "annotations": [annotation.raw]}


def _require_same_pixels(
    dataset: Dataset, annotations: list[Annotation], masks: list[np.ndarray], pictures: Path
) -> None:
    for annotation, mask in list(zip(annotations, masks, strict=True))[:_CHECKED]:
        compiled = dataset.read_mask(annotation.image.sha256)
        assert np.array_equal(compiled, mask)
        drawn = np.zeros(mask.shape, bool)
        for path in pictures.glob(f"task-{annotation.task_id}-*.png"):
            drawn |= np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 0
        assert np.array_equal(drawn, compiled > 0)
