"""Pre-labels photos with the champion: Label Studio's ML backend protocol over `pipelines.segmentation`."""

from functools import partial
from typing import Any

import bentoml

from bentos.protocol import backend_app, require_login
from pipelines.gcs.client import connect
from pipelines.labelstudio.ml_backend import batch_answer, parse_request, require_same_labels_in
from pipelines.labelstudio.render import prediction_json
from pipelines.models.champion import ChampionPoller
from pipelines.params import load_params
from pipelines.photos.reader import PhotoReader
from pipelines.records import NO_MODEL
from pipelines.segmentation.batching import RequestLimiter
from pipelines.segmentation.cold_start import load_cold_start
from pipelines.segmentation.model import load_model
from pipelines.segmentation.transforms import use_single_threaded_opencv
from pipelines.services import pack_probabilities
from pipelines.settings import get_settings

_MAX_PHOTOS = 256  # in work at a time; Label Studio itself sends up to 100 in one request

app = backend_app("Maskloop segmentation")


@require_login
@bentoml.service(name="maskloop_segmentation", workers=1, traffic={"timeout": 300})
@bentoml.asgi_app(app, path="/")
class Segmentation:
    """The champion, reloaded when the registry's alias moves."""

    def __init__(self) -> None:
        use_single_threaded_opencv()
        self.settings = settings = get_settings()
        params = load_params(settings.params_path)
        share = params.prelabel.min_region_share
        client = connect(settings)
        self.photos = PhotoReader(client, settings.source_bucket, params.ingest.max_megapixels, settings.hosts)
        self.limiter = RequestLimiter(_MAX_PHOTOS, "photos")
        classes = params.prelabel.cold_start
        cold_start = partial(load_cold_start, settings.cold_start, classes, params.label_ids, min_region_share=share)
        self.champion = ChampionPoller(
            settings.model_name, settings.url("mlflow"), settings.var / "champion",
            lambda folder, version: load_model(folder, version=version, min_region_share=share),
            cold_start if settings.cold_start else None,
        )  # fmt: skip
        self.champion.start()

    @app.get("/")
    @app.get("/health")
    async def health(self) -> dict[str, str]:
        """Return 200 as soon as the process serves; Label Studio waits one second for this."""
        return {"status": "UP", "model_version": self.champion.version, "problem": self.champion.problem}

    @app.post("/setup")
    async def setup(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the version that predictions will carry and the labels that the model knows, for Label Studio.

        Raises ContractError, which names the labels, when those of the project, params.yaml and the model disagree.
        """
        require_same_labels_in(body, load_params(self.settings.params_path), self.champion.labels)
        return {"model_version": self.champion.version, "labels": self.champion.labels}

    @app.get("/versions")
    async def versions(self) -> dict[str, list[str]]:
        """Return the versions that can be asked for: the champion."""
        return {"versions": [self.champion.version]}

    @app.post("/reload")
    def reload(self) -> dict[str, Any]:
        """Poll the registry now; returns whether another model serves."""
        return {"changed": self.champion.refresh(), "model_version": self.champion.version}

    @app.post("/predict")
    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """Pre-label a batch of tasks; a photo that cannot be read gets no prediction, and the others do.

        Label Studio itself, which asks when somebody opens a task without a prediction, gets none: only the prelabel
        pipeline knows who may see masks of which photo.
        """
        request, model = parse_request(body), self.champion.model
        photos = request.photos
        if model is None or request.by_label_studio:
            return batch_answer([None] * len(photos), model.version if model else NO_MODEL)
        with self.limiter.acquire(len(photos)):
            predictions, problems = self.photos.each(
                photos,
                lambda photo, position: prediction_json(
                    model.predict(photo, request.mask_size(position, *photo.shape[:2]))
                ),
            )
        return {**batch_answer(predictions, model.version), "problems": problems}

    @app.post("/score")
    def score(self, body: dict[str, Any]) -> dict[str, Any]:
        """Score photos without drawing masks; a photo that cannot be read gets None and a problem."""
        photos, model = parse_request(body).photos, self.champion.model
        if model is None:
            return {"scores": [None] * len(photos), "model_version": NO_MODEL, "problems": {}}
        with self.limiter.acquire(len(photos)):
            scores, problems = self.photos.each(photos, lambda photo, _: model.score(photo))
        return {"scores": scores, "model_version": model.version, "problems": problems}

    @app.post("/probabilities")
    def probabilities(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the champion's probabilities of one photo, label by label, for the click service."""
        address, model = parse_request(body).photos[0], self.champion.model
        if model is None:
            return {}
        with self.limiter.acquire(1), self.photos.open(address) as photo:
            return pack_probabilities(model.probabilities(photo), model.card.labels)
