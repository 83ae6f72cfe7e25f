"""Files that mean harm, through ingest and both services: no crash, no hang, no flood, a line that says why."""

import base64
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image, PngImagePlugin

from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.tasks import list_tasks
from pipelines.local_stack import supervisor
from pipelines.params import load_params

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
LONGEST_S = 10
MOST_MB = 1500  # that a service may grow by, whatever it is given; a photo of 100 megapixels takes 300


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, pixels: bytes, kind: int = 2, depth: int = 8, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Compress zeros without ever holding them."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()


def hostile() -> Iterator[tuple[str, bytes]]:
    """Give names and bytes of files that are broken, crafted, disguised or far too large."""
    jpeg, png, webp = saved(noise(1), "JPEG"), saved(noise(2), "PNG"), saved(noise(3), "WEBP")
    signature = png[:8]
    yield "bomb-header.png", png_of(100_000, 100_000, b"")
    yield "bomb-31-bits.png", png_of(2**31 - 1, 2**31 - 1, b"")
    flat = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    yield "bomb-400-megapixels.png", flat + chunk(b"IDAT", zeros(1 << 30)) + chunk(b"IEND", b"")
    small = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    yield "bomb-idat-behind-small-header.png", small + chunk(b"IDAT", zeros(1 << 30)) + chunk(b"IEND", b"")
    text = chunk(b"zTXt", b"comment\x00\x00" + zeros(1 << 29))
    yield "bomb-ztxt.png", png_of(4, 4, bytes(52), 2, 8, text)
    itxt = chunk(b"iTXt", b"comment\x00\x01\x00\x00\x00" + zeros(1 << 29))
    yield "bomb-itxt.png", png_of(4, 4, bytes(52), 2, 8, itxt)
    profile = chunk(b"iCCP", b"profile\x00\x00" + zeros(1 << 29))
    yield "bomb-iccp.png", png_of(4, 4, bytes(52), 2, 8, profile)
    yield "zero-width.png", png_of(0, 10, b"")
    yield "zero-height.png", png_of(10, 0, b"")
    yield "bad-depth.png", png_of(10, 10, bytes(310), 2, 3)
    yield "bad-colour.png", png_of(10, 10, bytes(310), 7)
    yield "palette-missing.png", png_of(10, 10, bytes(110), 3)
    yield "wrong-crc.png", png[:40] + b"\x00" + png[41:]
    yield "no-end.png", png[:-12]
    yield "only-signature.png", signature
    yield "chunk-longer-than-file.png", signature + struct.pack(">I", 2**31 - 1) + b"IHDR"
    yield "negative-chunk.png", signature + struct.pack(">I", 2**32 - 1) + b"IDAT" + bytes(50)
    yield "idat-is-no-zlib.png", png_of(10, 10, b"").replace(zlib.compress(b"", 9), b"\xff" * 8)
    yield "many-frames.png", saved(noise(4), "PNG", save_all=True, append_images=[noise(n) for n in range(5, 9)])
    yield "truncated.jpg", jpeg[: len(jpeg) // 2]
    yield "only-start.jpg", jpeg[:2]
    yield "huge-header.jpg", jpeg.replace(struct.pack(">HH", 30, 40), struct.pack(">HH", 65_500, 65_500), 1)
    yield "zero-header.jpg", jpeg.replace(struct.pack(">HH", 30, 40), struct.pack(">HH", 0, 40), 1)
    yield "bad-huffman.jpg", jpeg.replace(b"\xff\xc4", b"\xff\xc4\x00\x02", 1)
    yield "endless-markers.jpg", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 200_000
    yield "exif-loop.jpg", jpeg[:2] + exif_that_points_to_itself() + jpeg[2:]
    yield "exif-huge-count.jpg", jpeg[:2] + exif_with_count(2**32 - 1) + jpeg[2:]
    yield "progressive-many-scans.jpg", saved(noise(9, 800, 800), "JPEG", progressive=True)[:4000] * 50
    yield "cut.webp", webp[: len(webp) // 2]
    yield "size-lies.webp", webp[:4] + struct.pack("<I", 2**32 - 2) + webp[8:]
    yield "moves.webp", saved(noise(10), "WEBP", save_all=True, append_images=[noise(11)])
    yield "gif.jpg", saved(noise(12), "GIF")
    yield "tiff-bomb.jpg", b"II*\x00" + struct.pack("<I", 8) + b"\xff" * 4000
    yield "bmp.png", saved(noise(13), "BMP")
    for kind in ("TIFF", "AVIF", "JPEG2000"):
        master = saved(noise(16), kind)
        yield f"cut-{kind.lower()}.tif", master[: len(master) // 2]
        yield f"head-{kind.lower()}.tif", master[:40]
    yield (
        "huge-bitmap.bmp",
        saved(noise(17), "BMP").replace(struct.pack("<ii", 40, 30), struct.pack("<ii", 99_999, 99_999), 1),
    )
    yield (
        "heic-of-nothing.heic",
        struct.pack(">I", 24) + b"ftypheic" + bytes(12) + struct.pack(">I", 2**31 - 1) + b"meta" + bytes(64),
    )
    yield "ico.png", saved(noise(14), "ICO")
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(/etc/passwd) (r) file\n"
    yield (
        "svg.jpg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><image href="file:///etc/passwd"/></svg>',
    )
    yield (
        "xml-bomb.jpg",
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b'<!ENTITY b "&a;&a;&a;&a;">' * 50 + b"]><x>&b;</x>",
    )
    yield "page.png", b"<html><script>alert(document.cookie)</script></html>"
    yield "pickle.png", base64.b64decode("gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg==")
    yield "zip.jpg", b"PK\x03\x04" + bytes(1000)
    yield "elf.png", b"\x7fELF" + bytes(1000)
    yield "shell.jpg", b"#!/bin/sh\nrm -rf /\n"
    yield "empty.jpg", b""
    yield "one-byte.png", b"\x89"
    yield "zeros.jpg", bytes(1_000_000)
    yield "noise.png", np.random.default_rng(0).bytes(1_000_000)
    yield "=cmd|' /C calc'!A0.png", b"no photo, and a name that a spreadsheet would calculate"
    yield "..%2F..%2Fetc%2Fpasswd.png", b"no photo, and a name that climbs"
    yield "<img src=x onerror=alert(1)>.png", b"no photo, and a name that is HTML"
    polyglot = PngImagePlugin.PngInfo()
    polyglot.add_text("Comment", "<script>alert(1)</script>")
    yield "polyglot.png", saved(noise(15), "PNG", pnginfo=polyglot) + b"PK\x03\x04<?php system('id'); ?>"


def exif_that_points_to_itself() -> bytes:
    tiff = (
        b"II*\x00"
        + struct.pack("<I", 8)
        + struct.pack("<H", 1)
        + struct.pack("<HHII", 0x8769, 4, 1, 8)
        + struct.pack("<I", 8)
    )
    body = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def exif_with_count(count: int) -> bytes:
    tiff = (
        b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 3, count, 1) + bytes(4)
    )
    body = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


FILES = dict(hostile())
# These are photos all the same, and become tasks: what is odd about them is cut off or not looked at.
HARMLESS = {
    "bad-huffman.jpg", "bmp.png", "bomb-idat-behind-small-header.png", "exif-huge-count.jpg", "exif-loop.jpg",
    "gif.jpg", "no-end.png", "palette-missing.png", "polyglot.png",
}  # fmt: skip


def test_there_are_forty_kinds_at_least() -> None:
    assert len(FILES) >= 40


def test_ingest_sets_each_aside_with_a_reason(make_archive) -> None:
    archive = make_archive("hostile")
    for name, data in FILES.items():
        archive.upload(name, data)
    archive.upload("good.png", saved(noise(99), "PNG"))
    watch = Watch([psutil.Process()])
    with watch:
        begun = time.monotonic()
        report = ingest(archive.bucket, archive.labels, archive.settings, load_params(archive.settings.params_path))
        took = time.monotonic() - begun
    assert took < LONGEST_S + 5, "the catalogue's check alone takes a few seconds"
    assert watch.grown_mb < MOST_MB
    aside = {problem.uri.partition("/photos/")[2]: problem for problem in report.problems}
    tasks = {task.image.uri.partition("/photos/")[2] for task in list_tasks(archive.labels, archive.project)}
    assert "good.png" in tasks
    assert tasks - {"good.png"} == HARMLESS
    assert set(FILES) - set(aside) == tasks - {"good.png"}
    assert all(problem.reason and problem.message for problem in aside.values())
    lines = report.as_csv().decode("utf-8-sig").splitlines()
    assert not any(cell.startswith(("=", "+", "@")) for line in lines for cell in line.split(","))


class Watch:
    """Measures how much memory processes take at most while it looks."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes, self._done = processes, threading.Event()
        self.grown_mb = 0.0

    def __enter__(self) -> "Watch":
        before = self._mb()

        def look() -> None:
            while not self._done.wait(0.05):
                self.grown_mb = max(self.grown_mb, self._mb() - before)

        self._thread = threading.Thread(target=look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _mb(self) -> float:
        return sum(one.memory_info().rss for one in self._processes if one.is_running()) / 1e6


@pytest.mark.parametrize("service", ["segmentation", "segment_anything"])
def test_services_answer_each_in_time_and_live(stack_after_two_rounds, service: str) -> None:
    settings = stack_after_two_rounds.settings
    bucket = gcs.connect(settings)
    pid = supervisor.states(settings)[service.replace("_", "-")][1]
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    login = (settings.service_user, settings.service_password.get_secret_value())
    slow: dict[str, float] = {}
    wrong: dict[str, object] = {}
    with Watch(family) as watch, httpx.Client(base_url=settings.url(service), auth=login, timeout=60) as http:
        for number, (name, data) in enumerate(FILES.items()):
            address = f"hostile/{number}"
            gcs.put(bucket, settings.source_bucket, address, data, "image/png")
            begun = time.monotonic()
            answer = ask(service, http, f"gs://{settings.source_bucket}/{address}")
            if time.monotonic() - begun > LONGEST_S:
                slow[name] = time.monotonic() - begun
            if answer.status_code >= 500:
                wrong[name] = answer.status_code, answer.text[:200]
        assert http.get("/health").json()["status"] == "UP"
    assert (slow, wrong) == ({}, {})
    assert watch.grown_mb < MOST_MB
    assert all(one.is_running() for one in family), "a process of the service died"


def ask(service: str, http: httpx.Client, uri: str) -> httpx.Response:
    task = {"id": 1, "data": {"image": uri}}
    body: dict[str, object] = {"tasks": [task], "label_config": "", "project": "1.1"}
    if service == "segment_anything":
        point = {
            "type": "keypointlabels", "from_name": "point", "to_name": "image", "original_width": 40,
            "original_height": 30, "value": {"x": 50, "y": 50, "keypointlabels": ["coat"]}, "is_positive": True,
        }  # fmt: skip
        body["params"] = {"context": {"result": [point]}}
    return http.post("/predict", json=body)


@pytest.mark.parametrize("service", ["segmentation", "segment_anything"])
def test_requests_that_are_no_requests_are_refused(stack_after_two_rounds, service: str) -> None:
    settings = stack_after_two_rounds.settings
    login = (settings.service_user, settings.service_password.get_secret_value())
    with httpx.Client(base_url=settings.url(service), auth=login, timeout=60) as http:
        refused = [
            http.post("/predict", content=b"{" * 100_000, headers={"Content-Type": "application/json"}),
            http.post(
                "/predict", content=b"[" * 100_000 + b"]" * 100_000, headers={"Content-Type": "application/json"}
            ),
            http.post("/predict", content=b" " * (300 << 20), headers={"Content-Type": "application/json"}),
            http.post("/predict", json={"tasks": [{"data": {"image": "file:///etc/passwd"}}]}),
            http.post("/predict", json={"tasks": [{"data": {"image": "http://169.254.169.254/"}}]}),
            http.post("/predict", json={"tasks": [{"data": {"image": "gs://other/secret.png"}}]}),
            http.post("/predict", content=b"\x80\x04.", headers={"Content-Type": "application/vnd.bentoml+pickle"}),
        ]
        assert [answer.status_code < 500 for answer in refused] == [True] * len(refused), [
            a.status_code for a in refused
        ]
        assert http.get("/health").json()["status"] == "UP"
        unknown = httpx.post(f"{settings.url(service)}/predict", json={"tasks": []})
        assert unknown.status_code == 401
