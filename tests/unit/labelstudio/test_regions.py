"""Regions to index masks: what people drew decides every pixel, and what cannot be read is named."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.errors import AnnotationError, BrushError
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
        ({**COAT, "value": {"rle": []}}, "region r-coat: brush RLE is truncated"),
        ({"id": "r1", "type": "brushlabels"}, "region r1 lacks its outline"),
        ({**COAT, "value": 3}, "region r-coat lacks its outline"),
        ({**COAT, "value": {"brushlabels": ["coat"], "rle": [1e400, -5]}}, "region r-coat"),
        ({**COAT, "original_height": None}, "region r-coat lacks its size"),
        ({**COAT, "original_height": float("inf")}, "region r-coat lacks its size"),
        (
            {"id": "k", "type": "keypointlabels", "value": {"x": 5, "keypointlabels": ["hat"]}},
            "point k lacks its place",
        ),
        ({"id": "k", "type": "keypointlabels", "value": None}, "point k lacks its place"),
        (None, "no list of regions"),
        ("text", "no list of regions"),
    ],
)
def test_what_cannot_be_compiled_is_named(region: Any, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        compiled(COAT, region)


def test_a_damaged_stroke_is_an_error_not_an_empty_mask() -> None:
    with pytest.raises(BrushError, match="truncated"):
        compiled({**COAT, "value": {**COAT["value"], "rle": COAT["value"]["rle"][:8]}})


@pytest.mark.parametrize("result", [None, {}, "text", 3])
def test_a_result_that_is_no_list_is_named(result: Any) -> None:
    with pytest.raises(AnnotationError, match="no list of regions"):
        compile_regions(result, IDS, *SIZE, 128)


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

        known, unknown = (compile_annotation(annotation, params) for params in (two_labels, other_name))
        assert known.mask[:, 0].tolist() == [3] * 6 + [IGNORE] * 6 + [0] * 18
        assert known.odd == ()
        assert unknown.mask[:, 0].tolist() == [3] * 9 + [IGNORE] * 3 + [0] * 18
        assert unknown.odd == ("a mask with the unknown label unclear",)


def without_label(region: dict[str, Any], *labels: Any) -> dict[str, Any]:
    """The region with other labels, by default an empty list."""
    return {**region, "id": "odd", "value": {**region["value"], region["type"]: list(labels)}}


def keypoint(label: str, x: float, y: float, **changes: Any) -> dict[str, Any]:
    """A point as the editor submits it after a suggestion was undone."""
    return {
        "id": "k1", "type": "keypointlabels", "from_name": "point", "to_name": "image", "original_width": SIZE[1],
        "original_height": SIZE[0], "value": {"x": x, "y": y, "width": 1, "keypointlabels": [label]}, **changes,
    }  # fmt: skip


def smart_box(label: str, **changes: Any) -> dict[str, Any]:
    """A box around the two upper rows on the right."""
    value = {"x": 50, "y": 0, "width": 50, "height": 50, "rotation": 0}
    return {**shape("rectangle", label, **(value | changes)), "from_name": "box"}


RELATION = {"type": "relation", "from_id": "r-coat", "to_id": "r-dress", "direction": "right", "labels": []}
NO_TYPE_OF_LABEL = {**COAT, "type": "brush", "value": {"rle": COAT["value"]["rle"], "format": "rle"}}


class TestOddParts:
    """What is no mask with a known label costs nothing else, and is never background without a word."""

    @pytest.mark.parametrize(
        "item",
        [
            RELATION,
            {"id": "c", "type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": ["good"]}},
            {**COAT, "type": "choices", "value": {"choices": ["good"]}},
            {"id": "t", "type": "textarea", "from_name": "t", "to_name": "image", "value": {"text": ["torn"]}},
            {"type": "rating", "value": {"rating": 4}},
            {"type": "number", "value": {"number": 4}},
            {"type": "taxonomy", "value": None},
        ],
    )
    def test_answers_and_relations_draw_nothing(self, item: dict[str, Any]) -> None:
        result = compiled(item, COAT, DRESS)

        np.testing.assert_array_equal(result.mask, compiled(COAT, DRESS).mask)
        assert (result.odd, result.origins) == ((), {"prediction": 2})

    def test_a_relation_of_a_mask_that_is_gone_is_noted(self) -> None:
        result = compiled(RELATION, COAT)

        np.testing.assert_array_equal(result.mask, compiled(COAT).mask)
        assert result.odd == ("a relation between masks that are not there",)

    def test_an_answer_alone_means_no_garment(self) -> None:
        assert not compiled({"type": "choices", "value": {"choices": ["empty"]}}).mask.any()

    @pytest.mark.parametrize(
        ("odd", "note"),
        [
            (without_label(COAT), "a mask without a label"),
            (without_label(COAT, ""), "a mask without a label"),
            (without_label(COAT, None), "a mask without a label"),
            ({**COAT, "value": {"rle": COAT["value"]["rle"]}}, "a mask without a label"),
            (NO_TYPE_OF_LABEL, "a mask without a label"),
            (without_label(COAT, "cape"), "a mask with the unknown label cape"),
            (without_label(COAT, "a\ncape\ud800"), "a mask with the unknown label a cape?"),
            (without_label(COAT, "x" * 99), f"a mask with the unknown label {'x' * 60}…"),
        ],
    )
    def test_a_mask_that_nobody_can_name_is_ignored_where_nothing_else_is_painted(
        self, odd: dict[str, Any], note: str
    ) -> None:
        for regions in ((odd, DRESS), (DRESS, odd)):
            result = compiled(*regions)

            assert result.mask.tolist() == [[255] * 4 + [0] * 2] * 2 + [[255] * 2 + [7] * 4] + [[0] * 2 + [7] * 4]
            assert (result.odd, result.painted) == ((note,), {7, IGNORE})
            assert (result.overlap_pixels, result.origins) == (0, {"prediction": 1})

    def test_one_that_others_cover_wholly_is_noted_all_the_same(self) -> None:
        result = compiled(COAT, without_label(COAT))

        np.testing.assert_array_equal(result.mask, compiled(COAT).mask)
        assert (result.odd, result.painted) == (("a mask without a label",), {3})

    def test_a_point_without_its_mask_hides_a_disc(self) -> None:
        coat = np.zeros((200, 100), bool)
        coat[:60] = True
        region = region_json(RegionMask("coat", coat, 1.0), "coat")

        result = compile_regions([keypoint("dress", 50, 40), region], IDS, 200, 100, 128)

        disc = np.hypot(*np.meshgrid(np.arange(100) + 0.5 - 50, np.arange(200) + 0.5 - 80)) <= 20
        np.testing.assert_array_equal(result.mask, np.where(coat, 3, np.where(disc, IGNORE, 0)))
        assert result.odd == ("points of dress without their mask",)

    @pytest.mark.parametrize(
        ("changes", "columns"),
        [({}, slice(3, 6)), ({"x": 100, "width": -50}, slice(3, 6)), ({"y": 50, "height": -50}, slice(3, 6)),
         ({"width": 0}, slice(0, 0)), ({"x": 90, "width": 500}, slice(5, 6))],
    )  # fmt: skip
    def test_a_box_without_its_mask_hides_what_is_inside(self, changes: dict[str, Any], columns: slice) -> None:
        result = compiled(smart_box("coat", **changes), DRESS)

        expected = compiled(DRESS).mask.copy()
        expected[:2, columns] = IGNORE
        np.testing.assert_array_equal(result.mask, expected)
        assert result.odd == ("a box of coat without its mask",)

    @pytest.mark.parametrize("flag", [False, 0])
    def test_a_negative_point_hides_nothing_and_is_noted(self, flag: Any) -> None:
        result = compiled(keypoint("dress", 50, 50, is_positive=flag), COAT)

        np.testing.assert_array_equal(result.mask, compiled(COAT).mask)
        assert result.odd == ("points of dress without their mask",)

    def test_a_mask_that_was_erased_wholly_is_no_mask_of_its_points(self) -> None:
        erased = drawn("dress", slice(0, 0), slice(0, 0))

        assert compiled(keypoint("dress", 90, 90), erased, COAT).odd == ("points of dress without their mask",)

    def test_points_without_label_of_other_tools_and_labels_are_noted(self) -> None:
        plain = {**keypoint("", 5, 5), "type": "keypoint", "from_name": "elsewhere"}

        assert compiled(plain, keypoint("cape", 5, 5), COAT).odd == (
            "points of cape without their mask", "points without a label",
        )  # fmt: skip

    @pytest.mark.parametrize(
        "odd",
        [keypoint("dress", 50, 40), smart_box("dress"), without_label(COAT), without_label(COAT, "cape"), RELATION],
    )
    def test_odd_parts_alone_do_not_mean_that_there_is_no_garment(self, odd: dict[str, Any]) -> None:
        with pytest.raises(
            AnnotationError, match=r"no mask with a known label, only a.*draw the garments again|points"
        ):
            compiled(odd, odd)

    def test_the_place_of_a_mask_of_another_size_is_unknown_whatever_its_label(self) -> None:
        with pytest.raises(AnnotationError, match="7×4 pixels"):
            compiled(COAT, {**without_label(DRESS), "original_width": 7})


ODD = st.sampled_from([
    RELATION, without_label(COAT), without_label(DRESS, "cape"), NO_TYPE_OF_LABEL, keypoint("dress", 50, 40),
    keypoint("coat", 5, 95), keypoint("hat", 150, -20), keypoint("coat", 5, 5, is_positive=False), smart_box("dress"),
    smart_box("cape"), {"type": "choices", "value": {"choices": ["good"]}}, without_label(shape("polygon", points=[
        [0, 0], [90, 0], [90, 90]])), {"id": "t", "type": "textarea", "value": {"text": ["torn"]}},
])  # fmt: skip
GOOD = st.builds(
    lambda label, row, rows, column, columns: drawn(label, slice(row, row + rows), slice(column, column + columns)),
    st.sampled_from(sorted(IDS)), st.integers(0, 3), st.integers(1, 3), st.integers(0, 5), st.integers(1, 4),
)  # fmt: skip


@given(
    st.lists(st.tuples(st.booleans(), GOOD, ODD), min_size=1, max_size=6).filter(lambda items: any(i[0] for i in items))
)
def test_any_mix_of_odd_parts_leaves_the_pixels_of_good_masks(items: list[Any]) -> None:
    good = [mask for is_good, mask, _ in items if is_good]
    alone, mixed = compiled(*good), compiled(*(mask if is_good else odd for is_good, mask, odd in items))

    np.testing.assert_array_equal(mixed.mask[alone.mask != 0], alone.mask[alone.mask != 0])
    assert set(np.unique(mixed.mask[alone.mask == 0])) <= {0, IGNORE}
    assert mixed.origins == alone.origins
    assert mixed.overlap_pixels == alone.overlap_pixels
    assert list(mixed.odd) == sorted(set(mixed.odd))
    assert bool((mixed.mask != alone.mask).any()) <= bool(mixed.odd)


class TestSmallerCopies:
    """Regions that were drawn on a copy of half the photo's size."""

    PHOTO = (2 * SIZE[0], 2 * SIZE[1])

    def at_photo_size(self, *regions: dict[str, Any]) -> np.ndarray:
        return compile_regions(list(regions), IDS, *self.PHOTO, alpha_threshold=128).mask

    def test_the_mask_has_the_photos_size_and_each_pixel_of_the_copy_is_a_block(self) -> None:
        np.testing.assert_array_equal(
            self.at_photo_size(COAT, DRESS), compiled(COAT, DRESS).mask.repeat(2, axis=0).repeat(2, axis=1)
        )

    def test_regions_of_both_sizes_belong_to_one_mask(self) -> None:
        large = np.zeros(self.PHOTO, bool)
        large[7, 11] = True
        spot = region_json(RegionMask("dress", large, 1.0), "spot")

        mask = self.at_photo_size(COAT, spot)

        assert (mask == IDS["dress"]).nonzero() == (7, 11)
        assert np.count_nonzero(mask == IDS["coat"]) == 4 * 12

    def test_outlines_are_filled_at_the_photos_size(self) -> None:
        corner = shape("polygon", points=[[0, 0], [100, 0], [0, 100]])

        np.testing.assert_array_equal(
            self.at_photo_size(corner),
            self.at_photo_size({**corner, "original_height": self.PHOTO[0], "original_width": self.PHOTO[1]}),
        )

    def test_a_bitmask_is_read_at_its_own_size(self) -> None:
        pixels = np.zeros((*SIZE, 4), np.uint8)
        pixels[0, 1] = 255
        bitmask = shape("bitmask", imageDataURL=png("RGBA", (0, 0), pixels))

        assert self.at_photo_size(bitmask).nonzero()[1].tolist() == [2, 3, 2, 3]

    @pytest.mark.parametrize("size", [(6, 4), (5, 12), (16, 24)])
    def test_another_shape_or_a_larger_size_is_another_photo(self, size: tuple[int, int]) -> None:
        region = region_json(RegionMask("coat", np.ones(size, bool), 1.0), "r")

        with pytest.raises(AnnotationError, match=f"{size[1]}×{size[0]} pixels, the photo has 12×8"):
            self.at_photo_size(region)
