"""Photos for both services: only from the source bucket, at their generation, and decoded once."""

import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from time import sleep

import cv2
import numpy as np
import pytest
from google.cloud.storage import Client

from pipelines.errors import DataError, ImageError, StorageError
from pipelines.gcs.client import ensure_bucket, put
from pipelines.photos.reader import PhotoReader
from pipelines.records import ObjectRef, PhotoAddress

BUCKET = "photo-reader"


@pytest.fixture
def bucket(bucket_client: Client) -> Client:
    ensure_bucket(bucket_client, BUCKET)
    return bucket_client


@pytest.fixture
def reader(bucket: Client) -> PhotoReader:
    return PhotoReader(bucket, BUCKET, max_megapixels=1)


def upload(client: Client, name: str, shade: int) -> ObjectRef:
    return put(
        client, BUCKET, name, cv2.imencode(".png", np.full((4, 3, 3), shade, np.uint8))[1].tobytes(), "image/png"
    )


def address_of(ref: ObjectRef) -> PhotoAddress:
    return PhotoAddress(ref.uri, ref.generation)


def pixels(reader: PhotoReader, address: PhotoAddress) -> np.ndarray:
    with reader.open(address) as photo:
        return photo


def test_a_photo_is_read_upright_in_rgb(reader: PhotoReader, bucket: Client) -> None:
    photo = pixels(reader, address_of(upload(bucket, "a.png", 7)))

    assert (photo.shape, photo.dtype) == ((4, 3, 3), np.uint8)
    assert (photo == 7).all()


def test_photos_in_use_stay_within_the_limit_and_wait_for_each_other(bucket: Client) -> None:
    addresses = [address_of(upload(bucket, f"{shade}.png", shade)) for shade in range(6)]
    reader = PhotoReader(bucket, BUCKET, max_megapixels=25e-6)  # two photos of 12 pixels
    inside, most, counting = 0, 0, Lock()

    def use(address: PhotoAddress) -> None:
        nonlocal inside, most
        with reader.open(address):
            with counting:
                inside += 1
                most = max(most, inside)
            sleep(0.02)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(6) as people:
        list(people.map(use, addresses))

    assert most == 2


def test_an_error_while_a_photo_is_in_use_gives_its_place_back(bucket: Client) -> None:
    address = address_of(upload(bucket, "a.png", 1))
    reader = PhotoReader(bucket, BUCKET, max_megapixels=13e-6)
    with pytest.raises(ZeroDivisionError), reader.open(address):
        raise ZeroDivisionError

    assert pixels(reader, address).any()


def test_without_a_generation_the_object_is_read_as_it_is_now(reader: PhotoReader, bucket: Client) -> None:
    address = PhotoAddress(upload(bucket, "now.png", 1).uri, 0)
    before = pixels(reader, address)
    upload(bucket, "now.png", 2)

    assert (before == 1).all()
    assert (pixels(reader, address) == 2).all()


def test_other_buckets_are_out_of_reach(reader: PhotoReader, bucket: Client) -> None:
    ensure_bucket(bucket, "photo-reader-private")
    ref = put(bucket, "photo-reader-private", "a.png", b"secret", "image/png")

    with pytest.raises(StorageError, match=f"not in gs://{BUCKET}"):
        pixels(reader, address_of(ref))


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "http://127.0.0.1/a.png", "file:///etc/passwd", "gs://", f"gs://{BUCKET}/"]
)
def test_what_is_no_photos_address_is_refused(reader: PhotoReader, uri: str) -> None:
    with pytest.raises(DataError, match=r"is no bucket address|names no object"):
        pixels(reader, PhotoAddress(uri, 0))


@pytest.mark.parametrize("uri", ["https://[", "https://h\x00st/a.jpg"])
def test_what_is_no_web_address_is_refused(bucket: Client, uri: str) -> None:
    with pytest.raises((DataError, StorageError)):
        pixels(PhotoReader(bucket, BUCKET, max_megapixels=1, hosts=["h\x00st"]), PhotoAddress(uri, 0))


def test_a_task_without_a_photo_is_told_so(reader: PhotoReader) -> None:
    with pytest.raises(DataError, match="no `image`"):
        pixels(reader, PhotoAddress("", 0))


def test_a_photo_beyond_the_limit_is_refused(bucket: Client) -> None:
    ref = upload(bucket, "large.png", 1)

    with pytest.raises(ImageError, match="megapixels"):
        pixels(PhotoReader(bucket, BUCKET, max_megapixels=0.000_001), address_of(ref))


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A web server with a photo, a redirect and nothing else; gives its address."""
    photo = cv2.imencode(".png", np.full((4, 3, 3), 9, np.uint8))[1].tobytes()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            self.send_response({"/photo.png": 200, "/moved.png": 302}.get(place, 404))
            if place == "/moved.png":
                self.send_header("Location", "/photo.png")
            if place == "/photo.png":
                self.send_header("ETag", '"one"')
                self.send_header("Content-Length", str(len(photo)))
            self.end_headers()
            if place == "/photo.png":
                self.wfile.write(photo)

        def do_HEAD(self) -> None:
            self.send_error(403)  # as for an address that was signed for GET

        def log_message(self, *_: object) -> None: ...

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_photos_of_hosts_that_are_allowed_are_read(web: str, bucket: Client) -> None:
    reader = PhotoReader(bucket, BUCKET, max_megapixels=1, hosts=[web.removeprefix("https://")])

    signed = reader.resolve(PhotoAddress(f"{web}/photo.png?signature=1", 0))
    again = reader.resolve(PhotoAddress(f"{web}/photo.png?signature=2", 0))

    assert (pixels(reader, signed) == 9).all()
    assert signed.key == again.key == f'{web}/photo.png#"one"'


@pytest.mark.parametrize(("path", "words"), [("/moved.png", "HTTP 302"), ("/none.png", "HTTP 404")])
def test_no_redirect_is_followed_and_no_page_is_taken_for_a_photo(
    web: str, bucket: Client, path: str, words: str
) -> None:
    reader = PhotoReader(bucket, BUCKET, max_megapixels=1, hosts=[web.removeprefix("https://")])

    with pytest.raises(StorageError, match=words):
        pixels(reader, PhotoAddress(web + path, 0))


def test_other_hosts_are_out_of_reach_and_signatures_stay_out_of_errors(web: str, reader: PhotoReader) -> None:
    with pytest.raises(StorageError, match="MASKLOOP_IMAGE_HOSTS") as refused:
        pixels(reader, PhotoAddress(f"{web}/photo.png?signature=secret", 0))

    assert "secret" not in str(refused.value)
