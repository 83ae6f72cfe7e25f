"""The champion of a registered model, as a service runs it: polled, cached on disk, replaced without a restart.

The last good model is cached on disk and serves when MLflow is down; a model that cannot be loaded never replaces one
that works. While there is no champion a cold-start model may serve; it is loaded once.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pipelines.errors import MaskloopError, ModelError
from pipelines.fs import write_atomically
from pipelines.models.reader import RegistryReader
from pipelines.records import NO_MODEL

logger = logging.getLogger(__name__)
_POINTER = "champion.txt"  # names the cached copy that served last
_COPIES = "v*"  # folders of cached models, such as v3-0123456789ab
_RETRY_S = 600.0  # a model that cannot be loaded is not downloaded and tried again with every poll


class Card(Protocol):
    """What a model's card says: the pixel value of each label."""

    @property
    def labels(self) -> Mapping[str, int]:
        """Return the pixel value of each label in index masks."""


class ServedModel(Protocol):
    """A model that carries its version, such as `clothing:v3`, and a card."""

    @property
    def version(self) -> str:
        """Return the version that answers carry."""

    @property
    def card(self) -> Card:
        """Return the model's card."""


M = TypeVar("M", bound=ServedModel)


class ChampionPoller(Generic[M]):
    """Polls MLflow for the champion and holds it as `model`, which is None while nothing serves.

    `load` makes a model of its folder and its version, and raises ModelError when the files are damaged. `problem` says
    why the newest champion does not serve; it is empty when it does. Networks are cached in `cache_dir`.
    """

    def __init__(
        self, name: str, tracking_uri: str, cache_dir: Path, load: Callable[[Path, str], M],
        cold_start: Callable[[], M] | None = None,
    ) -> None:  # fmt: skip
        self.model: M | None = None
        self.tags: Mapping[str, str] = {}  # of the champion's version in the registry
        self.problem = ""
        self._registry, self._cache_dir, self._load_folder = RegistryReader(name, tracking_uri), cache_dir, load
        self._cold_start = cold_start
        self._cold_model: M | None = None
        self._failures: dict[str, tuple[MaskloopError, float]] = {}  # by model: its error, and when to try again
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Return the version that predictions carry, or `no-champion`."""
        return self.model.version if self.model else NO_MODEL

    @property
    def labels(self) -> list[str]:
        """Return the labels that the serving model knows."""
        return list(self.model.card.labels) if self.model else []

    def start(self, interval_s: float = 5) -> None:
        """Start to poll every few seconds, in a thread of its own."""
        # The next poll is the retry, and it must come within seconds; MLflow's client would retry for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

        def poll() -> None:
            while True:
                try:
                    self.refresh()
                except Exception as error:  # a full disk, a bug of the registry: the loaded model goes on serving
                    self.problem = f"polling for a new champion failed: {error!r}; the next poll is in a few seconds"
                    logger.exception("polling for a new champion failed")
                time.sleep(interval_s)

        threading.Thread(target=poll, name="champion", daemon=True).start()

    def refresh(self) -> bool:
        """Load the model that the registry's alias points to; returns whether another model serves now."""
        with self._lock:
            before = self.model.version if self.model else ""
            self._serve_last_good()  # first: MLflow's client needs minutes to find out that its server is down
            try:
                self._serve_champion()
                self.problem = ""
            except MaskloopError as error:
                self.problem = str(error)
                logger.warning("%s", error)
            self._serve_cold_start()
            return (self.model.version if self.model else "") != before

    def _serve_champion(self) -> None:
        champion = self._registry.champion()
        if champion is None:
            (self._cache_dir / _POINTER).unlink(missing_ok=True)
            self.model = self._cold_model
            return
        number, self.tags = int(champion.version), dict(champion.tags)
        if self.model is None or self.model.version != self._served_as(number):
            copy = f"v{number}-{str(champion.run_id)[:12]}"  # a version's number alone may be another registry's
            self.model = self._load_or_repeat_error(copy, lambda: self._load(number, copy))
            write_atomically(self._cache_dir / _POINTER, copy.encode())
            self._delete_old_copies(copy)

    def _serve_cold_start(self) -> None:
        if self.model is None and self._cold_start is not None:
            try:
                self.model = self._cold_model = self._load_or_repeat_error("cold start", self._cold_start)
            except MaskloopError as error:
                self.problem = "; ".join(filter(None, (self.problem, str(error))))

    def _serve_last_good(self) -> None:
        pointer = self._cache_dir / _POINTER
        if self.model is not None or not pointer.exists():
            return
        copy = pointer.read_text(encoding="utf-8")
        try:
            self.model = self._load(int(copy.removeprefix("v").partition("-")[0]), copy)
        except (MaskloopError, ValueError):
            logger.exception("the cached model cannot be loaded")

    def _load_or_repeat_error(self, name: str, load: Callable[[], M]) -> M:
        """Load a model; raises the error of the last attempt again until it is time for another one."""
        error, retry_at = self._failures.pop(name, (None, 0.0))
        if error is None or time.monotonic() >= retry_at:
            try:
                return load()
            except MaskloopError as failure:
                error, retry_at = failure, time.monotonic() + _RETRY_S
        self._failures[name] = error, retry_at
        raise error

    def _load(self, number: int, copy: str) -> M:
        """Load a version from its cached copy, which is downloaded when it is missing or damaged."""
        folder, version = self._cache_dir / copy, self._served_as(number)
        if folder.exists():
            try:
                return self._load_folder(folder, version)
            except ModelError as error:
                logger.warning("the cached copy is damaged and is downloaded again: %s", error)
                shutil.rmtree(folder)
        self._download(number, folder)
        return self._load_folder(folder, version)

    def _download(self, number: int, folder: Path) -> None:
        registered = self._registry.version(number)
        if registered is None:
            raise ModelError(
                f"cannot download {self._served_as(number)}: MLflow at {self._registry.url} has it no more"
            )
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache_dir) as part:
            network = self._registry.download_network(number, str(registered.run_id), Path(part))
            shutil.move(network, folder)

    def _delete_old_copies(self, copy: str) -> None:
        """Delete cached models except this one and the one before, which a rollback would ask for."""
        newest = sorted(self._cache_dir.glob(_COPIES), key=lambda path: path.stat().st_mtime)[-2:]
        for path in set(self._cache_dir.glob(_COPIES)) - {*newest, self._cache_dir / copy}:
            shutil.rmtree(path)

    def _served_as(self, number: int) -> str:
        return f"{self._registry.name}:v{number}"
