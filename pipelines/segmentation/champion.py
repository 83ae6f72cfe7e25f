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
from pipelines.records import NO_MODEL
from pipelines.segmentation.clothing import ClothingModel, load_model

logger = logging.getLogger(__name__)
_POINTER = "champion.txt"
_COLD_RETRY_S = 600  # a download that failed is not tried again with every poll


class Champion:
    """Holds the model that serves; `model` is None while there is no champion."""

    def __init__(
        self, name: str, tracking_uri: str, folder: Path, min_region_share: float,
        cold_start: Callable[[], ClothingModel] | None = None,
    ) -> None:  # fmt: skip
        self.model: ClothingModel | None = None
        self.problem = ""  # why the latest champion is not the one that serves; empty when it is
        self._name, self._uri, self._folder, self._share = name, tracking_uri, folder, min_region_share
        self._cold_start, self._cold_retry_at = cold_start, 0.0
        self._cold_model: ClothingModel | None = None
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
            return (self.model.version if self.model else "") != before

    def _follow_registry(self) -> None:
        version = self._champion_version()
        if version is None:
            (self._folder / _POINTER).unlink(missing_ok=True)
            self.model = self._cold_model
            self._load_cold_start()
        elif self.model is None or self.model.version != f"{self._name}:v{version}":
            self.model = self._load(version)
            self._remember(version)
            self._forget_all_but(version)

    def _load_cold_start(self) -> None:
        if self._cold_start is None or self._cold_model or time.monotonic() < self._cold_retry_at:
            return
        self._cold_retry_at = time.monotonic() + _COLD_RETRY_S
        self.model = self._cold_model = self._cold_start()

    def _champion_version(self) -> int | None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            return int(MlflowClient(self._uri).get_model_version_by_alias(self._name, "champion").version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise ModelError(f"cannot ask MLflow at {self._uri} for the champion: {error.message}") from error

    def _load(self, version: int) -> ClothingModel:
        folder = self._folder / f"v{version}"
        name = f"{self._name}:v{version}"
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

    def _remember(self, version: int) -> None:
        part = self._folder / f"{_POINTER}.part"
        part.write_text(str(version), encoding="utf-8")
        part.replace(self._folder / _POINTER)

    def _forget_all_but(self, version: int) -> None:
        """Delete models on disk but this one and the one before, which a roll-back would ask for."""
        kept = sorted(self._folder.glob("v*"), key=lambda path: path.stat().st_mtime)[-2:]
        for path in set(self._folder.glob("v*")) - {*kept, self._folder / f"v{version}"}:
            shutil.rmtree(path)

    def _serve_last_good(self) -> None:
        pointer = self._folder / _POINTER
        if self.model is None and pointer.exists():
            try:
                self.model = self._load(int(pointer.read_text(encoding="utf-8")))
            except (MaskloopError, ValueError):
                logger.exception("the model kept on disk cannot be loaded")
