"""Answers labelers' clicks: Label Studio's ML backend protocol over `pipelines.segmentation.interactive`."""

import logging
import threading
from functools import partial
from typing import Any

import bentoml

from bentos.protocol import backend_app
from pipelines.errors import MaskloopError, PromptError
from pipelines.gcs.client import EMBEDDINGS, BucketBlobStore, connect
from pipelines.labelstudio.ml_backend import batch_answer, click_answer, empty_answer, parse_prompts, parse_request
from pipelines.params import load_params
from pipelines.photos.reader import PhotoReader
from pipelines.segmentation.batching import Admission
from pipelines.segmentation.interactive import choose_segmenter
from pipelines.services import ask_probabilities
from pipelines.settings import get_settings

# In work at a time, of the forty threads that there are. Photos that must be encoded first take seconds, so they have a
# door of their own: clicks on photos that are ready never queue behind them.
_MOST_CLICKS, _MOST_WAITING = 24, 12

logger = logging.getLogger(__name__)
app = backend_app("Maskloop Segment Anything")


@bentoml.service(name="maskloop_segment_anything", workers=1, traffic={"timeout": 300})
@bentoml.asgi_app(app, path="/")
class SegmentAnything:
    """Segment Anything with an official checkpoint; GrabCut, and it says so, where none can be had."""

    def __init__(self) -> None:
        settings = get_settings()
        params = load_params(settings.params_path)
        client = connect(settings)
        self.photos = PhotoReader(client, settings.source_bucket, params.ingest.max_megapixels, settings.hosts)
        self.door = Admission(_MOST_CLICKS, "clicks")
        self.waiting_room = Admission(_MOST_WAITING, "clicks on photos that are looked at for the first time")
        self.segmenter, self.reason = choose_segmenter(
            settings.sam_checkpoint,
            settings.var / "segment-anything",
            BucketBlobStore(client, settings.target_bucket, EMBEDDINGS),
            partial(ask_probabilities, settings),
        )
        threading.Thread(target=self.segmenter.warm_up, name="warm-up", daemon=True).start()

    @app.get("/health")
    async def health(self) -> dict[str, str]:
        """Answer when the model is loaded; `fallback` says why it is not Segment Anything."""
        return {"status": "UP", "model_version": self.segmenter.version, "fallback": self.reason}

    @app.post("/setup")
    async def setup(self) -> dict[str, str]:
        """Tell Label Studio which segmenter answers."""
        return {"model_version": self.segmenter.version}

    @app.get("/versions")
    async def versions(self) -> dict[str, list[str]]:
        """List what can be asked for: the segmenter in use."""
        return {"versions": [self.segmenter.version]}

    @app.post("/embed")
    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make photos ready for clicks, or, without `compute`, tell which are; one bad photo stops no other."""
        ready, problems = [], {}
        for position, address in enumerate(parse_request(body).photos):
            try:
                found = self.photos.resolve(address)
                if body.get("compute"):
                    self.segmenter.ready(found, partial(self.photos.open, found))
                ready.append(self.segmenter.is_ready(found))
            except MaskloopError as error:
                problems[position] = str(error)
                ready.append(False)
            except Exception as error:  # one photo must not cost the others theirs
                logger.exception("photo %s cannot be encoded", address.uri)
                problems[position] = f"an error of the service itself, see its log: {error!r}"
                ready.append(False)
        return {"ready": ready, "problems": problems}

    @app.post("/predict")
    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one click with one region; a batch has no clicks, so there is nothing to say.

        Whoever draws without masks must not be shown the champion's opinion by a click either, so it is only asked
        where a prediction proposes regions.
        """
        request, version = parse_request(body), self.segmenter.version
        if not request.context or not request.photos:
            return batch_answer([None] * len(request.photos), version)
        address = self.photos.resolve(request.photos[0])
        door = self.door if self.segmenter.is_ready(address) else self.waiting_room
        with door.admitted(1):
            photo = self.segmenter.ready(address, partial(self.photos.open, address), ask_champion=request.shows_masks)
            try:
                prompts = parse_prompts(request.context, photo.height, photo.width)
            except PromptError:
                return empty_answer(version)
            mask, score = photo.segment(prompts)
            return click_answer(mask, prompts.label, score, version)
