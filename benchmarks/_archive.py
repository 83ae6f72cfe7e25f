"""An archive of photos and annotations as large as a benchmark wants it, in a real bucket and a real Label Studio."""

import io
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from google.cloud.storage import Client
from PIL import Image
from rich.progress import track

from pipelines.demo.photos import draw_photo
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.render import prediction_json
from pipelines.labelstudio.schema import RegionJson
from pipelines.labelstudio.tasks import list_tasks, task_data
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import CATALOG_COLUMNS, ImageRef, ObjectRef, Prediction, RegionScore
from pipelines.settings import Settings

HEIGHT, WIDTH = 830, 550
DRAWN = 50  # label maps, which many photos share
_IMPORTED_AT_ONCE = 100
_UPLOADS = 16


def regions_of_drawings(params: Params) -> list[list[RegionJson]]:
    """Draw label maps and return their regions as annotations hold them."""
    results = []
    for seed in track(range(DRAWN), "label maps", transient=True):
        mask = draw_photo(seed, params.label_ids, (HEIGHT, WIDTH)).mask
        regions = tuple(RegionScore(params.label_names[int(i)], int(i), 1.0) for i in np.unique(mask) if i)
        results.append(prediction_json(Prediction(mask, regions, 1.0, ""))["result"])
    return results


def upload(
    bucket: Client, settings: Settings, numbers: Sequence[int], size: tuple[int, int] = (HEIGHT, WIDTH)
) -> list[ObjectRef]:
    """Upload photos of (height, width) pixels, 60 KB at the default size; their bytes and hashes differ."""
    gcs.set_pool_size(bucket, _UPLOADS)

    def one(number: int) -> ObjectRef:
        noise = np.random.default_rng(number).integers(0, 255, (size[0] // 10, size[1] // 10, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize(size[::-1]).save(file, "JPEG", quality=88)
        return gcs.put(bucket, settings.source_bucket, f"photos/{number}.jpg", file.getvalue(), "image/jpeg")

    with ThreadPoolExecutor(_UPLOADS) as pool:
        return list(track(pool.map(one, numbers), "photos", total=len(numbers), transient=True))


def write_catalog(bucket: Client, settings: Settings, count: int) -> None:
    """Write a catalogue with a row per photo; twenty photos are a collection."""
    rows = "".join(",".join([str(number), *_details(number).values()]) + "\n" for number in range(count))
    gcs.put(
        bucket, settings.source_bucket, settings.catalog, f"{','.join(CATALOG_COLUMNS)}\n{rows}".encode(), "text/csv"
    )


def _details(number: int) -> dict[str, str]:
    """Return a photo's catalogue data, which its task shows as well: all columns but the id."""
    return {
        column: f"c{number // 20}" if column == "collection" else f"{column} {number}" for column in CATALOG_COLUMNS[1:]
    } | {"year": "1999"}


def annotate_new(
    bucket: Client, labels: LabelStudioClient, project: int, photos: Sequence[ObjectRef], results: Sequence[Any]
) -> None:
    """Make an annotated task of each photo, as an import of finished work does."""
    tasks = []
    for number, ref in enumerate(photos):
        image = ImageRef(ref.uri, ref.generation, sha256_hex(gcs.read(bucket, ref)), HEIGHT, WIDTH)
        metadata = _details(int(PurePosixPath(ref.name).stem))
        result = results[number % len(results)]
        tasks.append({"data": task_data(image, metadata), "annotations": [{"result": result}]})
    for start in track(range(0, len(tasks), _IMPORTED_AT_ONCE), "tasks", transient=True):
        labels.post(f"/api/projects/{project}/import", tasks[start : start + _IMPORTED_AT_ONCE])


def change(labels: LabelStudioClient, project: int, results: Sequence[Any], first: int, count: int) -> None:
    """Draw the annotations of `count` tasks anew, from the `first` on."""
    for number, task in enumerate(list(list_tasks(labels, project))[first : first + count]):
        [annotation] = labels.get(f"/api/tasks/{task.id}/annotations/")
        other = results[(task.id + number + 7) % len(results)]
        labels.patch(f"/api/annotations/{annotation['id']}/", {"result": other})


def age(settings: Settings) -> None:
    """Date tasks back, a minute apart: a project whose tasks all moved within this minute is no usual one."""
    [database] = (settings.var / "label-studio").glob("*.sqlite3")
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        back = "'-' || (1440 + id) || ' minutes'"
        connection.execute(f"UPDATE task SET updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at, {back})")
