"""Answers labelers' clicks: Label Studio's ML backend protocol over `pipelines.segmentation.interactive`."""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from bentos.protocol import backend_app, require_login
from pipelines.errors import MaskloopError, PromptError
from pipelines.gcs.client import EMBEDDINGS, BucketBlobStore, connect
from pipelines.labelstudio.ml_backend import (
    PredictRequest,
    batch_answer,
    by_label,
    click_answer,
    click_region,
    empty_answer,
    parse_mask,
    parse_prompts,
    parse_request,
)
from pipelines.labelstudio.regions import region_label
from pipelines.labelstudio.schema import RegionJson
from pipelines.models.champion import ChampionPoller
from pipelines.models.reader import ANSWERS
from pipelines.params import load_params
from pipelines.photos.reader import PhotoReader
from pipelines.segmentation.batching import RequestLimiter
from pipelines.segmentation.choice import ChosenSegmenter, describe_measures, parse_answers
from pipelines.segmentation.clicks import ClickModel, load_click_model
from pipelines.segmentation.interactive import GrabCutSegmenter, ImagePredictor, InteractiveSegmenter
from pipelines.segmentation.sam_decoder import DECODER
from pipelines.segmentation.sam_loader import SamLoader
from pipelines.services import ask_probabilities
from pipelines.settings import get_settings

# Requests in work at a time, of the server's forty threads. Photos that must be encoded first take seconds, so they
# have a limit of their own: clicks on encoded photos never wait behind them.
_MAX_CLICKS, _MAX_ENCODES = 24, 12

logger = logging.getLogger(__name__)
app = backend_app("Maskloop Segment Anything")


