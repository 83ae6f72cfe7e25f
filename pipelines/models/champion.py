"""The champion as the service sees it: polled from MLflow, kept on disk, swapped without a restart.

The last good model stays on disk and serves when MLflow is down; a model that cannot be loaded never replaces one that
works. While there is no champion a cold-start model may serve, loaded once.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import MaskloopError, ModelError
from pipelines.fs import write_atomically
from pipelines.records import NO_MODEL
from pipelines.segmentation.model import ClothingModel, load_model

logger = logging.getLogger(__name__)
_POINTER = "champion.txt"
_RETRY_S = 600.0  # a model that cannot be loaded is not downloaded and tried again with every poll


class Champion:
    """Holds the model that serves; `model` is None while there is no champion."""

    def __init__(
        self, name: str, tracking_uri: str, folder: Path, min_region_share: float,
        cold_start: Callable[[], ClothingModel] | None = None,
    ) -> None:  # fmt: skip
        self.model: ClothingModel | None = None
        self.problem = ""  # why the latest champion is not the one that serves; empty when it is
        self._name, self._uri, self._folder, self._share = name, tracking_uri, folder, min_region_share
        self._cold_start = cold_start
        self._cold_model: ClothingModel | None = None
        self._failures: dict[str, tuple[MaskloopError, float]] = {}  # by model: why, and when it is tried again
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Give the version that predictions carry, or `no-champion`."""
        return self.model.version if self.model else NO_MODEL

    @property
    def labels(self) -> list[str]:
        """Give the labels that the serving model knows."""
        return list(self.model.card.labels) if self.model else []

    def follow(self, every_s: float = 5) -> None:
        """Look for a new champion every few seconds, in a thread of its own."""
        # The next look is the retry, and it must come within seconds; MLflow's client would retry for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

        def look() -> None:
            while True:
                try:
                    self.refresh()
                except Exception as error:  # a full disk, a registry's bug: the model at hand goes on serving
                    self.problem = f"looking for a new champion failed: {error!r}; it is tried again every few seconds"
                    logger.exception("looking for a new champion failed")
                time.sleep(every_s)

        threading.Thread(target=look, name="champion", daemon=True).start()

    def refresh(self) -> bool:
        """Bring the model in line with the registry's alias; True when another model serves now."""
        with self._lock:
            before = self.model.version if self.model else ""
            self._serve_last_good()  # first: MLflow's client needs minutes to find out that its server is down
            try:
                self._follow_registry()
                self.problem = ""
            except MaskloopError as error:
                self.problem = str(error)
                logger.warning("%s", error)
            self._serve_cold_start()
            return (self.model.version if self.model else "") != before

    def _follow_registry(self) -> None:
        found = self._champion_version()
        if found is None:
            (self._folder / _POINTER).unlink(missing_ok=True)
            self.model = self._cold_model
        elif self.model is None or self.model.version != f"{self._name}:v{found[0]}":
            self.model = self._loaded(found[1], lambda: self._load(*found))
            self._remember(found[1])
            self._forget_all_but(found[1])

    def _serve_cold_start(self) -> None:
        if self.model is None and self._cold_start is not None:
            try:
                self.model = self._cold_model = self._loaded("cold start", self._cold_start)
            except MaskloopError as error:
                self.problem = "; ".join(filter(None, (self.problem, str(error))))

    def _loaded(self, what: str, load: Callable[[], ClothingModel]) -> ClothingModel:
        """Load a model, or say again why it could not be loaded the last time."""
        error, again_at = self._failures.pop(what, (None, 0.0))
        if error is None or time.monotonic() >= again_at:
            try:
                return load()
            except MaskloopError as failure:
                error, again_at = failure, time.monotonic() + _RETRY_S
        self._failures[what] = error, again_at
        raise error

    def _champion_version(self) -> tuple[int, str] | None:
        """Give the champion's version and the name of its copy on disk, which its run makes unmistakable."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            found = MlflowClient(self._uri).get_model_version_by_alias(self._name, "champion")
            return int(found.version), f"v{found.version}-{str(found.run_id)[:12]}"
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise ModelError(f"cannot ask MLflow at {self._uri} for the champion: {error.message}") from error

    def _load(self, version: int, copy: str) -> ClothingModel:
        folder, name = self._folder / copy, f"{self._name}:v{version}"
        if folder.exists():
            try:
                return load_model(folder, version=name, min_region_share=self._share)
            except ModelError as error:
                logger.warning("the copy on disk is damaged and is downloaded again: %s", error)
                shutil.rmtree(folder)
        self._download(version, folder)
        return load_model(folder, version=name, min_region_share=self._share)

    def _download(self, version: int, folder: Path) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as part:
            try:
                client = MlflowClient(self._uri)
                run = str(client.get_model_version(self._name, str(version)).run_id)
                found = Path(client.download_artifacts(run, "network", part))
            except (MlflowException, OSError) as error:
                raise ModelError(f"cannot download {self._name} version {version} from MLflow: {error}") from error
            shutil.move(found, folder)

    def _remember(self, copy: str) -> None:
        write_atomically(self._folder / _POINTER, copy.encode())

    def _forget_all_but(self, copy: str) -> None:
        """Delete models on disk but this one and the one before, which a roll-back would ask for."""
        kept = sorted(self._folder.glob("v*"), key=lambda path: path.stat().st_mtime)[-2:]
        for path in set(self._folder.glob("v*")) - {*kept, self._folder / copy}:
            shutil.rmtree(path)

    def _serve_last_good(self) -> None:
        pointer = self._folder / _POINTER
        if self.model is not None or not pointer.exists():
            return
        copy = pointer.read_text(encoding="utf-8")
        try:
            self.model = self._load(int(copy.removeprefix("v").partition("-")[0]), copy)
        except (MaskloopError, ValueError):
            logger.exception("the model kept on disk cannot be loaded")
