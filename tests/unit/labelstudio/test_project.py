"""The project as code: found by title, and never used while its labels are not those of params.yaml."""

from typing import Any

import pytest

from pipelines.errors import ContractError, ServiceError
from pipelines.labelstudio.project import find_project, list_backends, require_same_labels, show_predictions_of
from pipelines.params import Params

PROJECT = "/api/projects/7/"


def offering(*labels: str) -> dict[str, Any]:
    return {"parsed_label_config": {"tag": {"labels": list(labels)}, "point": {"labels": ["never looked at"]}}}


def test_a_project_is_found_by_title_on_any_page(label_studio, two_labels: Params) -> None:
    first = {"results": [{"id": 1, "title": "something else"}], "next": "page 2"}
    second = {"results": [{"id": 2, "title": two_labels.project.title}], "next": None}
    client, _ = label_studio({"GET /api/projects/": [first, second]})

    assert find_project(client, two_labels) == 2


def test_a_missing_project_names_the_remedy(label_studio, two_labels: Params) -> None:
    client, _ = label_studio({"GET /api/projects/": [{"results": [], "next": None}]})

    with pytest.raises(ServiceError, match="maskloop setup"):
        find_project(client, two_labels)


def test_equal_labels_pass_in_any_order(label_studio, two_labels: Params) -> None:
    client, _ = label_studio({f"GET {PROJECT}": [offering("dress", "coat")]})

    require_same_labels(client, 7, two_labels)


def test_the_ignore_label_may_be_offered_and_need_not_be(label_studio, two_labels: Params) -> None:
    client, _ = label_studio({f"GET {PROJECT}": [offering("coat", "dress", "unclear")]})

    require_same_labels(client, 7, two_labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("coat", "dress", "cape"), r"only in Label Studio: \['cape'\]; only in params.yaml: none"),
        (("coat",), r"only in Label Studio: none; only in params.yaml: \['dress'\]"),
        ((), r"only in params.yaml: \['coat', 'dress'\]"),
    ],
)
def test_labels_that_differ_are_named(label_studio, two_labels: Params, labels: tuple[str, ...], words: str) -> None:
    client, _ = label_studio({f"GET {PROJECT}": [offering(*labels)]})

    with pytest.raises(ContractError, match=words):
        require_same_labels(client, 7, two_labels)


def test_the_stream_is_pointed_at_a_model_once(label_studio) -> None:
    client, server = label_studio(
        {f"GET {PROJECT}": [{"model_version": "v1"}, {"model_version": "v2"}], f"PATCH {PROJECT}": [{}]}
    )

    show_predictions_of(client, 7, "v2")
    show_predictions_of(client, 7, "v2")

    assert [where for where, _, _ in server.asked] == [f"GET {PROJECT}", f"PATCH {PROJECT}", f"GET {PROJECT}"]
    assert server.asked[1][2] == {"model_version": "v2"}


def test_the_backend_that_pre_labels_comes_first(label_studio) -> None:
    client, _ = label_studio({"GET /api/ml": [[{"id": 9}, {"id": 4}]]})

    assert [backend["id"] for backend in list_backends(client, 7)] == [4, 9]
