"""Answers labelers' clicks: Label Studio's ML backend protocol over `pipelines.segmentation.interactive`."""

import logging
from typing import Any

import bentoml
from fastapi import Body, FastAPI, HTTPException

from pipelines.errors import DataError, MaskloopError, PromptError
from pipelines.labelstudio.backend import click_answer, empty_answer, image_uri, parse_prompts, parse_request
from pipelines.params import load_params
from pipelines.photos import PhotoReader, generation_of
from pipelines.segmentation.interactive import choose_segmenter
from pipelines.settings import get_settings
from pipelines.storage import connect

logger = logging.getLogger("maskloop.segment_anything")
app = FastAPI(title="Maskloop Segment Anything")


@bentoml.service(name="maskloop_segment_anything", workers=1, traffic={"timeout": 90})
@bentoml.asgi_app(app, path="/")
class SegmentAnything:
    """Segment Anything with an official checkpoint; GrabCut, and it says so, where none can be had."""

    def __init__(self) -> None:
        settings = get_settings()
        params = load_params(settings.params_path)
        self.photos = PhotoReader(connect(settings), settings.source_bucket, params.ingest.max_megapixels)
        self.segmenter, self.reason = choose_segmenter(settings.sam_checkpoint, settings.var / "checkpoints")

    @app.get("/health")
    def health(self) -> dict[str, str]:
        """Answer when the model is loaded; `fallback` says why it is not Segment Anything."""
        return {"status": "UP", "model_version": self.segmenter.version, "fallback": self.reason}

    @app.post("/setup")
    def setup(self) -> dict[str, str]:
        """Tell Label Studio which segmenter answers."""
        return {"model_version": self.segmenter.version}

    @app.get("/versions")
    def versions(self) -> dict[str, list[str]]:
        """List what can be asked for: the segmenter in use."""
        return {"versions": [self.segmenter.version]}

    @app.post("/webhook")
    def webhook(self) -> dict[str, str]:
        """Accept Label Studio's events; nothing is learned from them here."""
        return {"status": "ok"}

    @app.post("/predict")
    def predict(self, body: dict[str, Any] = Body(...)) -> dict[str, Any]:  # noqa: B008
        """Answer one click with one region; without a click (a batch) there is nothing to say."""
        version = self.segmenter.version
        try:
            request = parse_request(body)
            if not request.context or not request.tasks:
                return {"results": [{}] * max(1, len(request.tasks)), "model_version": version}
            uri, generation = image_uri(request.tasks[0]), generation_of(request.tasks[0])
            photo = self.photos.read(uri, generation)
            prompts = parse_prompts(request.context, *photo.shape[:2])
            mask, score = self.segmenter.segment(self.photos.key(uri, generation), lambda: photo, prompts)
        except PromptError as error:
            logger.info("click without a selection: %s", error)
            return empty_answer(version)
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        except MaskloopError as error:
            raise HTTPException(502, str(error)) from error
        return click_answer(mask, prompts.label, score, version)
