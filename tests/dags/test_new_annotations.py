"""The trigger that starts a sync once people have labelled enough."""

import asyncio
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio import pace


@pytest.fixture
def triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    module = importlib.import_module("dags.new_annotations")
    monkeypatch.setattr(module, "POLL_S", 0.0)
    return module


def test_it_fires_when_enough_is_new_whatever_label_studio_does_meanwhile(
    triggers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[int | Exception] = iter([3, ServiceError("Label Studio is down"), 23, 23, 24, 43, 43])

    def count(settings: object) -> tuple[int, int]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer, 20

    monkeypatch.setattr(pace, "count_annotations", count)

    async def first_two() -> list[object]:
        events = triggers.EnoughAnnotations().run()
        return [(await anext(events)).payload for _ in range(2)]

    assert asyncio.run(first_two()) == [{"annotations": 23}, {"annotations": 43}]


def test_the_triggerer_can_make_it_anew(triggers: ModuleType) -> None:
    path, arguments = triggers.EnoughAnnotations().serialize()
    module, _, name = path.rpartition(".")

    assert isinstance(getattr(importlib.import_module(module), name)(**arguments), triggers.EnoughAnnotations)
