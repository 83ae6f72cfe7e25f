"""The embedding cache: one encode per photo, three tiers, bounded, and safe against damage and other processes."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StorageError
from pipelines.segmentation.embeddings import Embedding, EmbeddingCache


class DictBlobStore:
    """A blob store in memory; `broken` makes it fail like a bucket that is down."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.broken = False

    def fetch(self, name: str) -> bytes | None:
        if self.broken:
            raise StorageError("the bucket is down")
        return self.held.get(name)

    def store(self, name: str, data: bytes) -> None:
        if self.broken:
            raise StorageError("the bucket is down")
        self.held.setdefault(name, data)


class Encoder:
    """Counts its calls; every photo has its own embedding."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, value: float = 0.5) -> Embedding:
        self.calls += 1
        return Embedding(np.full((4, 2, 2), value, np.float16), 30, 20)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def test_a_photo_is_encoded_once_however_many_click_at_the_same_time(tmp_path: Path, encoder: Encoder) -> None:
    cache, started = EmbeddingCache("w", tmp_path), threading.Barrier(8)

    def click(_: int) -> Embedding:
        started.wait()
        return cache.get("photo", encoder)

    with ThreadPoolExecutor(8) as people:
        embeddings = list(people.map(click, range(8)))
    assert encoder.calls == 1
    assert all(embedding is embeddings[0] for embedding in embeddings)


def test_a_slow_encode_does_not_hold_up_other_photos(tmp_path: Path, encoder: Encoder) -> None:
    cache, go_on, waits = EmbeddingCache("w", tmp_path), threading.Event(), threading.Event()

    def slow() -> Embedding:
        waits.set()
        assert go_on.wait(10)
        return encoder()

    with ThreadPoolExecutor(1) as people:
        first = people.submit(cache.get, "slow", slow)
        waits.wait(10)
        cache.get("quick", encoder)
        assert not first.done()
        go_on.set()
        first.result(10)


def test_it_survives_the_process_and_is_shared_through_the_blob_store(tmp_path: Path, encoder: Encoder) -> None:
    blob_store = DictBlobStore()
    EmbeddingCache("w", tmp_path / "a", blob_store=blob_store).get("photo", lambda: encoder(0.25))
    for folder in ("a", "b"):  # the same disk after a restart, and another machine
        embedding = EmbeddingCache("w", tmp_path / folder, blob_store=blob_store).get("photo", encoder)
        assert (embedding.height, embedding.width) == (30, 20)
        assert embedding.features.dtype == np.float16
        np.testing.assert_array_equal(embedding.features, np.float16(0.25))
    assert encoder.calls == 1


def test_other_weights_have_other_embeddings(tmp_path: Path, encoder: Encoder) -> None:
    EmbeddingCache("vit_b", tmp_path).get("photo", encoder)
    EmbeddingCache("vit_h", tmp_path).get("photo", encoder)
    assert encoder.calls == 2


def test_memory_and_disk_are_bounded(tmp_path: Path, encoder: Encoder) -> None:
    cache = EmbeddingCache("w", tmp_path, max_items=2, max_bytes=2000)
    for number in range(12):
        cache.get(f"photo {number}", encoder)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.npz")) <= 2000
    assert cache.is_ready("photo 11")
    assert not cache.is_ready("photo 0")


def test_a_damaged_file_is_made_again(tmp_path: Path, encoder: Encoder) -> None:
    EmbeddingCache("w", tmp_path).get("photo", encoder)
    [path] = tmp_path.glob("*.npz")
    for damage in (b"", path.read_bytes()[:40], b"PK\x03\x04 nonsense"):
        path.write_bytes(damage)
        EmbeddingCache("w", tmp_path).get("photo", encoder)
    assert encoder.calls == 4


def test_without_the_blob_store_clicks_go_on(tmp_path: Path, encoder: Encoder) -> None:
    blob_store = DictBlobStore()
    blob_store.broken = True
    cache = EmbeddingCache("w", tmp_path, blob_store=blob_store)
    cache.get("photo", encoder)
    assert cache.is_ready("photo")


def test_a_failed_encode_is_tried_again(tmp_path: Path, encoder: Encoder) -> None:
    cache = EmbeddingCache("w", tmp_path)

    def gone() -> Embedding:
        raise StorageError("the photo is gone")

    with pytest.raises(StorageError, match="gone"):
        cache.get("photo", gone)
    cache.get("photo", encoder)
    assert encoder.calls == 1


def test_nothing_half_written_is_left(tmp_path: Path, encoder: Encoder) -> None:
    EmbeddingCache("w", tmp_path).get("photo", encoder)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_disk_that_takes_nothing_costs_no_answer(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "full").write_bytes(b"a file where the folder should be")
    cache = EmbeddingCache("w", tmp_path / "full")

    assert cache.get("photo", encoder).height == 30
    assert cache.get("photo", encoder).height == 30
    assert encoder.calls == 1


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, encoder: Encoder) -> None:
    old, new = tmp_path / ".a.npz.1.2.part", tmp_path / ".b.npz.1.2.part"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))

    EmbeddingCache("w", tmp_path).get("photo", encoder)

    assert (old.exists(), new.exists()) == (False, True)


def test_a_file_of_one_feature_map_is_read_and_more_are_kept(tmp_path: Path) -> None:
    cache, features = EmbeddingCache("w", tmp_path), np.full((4, 2, 2), 0.5, np.float16)
    with (tmp_path / cache.name_of("old")).open("wb") as file:
        np.savez(file, features=features, size=[30, 20])
    old = cache.get("old", lambda: pytest.fail("it is on the disk"))
    assert (old.height, old.width, old.fine) == (30, 20, ())
    fine = np.full((1, 8, 8), 0.25, np.float16), np.full((2, 4, 4), 0.75, np.float16)
    cache.get("new", lambda: Embedding(features, 30, 20, fine))
    again = EmbeddingCache("w", tmp_path).get("new", lambda: pytest.fail("it is on the disk"))
    for kept, given in zip(again.fine, fine, strict=True):
        np.testing.assert_array_equal(kept, given)
