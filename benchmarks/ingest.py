"""Two thousand photos of 60 KB from a bucket 30 ms away to tasks, and a look at ten thousand that are tasks already.

Ours is the command `maskloop ingest`, its start included, and its memory the highest RSS seen. The peer is the usual
script: for each photo a client of its own, the bytes, a look at the picture, one task per request. Bucket server and
Label Studio are real.
"""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from PIL import Image
from rich.progress import track

from benchmarks._archive import upload, write_catalog
from benchmarks._service import free_ports
from benchmarks._stack import LocalStack, local_stack
from benchmarks.harness import Row
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import count_tasks
from pipelines.params import load_params
from pipelines.records import ObjectRef
from pipelines.settings import PROJECT_ROOT

_PHOTOS, _MANY = 2000, 10_000
_PAUSE_MS = 30
_SMALL = 40, 30


def run() -> list[Row]:
    """Ingest, let the peer do the same in a project of its own, then fill up and look again."""
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        bucket, labels = gcs.connect(settings), connect(settings)
        project = find_project(labels, load_params(PROJECT_ROOT / "params.yaml"))
        write_catalog(bucket, settings, _MANY)
        photos = upload(bucket, settings, range(_PHOTOS))
        with _far_away(settings.storage_port) as port:
            ours, memory = _ingest(stack, port)
            assert count_tasks(labels, project) == _PHOTOS
            peer = _usual_way(labels, photos, port)
            upload(bucket, settings, range(_PHOTOS, _MANY), _SMALL)
            _ingest(stack, settings.storage_port)
            assert count_tasks(labels, project) == _MANY
            again, again_memory = _ingest(stack, port)
    return [
        Row(f"ingest {_PHOTOS} photos", ours, peer, peer / ours, "s", 1),
        Row("ingest memory (limit 1,000)", memory, None, None, "MB", 1),
        Row(f"re-ingest {_MANY} objects (limit 15)", again, None, None, "s", 1),
        Row("re-ingest memory (limit 1,000)", again_memory, None, None, "MB", 1),
    ]


@contextmanager
def _far_away(server_port: int) -> Iterator[int]:
    """Yield a port at which every request to the bucket server takes longer."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "benchmarks._slow", str(port), str(server_port), str(_PAUSE_MS)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT)
    try:
        time.sleep(1)
        yield port
    finally:
        process.terminate()


def _ingest(stack: LocalStack, port: int) -> tuple[float, float]:
    """Run `maskloop ingest` with the bucket at this port; gives its seconds and its highest RSS in MB."""
    program = str(Path(sys.executable).parent / "maskloop")
    environment = {**os.environ, **stack.environment, "MASKLOOP_STORAGE_PORT": str(port)}
    begin = time.perf_counter()
    process = subprocess.Popen([program, "ingest"], env=environment, cwd=PROJECT_ROOT, stdout=subprocess.PIPE)
    highest = [0.0]

    def watch() -> None:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                highest[0] = max(highest[0], watched.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()
    return time.perf_counter() - begin, highest[0]


def _usual_way(labels: LabelStudioClient, photos: list[ObjectRef], port: int) -> float:
    config = '<View><Image name="image" value="$image"/></View>'
    project = labels.post("/api/projects/", {"title": "The usual way", "label_config": config})["id"]
    options = {"api_endpoint": f"http://127.0.0.1:{port}"}
    begin = time.perf_counter()
    for ref in track(photos, "the usual way", transient=True):
        client = Client(project="maskloop", credentials=AnonymousCredentials(), client_options=options)
        blob = client.get_bucket(ref.bucket).blob(ref.name)
        with Image.open(io.BytesIO(blob.download_as_bytes())) as picture:
            data = {"image": ref.uri, "width": picture.width, "height": picture.height}
        labels.post(f"/api/projects/{project}/import", [{"data": data}])
    return time.perf_counter() - begin
