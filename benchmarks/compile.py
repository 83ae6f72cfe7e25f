"""Annotations to masks, against the SDK converter's BRUSH_TO_PNG on the same export.

Photos are drawn, 550×830 pixels, unless MASKLOOP_BENCH_MASKS names a folder of index masks (PNG) with a `labels.csv`
(columns index and label) beside it. Ours ends with one index mask per photo and the manifest; the peer's ends with a
picture per region. That both hold the same pixels is checked.
"""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
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
from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.files import ANNOTATIONS, MASKS, annotation_json, mask_path, read_mask
from pipelines.dataset.memory import PLACE
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
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name, chdir(name):
        tasks = [_annotated(number, mask, params) for number, mask in enumerate(track(masks, "annotations"))]
        export = Path("export.json")
        export.write_text(json.dumps(tasks), encoding="utf-8")
        ours = statistics.median(_full(params) for _ in range(_ROUNDS))
        config = labeling_interface(params)
        converter = Converter(config=config, project_dir=name, download_resources=False)
        Path("png").mkdir()  # the converter leaves that to its caller
        peer = seconds(lambda: converter.convert(str(export), f"{name}/png", "BRUSH_TO_PNG", is_dir=False))
        _require_same_pixels(tasks, masks)
        ours = statistics.median([ours, *(_full(params) for _ in range(_ROUNDS - 1))])
        _annotated(0, np.flipud(masks[0]), params)
        one_new = seconds(lambda: compile_dataset(params))
    return [
        Row(f"compile {len(masks)} photos", ours, peer, peer / ours, "s", 2 * _ROUNDS - 1),
        Row(f"compile {len(masks)} photos, one of them changed", one_new, ours, ours / one_new, "s", 1),
    ]


def _full(params: Params) -> float:
    """Compile everything, as if nothing of it had ever been compiled."""
    PLACE.unlink(missing_ok=True)
    shutil.rmtree(MASKS, ignore_errors=True)  # the first time there are none
    return seconds(lambda: compile_dataset(params))


def _masks(params: Params) -> Iterator[np.ndarray]:
    folder = os.environ.get("MASKLOOP_BENCH_MASKS")
    if not folder:
        yield from (draw_photo(seed, params.label_ids, (830, 550)).mask for seed in track(range(_DRAWN), "photos"))
        return
    table = pd.read_csv(Path(folder).parent / "labels.csv").dropna()
    lookup = np.zeros(256, np.uint8)
    for index, label in zip(table["index"], table["label"], strict=True):
        lookup[int(index)] = params.label_ids.get(str(label), 0)
    for path in sorted(Path(folder).glob("*.png"))[:_MOST]:
        with Image.open(path) as picture:  # a palette's indices, which OpenCV would turn into colours
            yield lookup[np.asarray(picture)]


def _annotated(number: int, mask: np.ndarray, params: Params) -> dict[str, Any]:
    """Write the annotation file of a mask, and give its task as Label Studio exports it."""
    regions = tuple(RegionScore(params.label_names[int(i)], int(i), 1.0) for i in np.unique(mask) if i)
    result = prediction_json(Prediction(mask, regions, 1.0, ""))["result"]
    uuid, now = f"{number:032x}", datetime(2026, 1, 1, tzinfo=UTC)
    image = ImageRef(f"gs://archive/{number}.jpg", 1, sha256_hex(uuid.encode()), *mask.shape)
    raw: AnnotationJson = {
        "id": number + 1, "unique_id": uuid, "result": result, "completed_by": 1, "was_cancelled": False,
        "updated_at": now.isoformat(), "lead_time": 1.0,
    }  # fmt: skip
    annotation = Annotation(uuid, number + 1, image, {}, "ada@example.org", now, 1.0, False, "", raw)
    ANNOTATIONS.mkdir(parents=True, exist_ok=True)
    (ANNOTATIONS / f"{uuid}.json").write_bytes(annotation_json(replace(annotation)))
    return {"id": number + 1, "data": task_data(image, {}), "annotations": [raw]}


def _require_same_pixels(tasks: list[dict[str, Any]], masks: list[np.ndarray]) -> None:
    for task, mask in list(zip(tasks, masks, strict=True))[:_CHECKED]:
        ours = read_mask(mask_path(task["data"]["sha256"]))
        assert np.array_equal(ours, mask)
        theirs = np.zeros(mask.shape, bool)
        for path in Path("png").glob(f"task-{task['id']}-*.png"):
            theirs |= np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 0
        assert np.array_equal(theirs, ours > 0)
