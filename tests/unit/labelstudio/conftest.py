"""A Label Studio that answers from a dictionary, for the modules above the client."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pipelines.labelstudio.client import LabelStudioClient


class Answers:
    """Answers each `METHOD path` with its list of JSON values in turn; the last one repeats. Notes what was asked."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = {where: list(values) for where, values in answers.items()}
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        where = f"{request.method} {request.url.path}"
        body = json.loads(request.content) if request.content else None
        self.asked.append((where, dict(request.url.params), body))
        if where not in self.answers:
            return httpx.Response(404, text=f"nothing at {where}")
        values = self.answers[where]
        return httpx.Response(200, json=values.pop(0) if len(values) > 1 else values[0])


@pytest.fixture
def label_studio() -> Callable[[dict[str, list[Any]]], tuple[LabelStudioClient, Answers]]:
    """Make a client of a Label Studio with these answers."""

    def make(answers: dict[str, list[Any]]) -> tuple[LabelStudioClient, Answers]:
        server = Answers(answers)
        transport = httpx.MockTransport(server)
        return LabelStudioClient("http://label-studio.test", "token", transport=transport), server

    return make
