"""Photos stand in a real browser as they do for us, whatever file they come in: masks are drawn on what it shows."""

import binascii
import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from PIL import Image, PngImagePlugin

from pipelines.photos.decode import decode_image
from scripts.screenshots import chromium

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def file(kind: str, **options: object) -> bytes:
    stored = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(stored, kind, **options)
    return stored.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def raw_profile() -> PngImagePlugin.PngInfo:
    """EXIF as ImageMagick wrote it into PNG files before there was a chunk for it."""
    exif, info = b"Exif\0\0" + turned().tobytes().removeprefix(b"Exif\0\0"), PngImagePlugin.PngInfo()
    text = f"\nexif\n{len(exif):8}\n{binascii.hexlify(exif).decode()}\n"
    info.add_text("Raw profile type exif", text, zip=True)
    return info


FILES = {
    "exif.jpeg": file("JPEG", exif=turned()),
    "xmp.jpeg": file("JPEG", xmp=XMP),
    "plain.jpeg": file("JPEG"),
    "exif.png": file("PNG", exif=turned()),
    "profile.png": file("PNG", pnginfo=raw_profile()),
    "exif.webp": file("WEBP", exif=turned()),
    "lossless.webp": file("WEBP", exif=turned(), lossless=True),
}


@pytest.fixture(scope="module")
def sizes_in_the_browser() -> Iterator[dict[str, list[int]]]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            self.send_response(200)
            self.send_header("Content-Type", f"image/{name.rpartition('.')[2]}" if name in FILES else "text/html")
            self.end_headers()
            self.wfile.write(FILES.get(name, b"<html></html>"))

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    script = """async name => {
        const image = new Image(); image.src = '/' + name; await image.decode();
        return [image.naturalWidth, image.naturalHeight];
    }"""
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        yield {name: page.evaluate(script, name) for name in FILES}
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", FILES)
def test_a_photo_stands_as_in_the_browser(sizes_in_the_browser: dict[str, list[int]], name: str) -> None:
    height, width = decode_image(FILES[name]).shape[:2]

    assert [width, height] == sizes_in_the_browser[name]
