"""When enough was labelled for a sync of its own."""

import httpx
import pytest

from pipelines.labelstudio import pace
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.pace import Pace, count_annotations
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT, Settings


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        pytest.param([0, 5, 25, 25], [False, False, False, True], id="once-nobody-adds-to-it"),
        pytest.param(
            [0, 25, 26, 27, 28, 29], [False, False, False, False, True, False], id="or-after-three-more-looks"
        ),
        pytest.param([100, 100, 119, 119], [False] * 4, id="what-was-there-before-does-not-count"),
        pytest.param([100, 120, 120, 120], [False, False, True, False], id="once-only"),
        pytest.param([0, 20, 20, 40, 40], [False, False, True, False, True], id="and-again"),
        pytest.param([50, 10, 29, 29, 30, 30], [False] * 5 + [True], id="from-anew-after-some-were-deleted"),
    ],
)
def test_it_is_enough(totals: list[int], said: list[bool]) -> None:
    looks = Pace()

    assert [looks.is_enough(total, 20) for total in totals] == said


def test_annotations_are_counted_by_label_studio_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    params: Params = load_params(PROJECT_ROOT / "params.yaml")
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.path == "/api/projects/3/":
            return httpx.Response(200, json={"total_annotations_number": 41})
        return httpx.Response(200, json={"results": [{"id": 3, "title": params.project.title}], "next": None})

    client = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(pace, "connect", lambda settings: client)
    settings = Settings(_env_file=None, var=PROJECT_ROOT / "nowhere")  # type: ignore[call-arg]  # pydantic-settings' own argument
    monkeypatch.setattr(pace, "load_params", lambda path: params)

    assert count_annotations(settings) == (41, params.retrain.min_new_annotations)
    assert asked[-1].endswith("?include=total_annotations_number")
