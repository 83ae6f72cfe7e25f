"""Pre-labels photos with the champion: Label Studio's ML backend protocol over `pipelines.segmentation`."""

from functools import partial
from typing import Any

import bentoml

from bentos.protocol import backend_app
from pipelines.labelstudio.backend import batch_answer, parse_request
from pipelines.params import load_params
from pipelines.photos import PhotoReader
from pipelines.records import NO_MODEL
from pipelines.segmentation.champion import Champion
from pipelines.settings import get_settings
from pipelines.storage import connect

app = backend_app("Maskloop segmentation")


@bentoml.service(name="maskloop_segmentation", workers=1, traffic={"timeout": 300})
@bentoml.asgi_app(app, path="/")
class Segmentation:
    """One champion per process, reloaded when the registry's alias moves."""

    def __init__(self) -> None:
        settings = get_settings()
        params = load_params(settings.params_path)
        self.photos = PhotoReader(connect(settings), settings.source_bucket, params.ingest.max_megapixels)
        kept = settings.var / "champion"
        self.champion = Champion(settings.model_name, settings.url("mlflow"), kept, params.prelabel.min_region_share)
        self.champion.follow()

    @app.get("/health")
    def health(self) -> dict[str, str]:
        """Answer as soon as the process serves; Label Studio waits one second for this."""
        return {"status": "UP", "model_version": self.champion.version, "problem": self.champion.problem}

    @app.post("/setup")
    def setup(self) -> dict[str, Any]:
        """Tell Label Studio the version that predictions will carry, and the labels the model knows."""
        return {"model_version": self.champion.version, "labels": self.champion.labels}

    @app.get("/versions")
    def versions(self) -> dict[str, list[str]]:
        """List what can be asked for: the champion."""
        return {"versions": [self.champion.version]}

    @app.post("/reload")
    def reload(self) -> dict[str, Any]:
        """Follow the registry's alias now instead of at the next poll."""
        return {"changed": self.champion.refresh(), **self.health()}

    @app.post("/predict")
    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """Pre-label a batch of tasks; a photo that cannot be read gets no prediction and stops nothing."""
        request = parse_request(body)
        model = self.champion.model
        if model is None:
            return batch_answer([None] * len(request.photos), NO_MODEL)
        predictions, problems = model.predict_each([partial(self.photos.read, photo) for photo in request.photos])
        return {**batch_answer(predictions, model.version), "problems": problems}
