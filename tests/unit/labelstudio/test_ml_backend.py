"""The ML backend protocol: what Label Studio sends is read, and it always gets an answer it accepts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ContractError, DataError, PromptError
from pipelines.labelstudio.brush_rle import rle_to_mask
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
    require_same_labels_in,
)
from pipelines.labelstudio.render import region_json
from pipelines.params import Params
from pipelines.records import RegionMask

HEIGHT, WIDTH = 200, 100


def point(x: float, y: float, **changes: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["coat"]}
    return {"type": "keypointlabels", "value": value, "is_positive": True, **changes}


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["dress"]}
    return {"type": "rectanglelabels", "value": value}


def click(*regions: Any, **task: Any) -> dict[str, Any]:
    data = {"image": "gs://archive/a.jpg"}
    return {"tasks": [{"id": 1, "data": data, **task}], "params": {"context": {"result": list(regions)}}}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {},
        {"tasks": None},
        {"tasks": {}},
        {"tasks": [1]},
        {"tasks": [{}]},
        {"tasks": [{"data": 1}]},
        {"tasks": {"data": 1}},
        {"tasks": "ab"},
    ],
)
def test_a_body_without_tasks_is_refused(body: Any) -> None:
    with pytest.raises(DataError, match="`tasks` with `data`"):
        parse_request(body)


def test_one_task_may_stand_for_a_list() -> None:
    request = parse_request({"tasks": {"id": 1, "data": {"image": "a"}, "predictions": [PROPOSED]}})

    assert [photo.uri for photo in request.photos] == ["a"]
    assert request.shows_masks


@pytest.mark.parametrize(
    "params",
    [None, 1, {}, {"context": None}, {"context": 1}, {"context": {"result": None}}, {"context": {"result": 5}}],
)
def test_without_a_click_it_is_a_batch(params: Any) -> None:
    request = parse_request({"tasks": [{"data": {"image": "a"}}, {"data": {"image": "b"}}], "params": params})

    assert [photo.uri for photo in request.photos] == ["a", "b"]
    assert request.context == ()


def test_only_smart_prompts_of_a_click_are_read() -> None:
    brush = {"type": "brushlabels", "value": {"rle": "never decoded"}}

    assert parse_request(click(brush, point(1, 1), "noise", box(1, 1, 5, 5))).context == (point(1, 1), box(1, 1, 5, 5))


PROPOSED = {"result": [{"id": "clothing-v1--coat"}], "model_version": "clothing:v1"}


@pytest.mark.parametrize(
    ("task", "shows_masks"),
    [
        ({}, False),
        ({"predictions": []}, False),
        ({"predictions": [{"result": []}]}, False),  # what a photo that is drawn without masks holds
        ({"predictions": [{"result": []}, PROPOSED]}, True),
        ({"predictions": [PROPOSED], "annotations": [PROPOSED]}, True),
        ({"predictions": [], "annotations": [PROPOSED], "drafts": [PROPOSED]}, False),
        ({"predictions": [7, None, {"result": None}, {}]}, False),
        ({"predictions": {"result": [1]}}, False),
    ],
)
def test_whoever_clicks_was_shown_masks_if_a_prediction_proposes_regions(
    task: dict[str, Any], shows_masks: bool
) -> None:
    assert parse_request({"tasks": [{"data": {"image": "a"}, **task}]}).shows_masks == shows_masks


def test_label_studio_itself_is_told_by_what_it_sends_along() -> None:
    tasks = [{"data": {"image": "a"}}]
    assert parse_request({"tasks": tasks, "project": "2.17", "label_config": "<View/>"}).by_label_studio
    assert not parse_request({"tasks": tasks}).by_label_studio


@pytest.mark.parametrize(("x", "y", "pixel"), [(0, 0, (0, 0)), (100, 100, (WIDTH - 1, HEIGHT - 1)), (50, 25, (50, 50))])
def test_percent_become_pixels_inside_of_the_photo(x: float, y: float, pixel: tuple[int, int]) -> None:
    assert parse_prompts([point(x, y)], HEIGHT, WIDTH).point_coords.tolist() == [list(pixel)]


@pytest.mark.parametrize(("x", "y"), [(150, -20), (-0.1, 50), (50, 100.1)])
def test_points_outside_of_the_photo_select_nothing(x: float, y: float) -> None:
    assert parse_prompts([point(x, y), point(50, 25)], HEIGHT, WIDTH).point_coords.tolist() == [[50, 50]]
    for mask in (None, np.ones((HEIGHT, WIDTH), bool)):
        with pytest.raises(PromptError, match="no positive point and no box"):
            parse_prompts([point(x, y)], HEIGHT, WIDTH, mask)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 5000), st.integers(1, 5000))
def test_no_click_leaves_the_photo(x: float, y: float, height: int, width: int) -> None:
    column, row = parse_prompts([point(x, y)], height, width).point_coords[0]

    assert 0 <= column <= width - 1
    assert 0 <= row <= height - 1


def test_a_box_is_read_corner_by_corner() -> None:
    prompts = parse_prompts([box(10, 20, 30, 40)], HEIGHT, WIDTH)

    assert prompts.box.tolist() == [10, 40, 40, 120]
    assert prompts.label == "dress"
    assert prompts.point_coords.shape == (0, 2)


def test_alt_clicks_are_negative_points_and_a_missing_flag_is_positive() -> None:
    untold = {key: value for key, value in point(3, 3).items() if key != "is_positive"}

    prompts = parse_prompts([point(1, 1), point(2, 2, is_positive=False), untold], HEIGHT, WIDTH)

    assert prompts.point_labels.tolist() == [True, False, True]


def test_the_newest_box_counts() -> None:
    assert parse_prompts([box(0, 0, 9, 9), box(50, 50, 10, 10)], HEIGHT, WIDTH).box.tolist() == [50, 100, 60, 120]


def test_a_box_without_area_is_as_good_as_none() -> None:
    assert parse_prompts([box(10, 10, 0, 30), point(5, 5)], HEIGHT, WIDTH).box is None
    with pytest.raises(PromptError, match="no positive point and no box"):
        parse_prompts([box(10, 10, 0.2, 0.2)], HEIGHT, WIDTH)


def test_negative_points_alone_select_nothing() -> None:
    with pytest.raises(PromptError, match="click inside the garment"):
        parse_prompts([point(5, 5, is_positive=False)], HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "region",
    [
        {"type": "keypointlabels"},
        {"type": "keypointlabels", "value": None},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": []}},
        {"type": "keypointlabels", "value": {"x": 1, "keypointlabels": ["coat"]}},
        point("left", 3),
        point(float("nan"), 3),
        box(1, 1, float("inf"), 5),
    ],
)
def test_an_unreadable_prompt_is_named(region: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"region cannot be read.*draw it again"):
        parse_prompts([region], HEIGHT, WIDTH)


@pytest.mark.parametrize(("width", "height"), [(-30, 40), (30, -40), (-30, -40)])
def test_a_box_may_be_dragged_any_way(width: float, height: float) -> None:
    start = 10 + max(0, -width), 20 + max(0, -height)

    assert parse_prompts([box(*start, width, height)], HEIGHT, WIDTH).box.tolist() == [10, 40, 40, 120]


@pytest.mark.parametrize("flag", [0, False, None, ""])
def test_whatever_is_false_is_a_negative_point(flag: Any) -> None:
    prompts = parse_prompts([point(1, 1), point(2, 2, is_positive=flag)], HEIGHT, WIDTH)

    assert prompts.point_labels.tolist() == [True, False]


def smart(kind: str, **value: Any) -> dict[str, Any]:
    return {"type": f"{kind}labels", "value": {**value, f"{kind}labels": ["dress"]}}


class TestOtherShapes:
    """Polygons and ellipses of smart tools are boxes, with their centre as a point."""

    def test_a_polygon_is_the_box_around_it(self) -> None:
        prompts = parse_prompts([smart("polygon", points=[[10, 20], [40, 20], [40, 60], [10, 60]])], HEIGHT, WIDTH)

        assert prompts.box.tolist() == [10, 40, 40, 120]
        assert prompts.point_labels.tolist() == [True]
        np.testing.assert_allclose(prompts.point_coords, [[24.5, 79.5]], atol=1)

    def test_the_centre_of_a_bent_polygon_is_no_point(self) -> None:
        bent = [[10, 20], [60, 20], [60, 25], [15, 25], [15, 70], [10, 70]]

        prompts = parse_prompts([smart("polygon", points=bent)], HEIGHT, WIDTH)

        assert prompts.box.tolist() == [10, 40, 60, 140]
        assert prompts.point_coords.shape == (0, 2)

    def test_an_ellipse_is_the_box_around_it(self) -> None:
        prompts = parse_prompts([smart("ellipse", x=50, y=50, radiusX=20, radiusY=10)], HEIGHT, WIDTH)

        np.testing.assert_allclose(prompts.box, [30, 80, 70, 120], atol=1)
        assert prompts.point_coords.tolist() == [[50, 100]]
        turned = parse_prompts([smart("ellipse", x=50, y=50, radiusX=20, radiusY=5, rotation=90)], HEIGHT, WIDTH)
        np.testing.assert_allclose(turned.box, [40, 80, 60, 120], atol=1)

    def test_the_newest_shape_counts_with_its_own_point_and_clicks_stand_last(self) -> None:
        shapes = [smart("ellipse", x=50, y=50, radiusX=20, radiusY=10), box(0, 0, 10, 10), point(30, 30)]

        assert parse_prompts(shapes, HEIGHT, WIDTH).point_coords.tolist() == [[30, 60]]
        assert parse_prompts(shapes[::-1], HEIGHT, WIDTH).point_coords.tolist() == [[50, 100], [30, 60]]

    @pytest.mark.parametrize(
        "region",
        [
            smart("polygon", points=[[1, 1], [2, 2]]), smart("polygon", points=3), smart("polygon"),
            smart("ellipse", x=1, y=1, radiusX=0, radiusY=1), smart("ellipse", x=1, y=1),
            smart("polygon", points=[[150, 150], [160, 150], [160, 160]]),
            smart("ellipse", x=300, y=300, radiusX=1, radiusY=1), box(150, 150, 10, 10),
        ],
    )  # fmt: skip
    def test_one_that_has_no_area_on_the_photo_selects_nothing(self, region: dict[str, Any]) -> None:
        with pytest.raises(PromptError):
            parse_prompts([region], HEIGHT, WIDTH)

    def test_they_are_prompts_of_a_click(self) -> None:
        shapes = (smart("polygon", points=[]), smart("ellipse", x=1))

        assert parse_request(click(*shapes)).context == shapes


class TestEdits:
    """A click that changes a mask that is there."""

    MASK = np.eye(HEIGHT, WIDTH, dtype=bool)

    def region(self, **changes: Any) -> dict[str, Any]:
        return {**region_json(RegionMask("coat", self.MASK, 0.5), "clothing-v1--coat"), **changes}

    def test_brush_regions_of_the_context_are_what_is_edited(self) -> None:
        request = parse_request(click(self.region(), point(1, 1), self.region(id="b")))

        assert [region["id"] for region in request.edited] == ["clothing-v1--coat", "b"]
        assert request.context == (point(1, 1),)

    def test_a_mask_is_read_at_the_size_of_the_photo(self) -> None:
        np.testing.assert_array_equal(parse_mask(self.region(), HEIGHT, WIDTH), self.MASK)

    @pytest.mark.parametrize(
        "changes",
        [{"original_width": 7}, {"original_height": None}, {"value": None}, {"value": {"rle": [1, 2]}}, {"value": {}},
         {"value": {"rle": "text"}}],
    )  # fmt: skip
    def test_one_of_another_size_or_that_is_damaged_selects_nothing(self, changes: dict[str, Any]) -> None:
        with pytest.raises(PromptError, match="open the photo again"):
            parse_mask(self.region(**changes), HEIGHT, WIDTH)

    @pytest.mark.parametrize(
        ("origin", "expected"),
        [("prediction", "prediction-changed"), ("prediction-changed", "prediction-changed"), ("manual", "manual"),
         (None, "manual")],
    )  # fmt: skip
    def test_the_answer_replaces_the_region_and_says_that_a_person_changed_it(
        self, origin: str | None, expected: str
    ) -> None:
        [region] = click_region(self.MASK, "coat", 0.9, edited=self.region(origin=origin))

        assert (region["id"], region["origin"]) == ("clothing-v1--coat", expected)

    def test_the_page_hears_that_a_click_changed_nothing(self) -> None:
        [changed] = click_region(self.MASK, "coat", 0.9, edited=self.region())
        [unchanged] = click_region(self.MASK, "coat", 0.9, edited=self.region(), unchanged=True)

        assert "meta" not in changed
        assert unchanged["meta"] == {"unchanged": "true"}

    def test_a_region_without_an_id_gets_one(self) -> None:
        [region] = click_region(self.MASK, "coat", 0.9, edited=self.region(id=None))

        assert region["id"] not in ("", "None")

    def test_a_negative_point_alone_takes_away_from_a_mask(self) -> None:
        prompts = parse_prompts([point(5, 5, is_positive=False)], HEIGHT, WIDTH, self.MASK)

        np.testing.assert_array_equal(prompts.mask, self.MASK)
        assert not prompts.redraws

    @pytest.mark.parametrize("shape", [box(1, 1, 50, 50), smart("ellipse", x=50, y=50, radiusX=9, radiusY=9)])
    def test_a_shape_that_comes_last_redraws_the_mask(self, shape: dict[str, Any]) -> None:
        assert parse_prompts([point(5, 5), shape], HEIGHT, WIDTH, self.MASK).redraws
        assert not parse_prompts([shape, point(5, 5)], HEIGHT, WIDTH, self.MASK).redraws


class TestLabels:
    CONFIG = (
        "<View><Image name='photo' value='$url'/><KeyPointLabels name='k' toName='photo'><Label value='hat'/>"
        "</KeyPointLabels><BrushLabels name='garments' toName='photo'><Label value='coat' alias='c'/></BrushLabels>"
        "<BrushLabels name='shoes' toName='photo, other'><Label value='boot'/></BrushLabels></View>"
    )

    def request(self, config: Any) -> PredictRequest:
        return parse_request({"tasks": [{"data": {}}], "label_config": config})

    @pytest.mark.parametrize(
        ("label", "control"),
        [("coat", ("garments", "photo")), ("c", ("garments", "photo")), ("boot", ("shoes", "photo")), ("hat", None),
         ("toga", None), ("dress", None)],
    )  # fmt: skip
    def test_an_answer_has_the_names_of_the_projects_controls(
        self, label: str, control: tuple[str, str] | None
    ) -> None:
        assert self.request(self.CONFIG).control_of(label, {"dress"}) == control

    @pytest.mark.parametrize(
        "config",
        [None, "", "<View/>", "<View", "no XML", 7, {"a": 1}, "<?xml version='1.0' encoding='klingon'?><View/>",
         "<!DOCTYPE v [<!ENTITY e 'x'>]>" + CONFIG, "<View>\x00</View>", "\ud800"],
    )  # fmt: skip
    def test_without_a_brush_in_the_interface_they_are_ours(self, config: Any) -> None:
        request = self.request(config)

        assert request.control_of("dress", {"dress"}) == ("tag", "image")
        assert request.control_of("toga", {"dress"}) is None

    def test_a_region_carries_them(self) -> None:
        [region] = click_region(np.ones((2, 2), bool), "coat", 1.0, ("garments", "photo"))

        assert (region["from_name"], region["to_name"]) == ("garments", "photo")

    def test_prompts_are_told_apart_by_their_labels(self) -> None:
        assert by_label([point(1, 1), box(1, 1, 2, 2), point(3, 3)]) == {
            "coat": [point(1, 1), point(3, 3)], "dress": [box(1, 1, 2, 2)],
        }  # fmt: skip


def test_a_batch_answers_every_task_in_order() -> None:
    seen = {"result": [], "score": 0.5, "model_version": "clothing:v2"}

    answer = batch_answer([None, seen], "clothing:v2")

    assert answer == {
        "results": [{}, seen],
        "model_version": "clothing:v2",
    }


def test_a_click_answers_one_region_that_a_person_asked_for() -> None:
    mask = np.eye(4, 6, dtype=bool)

    (item,) = click_answer(list(click_region(mask, "coat", 0.9)), "sam:vit_b")["results"]

    (region,) = item["result"]
    assert (region["origin"], region["value"]["brushlabels"]) == ("manual", ["coat"])
    np.testing.assert_array_equal(rle_to_mask(region["value"]["rle"], 4, 6), mask)


def test_two_clicks_never_share_a_region_id() -> None:
    regions = [region for _ in range(2) for region in click_region(np.ones((2, 2), bool), "coat", 1.0)]

    assert len({region["id"] for region in regions}) == 2


@pytest.mark.parametrize(
    "answer",
    [
        batch_answer([], "v1"),
        batch_answer([None], "v1"),
        empty_answer("v1"),
        click_answer(list(click_region(np.zeros((3, 3), bool), "coat", 0.1)), "v1"),
    ],
)
def test_results_are_never_an_empty_list(answer: dict[str, Any]) -> None:
    assert len(answer["results"]) == 1
    assert answer["results"][0].get("result", []) == []
    assert answer["model_version"] == "v1"


def test_a_photo_is_named_with_its_generation() -> None:
    ours = {"image": "gs://archive/a.jpg", "generation": "1795384427604770"}

    [photo] = parse_request({"tasks": [{"data": ours}]}).photos

    assert (photo.uri, photo.generation) == ("gs://archive/a.jpg", 1795384427604770)


@pytest.mark.parametrize("data", [{}, {"image": ""}, {"image": None}, {"image": "gs://a/b", "generation": "x"}])
def test_task_data_of_other_programs_is_read_as_far_as_it_goes(data: dict[str, Any]) -> None:
    [photo] = parse_request({"tasks": [{"data": data}]}).photos

    assert photo.uri == (data.get("image") or "")
    assert photo.generation == 0


def setup_body(*labels: str) -> dict[str, Any]:
    offered = "".join(f"<Label value='{label}'/>" for label in labels)
    image = "<Image name='image' value='$image'/>"
    return {"schema": f"<View>{image}<BrushLabels name='tag' toName='image'>{offered}</BrushLabels></View>"}


@pytest.mark.parametrize("offered", [("coat", "dress"), ("coat", "dress", "unclear")])
@pytest.mark.parametrize("known", [(), ("coat",), ("dress", "coat")])
def test_neither_project_nor_model_must_know_the_ignore_label(
    two_labels: Params, offered: tuple[str, ...], known: tuple[str, ...]
) -> None:
    require_same_labels_in(setup_body(*offered), two_labels, known)


@pytest.mark.parametrize(
    ("offered", "known", "words"),
    [
        (("coat", "dress", "cape"), (), r"only in Label Studio: \['cape'\]; only in params.yaml: none"),
        (("coat", "unclear"), (), r"only in Label Studio: none; only in params.yaml: \['dress'\]"),
        (("coat", "dress", "unclear"), ("coat", "unclear"), "labels that params.yaml does not have: unclear"),
        (("coat", "dress"), ("cape",), "labels that params.yaml does not have: cape"),
    ],
)
def test_labels_that_differ_between_project_params_and_model_are_named(
    two_labels: Params, offered: tuple[str, ...], known: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        require_same_labels_in(setup_body(*offered), two_labels, known)


def test_a_click_is_answered_with_the_label_that_the_person_chose() -> None:
    chosen = point(50, 50, value={"x": 50, "y": 50, "keypointlabels": ["unclear"]})

    assert parse_prompts([chosen], HEIGHT, WIDTH).label == "unclear"
