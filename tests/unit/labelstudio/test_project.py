"""The project as code: found by title, with the labels that it offers and the backends that it asks."""

import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio.project import find_project, list_backends, project_labels, show_predictions_of
from pipelines.params import Params

PROJECT = "/api/projects/7/"


def test_a_project_is_found_by_title_on_any_page(label_studio, two_labels: Params) -> None:
    first = {"results": [{"id": 1, "title": "something else"}], "next": "page 2"}
    second = {"results": [{"id": 2, "title": two_labels.project.title}], "next": None}
    client, _ = label_studio({"GET /api/projects/": [first, second]})

    assert find_project(client, two_labels) == 2


def test_a_missing_project_names_the_remedy(label_studio, two_labels: Params) -> None:
    client, _ = label_studio({"GET /api/projects/": [{"results": [], "next": None}]})

    with pytest.raises(ServiceError, match="maskloop setup"):
        find_project(client, two_labels)


def test_the_brush_labels_are_those_that_the_project_offers(label_studio) -> None:
    controls = {"tag": {"labels": ["dress", "coat"]}, "point": {"labels": ["of a smart tool"]}}
    client, _ = label_studio({f"GET {PROJECT}": [{"parsed_label_config": controls}, {"parsed_label_config": {}}]})

    assert project_labels(client, 7) == {"coat", "dress"}
    assert project_labels(client, 7) == set(), "a project that somebody created without an interface"


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
