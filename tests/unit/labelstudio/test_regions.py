"""Regions to index masks: what people drew decides every pixel, and what cannot be read is named."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import AnnotationError, BrushError, ContractError
from pipelines.labelstudio.regions import CompiledMask, compile_annotation, compile_regions
from pipelines.labelstudio.render import region_json
from pipelines.params import IGNORE, IgnoreLabel, Params
from pipelines.records import Annotation, RegionMask

IDS = {"coat": 3, "dress": 7, "unclear": IGNORE}
SIZE = (4, 6)


def drawn(label: str, rows: slice, columns: slice, **changes: Any) -> dict[str, Any]:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return {**region_json(RegionMask(label, mask, 1.0), f"r-{label}"), **changes}


def compiled(*regions: dict[str, Any]) -> CompiledMask:
    return compile_regions(list(regions), IDS, *SIZE, alpha_threshold=128)


def shape(kind: str, label: str = "coat", **value: Any) -> dict[str, Any]:
    """A region of another tool than the brush."""
    return {
        "id": kind, "type": f"{kind}labels", "from_name": kind, "original_height": SIZE[0], "original_width": SIZE[1],
        "value": {**value, f"{kind}labels": [label]},
    }  # fmt: skip


def png(mode: str, size: tuple[int, int], pixels: np.ndarray | None = None) -> str:
    file = io.BytesIO()
    (Image.new(mode, size) if pixels is None else Image.fromarray(pixels)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


COAT = drawn("coat", slice(0, 3), slice(0, 4))
DRESS = drawn("dress", slice(2, 4), slice(2, 6))


def test_the_region_drawn_last_wins_and_the_overlap_is_counted() -> None:
    dress_on_top, coat_on_top = compiled(COAT, DRESS), compiled(DRESS, COAT)

    assert dress_on_top.mask[2].tolist() == [3, 3, 7, 7, 7, 7]
    assert coat_on_top.mask[2].tolist() == [3, 3, 3, 3, 7, 7]
    assert dress_on_top.overlap_pixels == coat_on_top.overlap_pixels == 2


def test_pixels_without_a_region_are_background() -> None:
    assert compiled(COAT).mask[3].tolist() == [0] * 6
    assert not compiled().mask.any()


def test_regions_of_one_label_unite() -> None:
    mask = compiled(COAT, drawn("coat", slice(3, 4), slice(0, 1))).mask

    assert np.count_nonzero(mask == 3) == 13


def test_origins_are_counted_and_an_unknown_one_is_manual() -> None:
    untold = {key: value for key, value in DRESS.items() if key != "origin"}

    assert compiled(COAT, COAT, {**COAT, "origin": "prediction-changed"}, untold).origins == {
        "prediction": 2,
        "prediction-changed": 1,
        "manual": 1,
    }


@pytest.mark.parametrize(("kind", "tool"), [("keypointlabels", "point"), ("rectanglelabels", "box")])
def test_smart_prompts_leave_no_trace(kind: str, tool: str) -> None:
    prompt = {"id": "p", "type": kind, "from_name": tool, "value": {"x": 1, "y": 1, kind: ["coat"]}}

    result = compiled(prompt, COAT)

    assert result.origins == {"prediction": 1}
    np.testing.assert_array_equal(result.mask, compiled(COAT).mask)


@pytest.mark.parametrize(("threshold", "pixels"), [(1, 3), (128, 2), (255, 1)])
def test_soft_edges_belong_to_the_region_from_the_threshold_on(threshold: int, pixels: int) -> None:
    # A 2×3 layer drawn in the browser, of alphas 0 64 255 / 254 0 0.
    soft = [0, 0, 0, 24, 57, 27, 252, 96, 6, 194, 66, 1, 208, 2, 66, 1, 255, 194, 66, 1, 254, 231, 0]
    region = {**COAT, "original_height": 2, "original_width": 3, "value": {"brushlabels": ["coat"], "rle": soft}}

    assert np.count_nonzero(compile_regions([region], IDS, 2, 3, threshold).mask) == pixels


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({**COAT, "original_width": 7}, "7×4 pixels, the photo has 6×4"),
        (
            {"id": "p1", "type": "vectorlabels"},
            "region p1 is a vectorlabels.*brush, polygon, rectangle",
        ),
        (shape("polygon", points=[[0, 0], [50, 0]]), "region polygon: an outline without three points"),
        (shape("polygon", points=[[0, 0], [50, 0], [float("nan"), 9]]), "region polygon: an outline without three"),
        (shape("polygon", points=[[0], [1], [2]]), "region polygon lacks its outline"),
        (shape("rectangle", x=0, y=0, width=50), "region rectangle lacks its outline .*height"),
        (shape("ellipse", x=50, y=50, radiusX=0, radiusY=9), "region ellipse: an ellipse without extent"),
        (shape("bitmask", imageDataURL="http://elsewhere/mask.png"), "region bitmask: a bitmask that is no PNG"),
        (shape("bitmask", imageDataURL="data:image/png;base64,bm9uZQ=="), "region bitmask: .* cannot be decoded"),
        (shape("bitmask", imageDataURL=png("L", (6, 4))), "region bitmask: a bitmask without transparency"),
        (shape("bitmask", imageDataURL=png("RGBA", (4, 6))), "region bitmask: a bitmask of 4×6 pixels"),
        ({**COAT, "value": {"rle": []}}, "region r-coat lacks label"),
        ({**COAT, "value": {"rle": [], "brushlabels": []}}, "region r-coat lacks label"),
        ({"id": "r1", "type": "brushlabels"}, "region r1 lacks label"),
        ({**COAT, "original_height": None}, "region r-coat lacks label or size"),
    ],
)
def test_what_cannot_be_compiled_is_named(region: dict[str, Any], words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        compiled(region)


def test_a_damaged_stroke_is_an_error_not_an_empty_mask() -> None:
    with pytest.raises(BrushError, match="truncated"):
        compiled({**COAT, "value": {**COAT["value"], "rle": COAT["value"]["rle"][:8]}})


def test_a_label_that_params_do_not_know_breaks_the_contract() -> None:
    cape = {**COAT, "value": {**COAT["value"], "brushlabels": ["cape"]}}

    with pytest.raises(ContractError, match=r"region r-coat .*'cape'.*params.yaml"):
        compile_regions([cape], {"coat": 3}, 4, 6, 128)


def test_shapes_are_painted_with_the_brush_in_drawing_order() -> None:
    layer = np.zeros((*SIZE, 4), np.uint8)
    layer[3, 5, 3], layer[3, 4, 3] = 255, 100
    left_half = shape("rectangle", "coat", x=0, y=0, width=50, height=100, rotation=0)
    top_left = shape("polygon", "dress", points=[[0, 0], [50, 0], [50, 50], [0, 50]])
    corner = shape("bitmask", "dress", imageDataURL=png("RGBA", (6, 4), layer))

    mask = compiled(left_half, top_left, corner).mask

    assert mask.tolist() == [[7, 7, 7, 0, 0, 0]] * 2 + [[3, 3, 3, 0, 0, 0], [3, 3, 3, 0, 0, 7]]


def test_a_declared_priority_beats_the_drawing_order() -> None:
    def painted(*regions: dict[str, Any], priority: tuple[str, ...]) -> list[int]:
        return compile_regions(list(regions), IDS, *SIZE, 128, priority).mask[2].tolist()

    coat_first, dress_first = [3, 3, 3, 3, 7, 7], [3, 3, 7, 7, 7, 7]
    for order in ((COAT, DRESS), (DRESS, COAT)):
        assert painted(*order, priority=("coat", "dress")) == painted(*order, priority=("coat",)) == coat_first
        assert painted(*order, priority=("dress", "coat")) == dress_first


class TestIgnored:
    """What nobody can name becomes 255, by the same rules as a label."""

    UNCLEAR = drawn("unclear", slice(2, 4), slice(2, 6))

    def test_it_covers_what_was_drawn_before_and_is_covered_by_what_comes_after(self) -> None:
        on_top, below = compiled(COAT, self.UNCLEAR), compiled(self.UNCLEAR, COAT)

        assert on_top.mask[2].tolist() == [3, 3, 255, 255, 255, 255]
        assert below.mask[2].tolist() == [3, 3, 3, 3, 255, 255]
        assert on_top.painted == below.painted == {3, IGNORE}
        assert on_top.overlap_pixels == below.overlap_pixels == 2

    def test_with_priority_it_is_the_weakest_unless_it_is_named(self) -> None:
        def row(*priority: str) -> list[int]:
            return compile_regions([COAT, self.UNCLEAR], IDS, *SIZE, 128, priority).mask[2].tolist()

        assert row("coat") == [3, 3, 3, 3, 255, 255]
        assert row("unclear", "coat") == [3, 3, 255, 255, 255, 255]

    def test_an_annotation_knows_it_by_the_name_in_params(
        self, annotate: Callable[..., Annotation], two_labels: Params
    ) -> None:
        annotation = annotate("a", {"coat": slice(0, 9), "unclear": slice(6, 12)})
        other_name = two_labels.model_copy(update={"ignore": IgnoreLabel(name="void")})

        column = compile_annotation(annotation, two_labels).mask[:, 0].tolist()
        assert column == [3] * 6 + [IGNORE] * 6 + [0] * 18
        with pytest.raises(ContractError, match=r"'unclear', unknown to params\.yaml"):
            compile_annotation(annotation, other_name)
