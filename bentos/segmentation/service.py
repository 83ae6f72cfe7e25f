"""Pre-labels photos with the champion: Label Studio's ML backend protocol over `pipelines.segmentation`."""

import logging
import os
import threading
import time
from typing import Any

import bentoml
from fastapi import Body, FastAPI, HTTPException

from pipelines.errors import DataError, MaskloopError
from pipelines.labelstudio.backend import batch_answer, image_uri, parse_request
from pipelines.params import load_params
from pipelines.photos import PhotoReader, generation_of
from pipelines.records import Prediction
from pipelines.segmentation.champion import Champion
from pipelines.settings import get_settings
from pipelines.storage import connect

logger = logging.getLogger("maskloop.segmentation")
app = FastAPI(title="Maskloop segmentation")
NO_MODEL = "no-champion"
POLL_SECONDS = 5


@bentoml.service(name="maskloop_segmentation", workers=1, traffic={"timeout": 90})
@bentoml.asgi_app(app, path="/")
class Segmentation:
    """One champion per process, reloaded when the registry's alias moves."""

    def __init__(self) -> None:
        settings = get_settings()
        params = load_params(settings.params_path)
        self.photos = PhotoReader(connect(settings), settings.source_bucket, params.ingest.max_megapixels)
        # The champion is asked for every few seconds: the next poll is the retry, and it must come within seconds.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        kept = settings.var / "champion"
        self.champion = Champion(settings.model_name, settings.url("mlflow"), kept, params.prelabel.min_region_share)
        self.busy = threading.Lock()  # one batch at a time: torch already uses every thread it was given
        threading.Thread(target=self._follow_champion, daemon=True).start()

    def _follow_champion(self) -> None:
        while True:
            self.champion.refresh()
            time.sleep(POLL_SECONDS)

    @app.get("/health")
    def health(self) -> dict[str, str]:
        """Answer as soon as the process serves; Label Studio waits one second for this."""
        return {"status": "UP", "model_version": self._version(), "problem": self.champion.problem}

    @app.post("/setup")
    def setup(self) -> dict[str, Any]:
        """Tell Label Studio the version that predictions will carry, and the labels the model knows."""
        model = self.champion.model
        return {"model_version": self._version(), "labels": list(model.card.labels) if model else []}

    @app.get("/versions")
    def versions(self) -> dict[str, list[str]]:
        """List what can be asked for: the champion."""
        return {"versions": [self._version()]}

    @app.post("/webhook")
    def webhook(self) -> dict[str, str]:
        """Accept Label Studio's events; the sync DAG reads the state itself."""
        return {"status": "ok"}

    @app.post("/reload")
    def reload(self) -> dict[str, Any]:
        """Follow the registry's alias now instead of at the next poll."""
        return {"changed": self.champion.refresh(), "model_version": self._version(), "problem": self.champion.problem}

    @app.post("/predict")
    def predict(self, body: dict[str, Any] = Body(...)) -> dict[str, Any]:  # noqa: B008
        """Pre-label a batch of tasks; a photo that cannot be read gets no prediction and stops nothing."""
        try:
            request = parse_request(body)
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        model = self.champion.model
        if model is None:
            return batch_answer([None] * len(request.tasks), NO_MODEL)
        answers: list[Prediction | None] = []
        problems = {}
        for position, data in enumerate(request.tasks):
            try:
                photo = self.photos.read(image_uri(data), generation_of(data))
                with self.busy:
                    answers += model.predict([photo])
            except MaskloopError as error:
                logger.warning("no prediction for %s: %s", data.get("image"), error)
                problems[position] = str(error)
                answers.append(None)
        return {**batch_answer(answers, model.version), "problems": problems}

    def _version(self) -> str:
        return self.champion.model.version if self.champion.model else NO_MODEL
