"""Instances from an annotation's regions, in step with the mask."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import arrays

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS
from pipelines.dataset.records import annotation_json
from pipelines.exchange.instances import find_annotation, find_instances, parts_as_instances
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import AnnotationJson
from pipelines.params import IGNORE, Params
from pipelines.records import Annotation, RegionMask

COAT, DRESS = 3, 7
LEFT, RIGHT, WHOLE, MIDDLE = np.s_[:, :8], np.s_[:, 12:], np.s_[:, :], np.s_[10:15, :]
Draw = Callable[..., Annotation]


@pytest.fixture(scope="session")
def draw(annotate: Callable[..., Annotation]) -> Draw:
    """Make an annotation of a 30×20 photo with these regions, each a label and a part of the photo, drawn in order."""

    def make(*regions: tuple[str, Any], uuid: str = "look") -> Annotation:
        masks = []
        for label, part in regions:
            mask = np.zeros((30, 20), bool)
            mask[part] = True
            masks.append(RegionMask(label, mask, 1.0))
        result = [region_json(region, f"region-{number}") for number, region in enumerate(masks)]
        return with_result(annotate(uuid, {}), result)

    return make


def with_result(annotation: Annotation, result: Any) -> Annotation:
    return replace(annotation, raw=cast(AnnotationJson, {"result": result}))


def areas(mask: np.ndarray, annotation: Annotation, params: Params) -> list[tuple[int, int]]:
    """Return label and pixels of each instance, after checking that together they are the mask."""
    instances = find_instances(mask, annotation, params)
    assert instances
    require_parts_of(mask, list(instances))
    return [(label_id, int(np.count_nonzero(part))) for label_id, part in instances]


def require_parts_of(mask: np.ndarray, instances: Sequence[tuple[int, np.ndarray]]) -> None:
    together, times = np.zeros_like(mask), np.zeros(mask.shape, int)
    for label_id, part in instances:
        together[part] = label_id
        times += part
    np.testing.assert_array_equal(together, np.where(mask == IGNORE, 0, mask))
    assert times.max(initial=0) <= 1


def compiled(annotation: Annotation, params: Params) -> np.ndarray:
    return compile_annotation(annotation, params).mask


def test_two_regions_of_a_label_are_two_instances(draw: Draw, two_labels: Params) -> None:
    shoes = draw(("coat", LEFT), ("coat", RIGHT))
    assert areas(compiled(shoes, two_labels), shoes, two_labels) == [(COAT, 240), (COAT, 240)]


def test_a_region_that_another_divides_stays_one(draw: Draw, two_labels: Params) -> None:
    worn = draw(("coat", WHOLE), ("dress", MIDDLE))
    assert areas(compiled(worn, two_labels), worn, two_labels) == [(COAT, 500), (DRESS, 100)]


def test_what_covers_a_region_of_the_same_label_takes_its_pixels(draw: Draw, two_labels: Params) -> None:
    coats = draw(("coat", WHOLE), ("coat", LEFT))
    assert areas(compiled(coats, two_labels), coats, two_labels) == [(COAT, 360), (COAT, 240)]


def test_a_region_that_is_wholly_covered_is_none(draw: Draw, two_labels: Params) -> None:
    hidden = draw(("coat", MIDDLE), ("dress", WHOLE))
    assert areas(compiled(hidden, two_labels), hidden, two_labels) == [(DRESS, 600)]


def test_priority_orders_regions_as_it_orders_the_mask(draw: Draw, two_labels: Params) -> None:
    options = two_labels.compile.model_copy(update={"overlap": "priority", "priority": ("coat", "dress")})
    params = two_labels.model_copy(update={"compile": options})
    worn = draw(("coat", WHOLE), ("dress", MIDDLE))
    assert areas(compiled(worn, params), worn, params) == [(COAT, 600)]


def test_unclear_regions_are_no_instances_and_divide_none(draw: Draw, two_labels: Params) -> None:
    blurred = draw(("coat", WHOLE), ("unclear", MIDDLE))
    assert areas(compiled(blurred, two_labels), blurred, two_labels) == [(COAT, 500)]


def test_a_label_that_has_another_name_today_has_its_id_from_the_mask(draw: Draw, two_labels: Params) -> None:
    older = draw(("overcoat", LEFT), ("overcoat", RIGHT))
    mask = compiled(draw(("coat", LEFT), ("coat", RIGHT)), two_labels)
    assert areas(mask, older, two_labels) == [(COAT, 240), (COAT, 240)]


def test_pixels_that_other_people_added_go_to_the_instance_they_touch(draw: Draw, two_labels: Params) -> None:
    newest = draw(("coat", LEFT), ("coat", RIGHT))
    mask = compiled(newest, two_labels)
    mask[:, 8] = COAT  # touches the left one
    mask[3:5, 10] = DRESS  # nobody's here
    assert areas(mask, newest, two_labels) == [(COAT, 270), (COAT, 240), (DRESS, 2)]


def test_regions_that_cannot_be_read_are_said(draw: Draw, two_labels: Params) -> None:
    annotation = draw(("coat", LEFT))
    mask = compiled(annotation, two_labels)
    for change in ({"value": {"brushlabels": ["coat"]}}, {"original_width": 5}, {"type": "video"}, {"value": 3}):
        broken = with_result(annotation, [{**annotation.raw["result"][0], **change}])
        assert find_instances(mask, broken, two_labels) is None
    assert find_instances(mask, None, two_labels) is None


def test_without_regions_connected_parts_are_instances(two_labels: Params) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[LEFT], mask[RIGHT], mask[:2] = COAT, COAT, IGNORE
    require_parts_of(mask, list(parts_as_instances(mask)))
    assert [label_id for label_id, _ in parts_as_instances(mask)] == [COAT, COAT]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(regions=arrays(bool, (4, 30, 20)), merged=arrays(np.uint8, (30, 20), elements={"max_value": 3}))
def test_instances_are_the_mask_whatever_was_merged(
    regions: np.ndarray, merged: np.ndarray, draw: Draw, two_labels: Params
) -> None:
    annotation = draw(*zip(("coat", "dress", "coat", "unclear"), regions, strict=True))
    mask = np.array([0, COAT, DRESS, IGNORE], np.uint8)[merged]
    areas(mask, annotation, two_labels)
    areas(compiled(annotation, two_labels), annotation, two_labels)


def test_the_newest_annotation_of_a_photo_is_found_in_both_layouts(draw: Draw, tmp_path: Path) -> None:
    dataset, annotation = Dataset(tmp_path), draw(("coat", LEFT), uuid="newest")
    row = {"sha256": annotation.image.sha256, "annotations": ["older", "newest"]}
    assert find_annotation(dataset, row) is None
    dataset.annotations.replace([annotation])
    assert find_annotation(dataset, row) == annotation
    assert find_annotation(dataset, {**row, "annotations": ["gone"]}) is None
    for path in dataset.path(ANNOTATIONS).iterdir():
        path.write_bytes(b"damaged")
    assert find_annotation(dataset, row) is None
    (dataset.path(ANNOTATIONS) / "newest.json").write_bytes(annotation_json(annotation))
    assert find_annotation(dataset, row) == annotation