@require_login
@bentoml.service(name="maskloop_segment_anything", workers=1, traffic={"timeout": 300})
@bentoml.asgi_app(app, path="/")
class SegmentAnything:
    """The segmenters that are there, each for the prompts that it answers best; `/health` says which, and why."""

    def __init__(self) -> None:
        settings = get_settings()
        params = load_params(settings.params_path)
        client = connect(settings)
        self.labels = frozenset(params.region_ids)
        self.photos = PhotoReader(client, settings.source_bucket, params.ingest.max_megapixels, settings.hosts)
        self.features = settings.var / "clicks" / "features"
        self.decoders: dict[str, Path] = {}  # of Segment Anything, by the version of the click model they came with
        self.click_limiter = RequestLimiter(_MAX_CLICKS, "clicks")
        self.encode_limiter = RequestLimiter(_MAX_ENCODES, "clicks on photos that must be encoded first")
        self.sam = SamLoader(
            settings.sam_checkpoint, settings.var / "segment-anything",
            BucketBlobStore(client, settings.target_bucket, EMBEDDINGS),
        )  # fmt: skip
        self.learned = ChampionPoller(
            settings.clicks_model_name, settings.url("mlflow"), settings.var / "clicks", self._load_click_model
        )
        self.segmenter = ChosenSegmenter(
            GrabCutSegmenter(partial(ask_probabilities, settings)), lambda: self.learned.model,
            lambda: self.sam.segmenter, self._tuned_sam, lambda: parse_answers(self.learned.tags.get(ANSWERS, "")),
        )  # fmt: skip
        self.learned.start()
        self.sam.start()

    def _load_click_model(self, folder: Path, version: str) -> ClickModel:
        model = load_click_model(folder, self.features, version)
        model.warm_up()  # clicks wait for neither: the model before it answers meanwhile
        for other in self.features.glob("*"):  # of models before; a rollback encodes photos again
            if other != model.features_folder:
                shutil.rmtree(other, ignore_errors=True)
        self.decoders[version] = folder / DECODER
        return model

    def _tuned_sam(self) -> InteractiveSegmenter | None:
        """Return Segment Anything with the decoder of the click model that serves, where it has one that fits."""
        return self.sam.tuned(self.decoders.get(self.learned.version))

    @app.get("/")
    @app.get("/health")
    async def health(self) -> dict[str, Any]:
        """Return 200 at once; `answers` says who answers which kind of prompts, `fallback` why not Segment Anything."""
        return {
            "status": "UP", "model_version": self.segmenter.version, "answers": self.segmenter.by_kind,
            "fallback": "" if self.sam.segmenter else self.sam.state,
            "clicks": self.learned.problem or self.learned.version,
            "measured": describe_measures(self.learned.tags.get(ANSWERS, "")),
        }  # fmt: skip

    @app.post("/setup")
    async def setup(self) -> dict[str, Any]:
        """Return the segmenters in use, for Label Studio, and who answers which kind of prompts."""
        return {"model_version": self.segmenter.version, "answers": self.segmenter.by_kind}

    @app.get("/versions")
    async def versions(self) -> dict[str, list[str]]:
        """Return the versions that can be asked for: the segmenter in use."""
        return {"versions": [self.segmenter.version]}

    @app.post("/reload")
    def reload(self) -> dict[str, Any]:
        """Poll the registry now; returns whether another click model serves."""
        return {"changed": self.learned.refresh(), "model_version": self.segmenter.version}

    @app.post("/embed")
    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Encode photos before the first click, or, without `compute`, return which are encoded.

        `problems` has a message for each photo that cannot be read; the others are encoded all the same.
        """
        ready, problems = [], {}
        for position, address in enumerate(parse_request(body).photos):
            try:
                resolved = self.photos.resolve(address)
                if body.get("compute"):
                    self.segmenter.prepare(resolved, partial(self.photos.open, resolved))
                ready.append(self.segmenter.is_ready(resolved))
            except MaskloopError as error:
                problems[position] = str(error)
                ready.append(False)
            except Exception as error:  # the other photos of the request are still encoded
                logger.exception("photo %s cannot be encoded", address.uri)
                problems[position] = f"an error of the service itself, see its log: {error!r}"
                ready.append(False)
        return {"ready": ready, "problems": problems}

    @app.post("/predict")
    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one click with a region for each label that was prompted; a batch, which has no clicks, gets no masks.

        A label that the project's labeling interface does not have gets no region. A click whose context holds a brush
        region changes that region, and the answer carries its id. Regions without a click become one region. Whoever
        draws without pre-labels must not see the champion's masks through clicks either, so its probabilities are a
        prior only where a prediction of the task proposes regions.
        """
        request, version = parse_request(body), self.segmenter.version
        if not (request.context or request.edited) or not request.photos:
            return batch_answer([None] * len(request.photos), version)
        address = self.photos.resolve(request.photos[0])
        limiter = self.click_limiter if self.segmenter.is_ready(address) else self.encode_limiter
        with limiter.acquire():
            open_photo = partial(self.photos.open, address)
            predictor = self.segmenter.set_image(address, open_photo, use_prior=request.shows_masks)
            try:
                return self._answer(request, predictor)
            except PromptError:
                return empty_answer(version)

    def _answer(self, request: PredictRequest, predictor: ImagePredictor) -> dict[str, Any]:
        size, version = (predictor.height, predictor.width), self.segmenter.version
        shown = request.click_size(*size)
        masks = [parse_mask(region, *size) for region in request.edited]
        edited = request.edited[0] if request.edited else None
        if edited is not None and not request.context:
            [label] = by_label([edited])
            control = request.control_of(label, self.labels)
            together = click_region(np.any(masks, axis=0), label, 1.0, control, edited, shown) if control else ()
            return click_answer(list(together), version)
        prompted = by_label(request.context)
        of_edited = region_label(edited) if edited is not None else ""
        regions: list[RegionJson] = []
        for label, prompts in prompted.items():
            control = request.control_of(label, self.labels)
            edits = edited is not None and (len(prompted) == 1 or label == of_edited)
            if control is None:
                continue
            before = masks[0] if edits else None
            anew = edited is not None and bool(edited.get("from_clicks"))
            try:
                mask, score = predictor.predict(parse_prompts(prompts, *size, before, from_clicks=anew))
            except PromptError as error:
                logger.info("the prompts of %s select nothing: %s", label, error)
                continue
            unchanged = before is not None and np.array_equal(mask, before)
            regions += click_region(mask, label, score, control, edited if edits else None, shown, unchanged)
        return click_answer(regions, version)
