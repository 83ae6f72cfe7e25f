"""What is written is read back the same, and the same content always gives the same bytes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from pipelines.dataset.records import annotation_json, decode_mask, encode_mask, parse_annotation_json
from pipelines.errors import DatasetError
from pipelines.records import Annotation


@pytest.fixture
def annotation(annotate: Callable[..., Annotation]) -> Annotation:
    return annotate("uuid-1", {"coat": slice(5, 20)}, metadata={"name": "Été", "collection": "Autumn"})


def test_an_annotation_is_read_back_whole(annotation: Annotation) -> None:
    assert parse_annotation_json(annotation_json(annotation), "uuid-1.json") == annotation


def test_the_order_of_keys_does_not_show(annotation: Annotation) -> None:
    turned = replace(
        annotation,
        metadata=dict(reversed(annotation.metadata.items())),
        raw={"result": [dict(reversed(region.items())) for region in annotation.raw["result"]]},
    )
    assert annotation_json(turned) == annotation_json(annotation)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"uuid": "a", "image": {}}', b"\xff"])
def test_a_damaged_annotation_is_named(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"^uuid-1\.json holds no annotation .*run `maskloop sync` again"):
        parse_annotation_json(data, "uuid-1.json")


@given(mask=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_a_mask_is_read_back_pixel_for_pixel(mask: np.ndarray) -> None:
    assert encode_mask(mask) == encode_mask(mask.copy())
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize("content", [b"", b"no picture", encode_mask(np.zeros((4, 4, 3), np.uint8))])
def test_a_missing_damaged_or_coloured_mask_is_named(content: bytes) -> None:
    with pytest.raises(DatasetError, match=r"mask of a is missing or no 8-bit index mask; run `dvc pull`"):
        decode_mask(content, "the mask of a")
