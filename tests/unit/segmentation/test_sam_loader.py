"""Segment Anything comes in the background and always says how far it is."""

import functools
import re
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipelines.segmentation import sam_checkpoints, sam_loader
from pipelines.segmentation.sam import load_sam
from pipelines.segmentation.sam_checkpoints import RemoteFile, file_sha256
from pipelines.segmentation.sam_decoder import save_decoder
from pipelines.segmentation.sam_loader import READY, SamLoader, is_failure
from tests.unit.segmentation.small_sam2 import small_sam2


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint named sam2.1_tiny, in a folder that a web server may serve."""
    folder = tmp_path / "published"
    small_sam2().save_pretrained(folder)
    return folder


@pytest.fixture
def publish(published: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Let the address of the checkpoint be that of a server, or of a port on which nobody listens."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(published))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def at(reachable: bool) -> None:
        port = server.server_port if reachable else free_port
        names = ("config.json", "model.safetensors")
        files = tuple(RemoteFile(n, f"http://127.0.0.1:{port}/{n}", file_sha256(published / n)) for n in names)
        monkeypatch.setitem(sam_checkpoints.OFFICIAL, "sam2.1_tiny", files)

    yield at
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("setting", ["", "none"])
def test_none_starts_nothing(setting: str, tmp_path: Path) -> None:
    loader = SamLoader(setting, tmp_path)
    loader.start()
    assert (loader.segmenter, is_failure(loader.state)) == (None, False)
    assert "MASKLOOP_SAM_CHECKPOINT is none" in loader.state
    assert list(tmp_path.iterdir()) == []


def test_it_is_downloaded_and_loaded_while_others_answer(publish: Callable[[bool], None], tmp_path: Path) -> None:
    publish(True)
    loader = SamLoader("sam2.1_tiny", tmp_path)
    states = {loader.state}
    loader.start()
    assert loader.segmenter is None
    wait_until(lambda: states.add(loader.state) or loader.segmenter is not None)  # type: ignore[func-returns-value]  # `add` gives None
    assert loader.state == READY
    assert loader.segmenter is not None
    assert loader.segmenter.version.startswith("sam:sam2.1_tiny-")
    assert "waiting to be loaded" in states
    assert any(re.fullmatch(r"downloading sam2\.1_tiny-\w{8}(: .+)?", state) for state in states)


def test_a_network_that_is_away_is_no_failure(
    publish: Callable[[bool], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_loader, "_FIRST_PAUSE_S", 0.05)
    publish(False)
    loader = SamLoader("sam2.1_tiny", tmp_path)
    loader.start()
    wait_until(lambda: "cannot be reached" in loader.state)
    assert " is not downloaded yet: 127.0.0.1 cannot be reached" in loader.state
    assert "the next try is in" in loader.state
    assert not is_failure(loader.state)
    loader.stop()


def test_it_is_tried_again_until_the_network_is_back(
    publish: Callable[[bool], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(True)
    real, tries = sam_checkpoints.OFFICIAL["sam2.1_tiny"], []
    pauses: list[float] = []

    from pipelines.segmentation import sam_download

    def failing_first(files: tuple[RemoteFile, ...], *rest: object) -> None:
        tries.append(files)
        away = tuple(RemoteFile(file.name, "http://127.0.0.1:9/", file.sha256) for file in files)
        download(real if len(tries) > 2 else away, *rest)  # type: ignore[arg-type]  # passed on

    download = sam_download.download
    monkeypatch.setattr(sam_download, "download", failing_first)
    loader = SamLoader("sam2.1_tiny", tmp_path)
    monkeypatch.setattr(loader._stopped, "wait", pauses.append)
    loader.start()
    wait_until(lambda: loader.state == READY)
    assert pauses == [5, 10], "each pause is twice the last one"


@pytest.mark.parametrize("setting", ["my-model.pth", "sam_vit_b_01ec64.pth", "owner/model"])
def test_a_setting_that_cannot_be_used_is_a_failure_with_its_reason(setting: str, tmp_path: Path) -> None:
    loader = SamLoader(str(tmp_path / setting), tmp_path)
    loader.start()
    wait_until(lambda: is_failure(loader.state))
    assert setting in loader.state
    assert loader.segmenter is None


def test_the_loaded_model_takes_the_decoder_that_was_tuned_for_it(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = save_decoder(load_sam(str(published), tmp_path), tmp_path / "v1" / "decoder.safetensors", {})
    small_sam2(seed=1).save_pretrained(tmp_path / "other")
    of_another = save_decoder(load_sam(str(tmp_path / "other"), tmp_path), tmp_path / "v2" / "decoder.safetensors", {})
    loader = SamLoader(str(published), tmp_path)
    assert loader.tuned(decoder) is None, "nothing is loaded yet"
    loader.start()
    wait_until(lambda: loader.state == READY)

    first = loader.tuned(decoder)

    assert first is not None
    assert first.version.startswith(f"{loader.segmenter.version}+tuned-")  # type: ignore[union-attr]  # it is loaded
    assert loader.tuned(decoder) is first
    assert loader.tuned(None) is None
    assert [loader.tuned(of_another) for _ in range(2)] == [None, None]
    assert [record.levelname for record in caplog.records if "was tuned for" in record.message] == ["ERROR"]
    assert "tuned" not in loader.segmenter.version  # type: ignore[union-attr]  # it is loaded
