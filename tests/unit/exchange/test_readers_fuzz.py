"""Readers get damaged and made-up files: they reject them with an error of ours, and never with another one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.importer import check_photos
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.readers import FORMATS, read_labelled_photos
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT

FUZZED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZE = (6, 5)
PARAMS = load_params(PROJECT_ROOT / "params.yaml")

numbers = st.one_of(st.integers(-3, 400), st.floats(-1e9, 1e9), st.sampled_from([0, 1, 30, 2**40, 1e300, -0.0]))
words = st.one_of(st.text(max_size=8), st.sampled_from(["a.png", "coat", "../a.png", "/a.png", "", "b.png", "\x00"]))
scalars = st.one_of(st.none(), st.booleans(), numbers, words)


def mostly(valid: st.SearchStrategy[Any] | Any) -> st.SearchStrategy[Any]:
    """A valid value most of the time, and anything of JSON otherwise."""
    strategy = valid if isinstance(valid, st.SearchStrategy) else st.just(valid)
    anything = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
    )
    return st.one_of(strategy, strategy, strategy, strategy, anything)


def fields(required: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: mostly(value) for key, value in required.items()})


rle = fields(
    {"size": [5, 6], "counts": st.one_of(st.lists(numbers, max_size=6), st.text("0123ABCabcno`P", max_size=9))}
)
rings = st.lists(st.lists(numbers, max_size=9), max_size=3)
image = fields({"id": 1, "file_name": "a.png", "height": 5, "width": 6, "ignored": rle})
coco_annotation = fields({"image_id": 1, "category_id": 2, "segmentation": st.one_of(rings, rle), "iscrowd": 0})
coco = fields({
    "images": st.lists(mostly(image), max_size=3),
    "annotations": st.lists(mostly(coco_annotation), max_size=4),
    "categories": st.lists(mostly(fields({"id": 2, "name": "coat"})), max_size=2),
})  # fmt: skip
kinds = ["polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "bitmasklabels"]
points = st.lists(st.lists(numbers, max_size=3), max_size=4)
region = fields({
    "id": "r", "type": st.sampled_from(kinds),
    "from_name": "tag", "origin": "manual", "original_width": 6, "original_height": 5,
    "value": fields({
        "points": points, "polygonlabels": ["coat"], "brushlabels": ["coat"], "rle": st.lists(st.integers(-1, 300)),
        "rectanglelabels": ["coat"], "ellipselabels": ["coat"], "bitmasklabels": ["coat"], "x": numbers, "y": numbers,
        "width": numbers, "height": numbers, "radiusX": numbers, "radiusY": numbers, "rotation": numbers,
        "imageDataURL": "data:image/png;base64,AAAA",
    }),
})  # fmt: skip
annotation = fields({
    "result": st.lists(mostly(region), max_size=3), "was_cancelled": False, "updated_at": "2026",
    "prediction": {"result": []},
})  # fmt: skip
task = fields({"data": fields({"image": "a.png"}), "annotations": st.lists(mostly(annotation), max_size=2)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    return tmp_path


def reads_or_rejects(path: Path, form: str, params: Params = PARAMS) -> None:
    """Read everything; errors must be ours and say something."""
    try:
        source = read_labelled_photos(path, LabelNames(params), form)
        for photo in check_photos(source, params):
            assert photo.name not in ("", ".")
        source.left_out()
    except (DataError, ConfigurationError) as error:
        assert len(str(error)) > 20


@given(document=mostly(coco))
@FUZZED
def test_coco(folder: Path, document: Any) -> None:
    (folder / "a.json").write_text(json.dumps(document))
    reads_or_rejects(folder, "coco")


@given(tasks=mostly(st.lists(mostly(task), min_size=1, max_size=3)))
@FUZZED
def test_label_studio(folder: Path, tasks: Any) -> None:
    (folder / "a.json").write_text(json.dumps(tasks))
    reads_or_rejects(folder, "labelstudio")


@given(
    description=mostly(fields({"names": ["coat"], "train": st.sampled_from(["images", "x", "../images", "t.txt"])})),
    line=st.lists(words | numbers.map(str), max_size=9).map(" ".join),
)
@FUZZED
def test_yolo(folder: Path, description: Any, line: str) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(folder / "a.png", folder / "images")
    (folder / "labels" / "a.txt").write_text(line)
    (folder / "data.yaml").write_text(json.dumps(description))
    reads_or_rejects(folder, "yolo")


shapes = st.sampled_from(["polygon", "mask", "box", "attribute", "image", "track"])
attributes = st.dictionaries(
    st.sampled_from(["label", "points", "z_order", "rle", "left", "top", "width", "height", "name"]),
    st.one_of(
        st.sampled_from(["coat", "1,1;4,1;4,4", "0", "1", "2", "2, 2", "a.png", "nan", "1e9", "-1"]),
        st.text("0123456789,;. -e", max_size=9),
    ),
)


@given(elements=st.lists(st.tuples(shapes, attributes), max_size=4), cut=st.integers(0, 400))
@FUZZED
def test_cvat(folder: Path, elements: list[tuple[str, dict[str, str]]], cut: int) -> None:
    texts = [(name, " ".join(f'{key}="{value}"' for key, value in values.items())) for name, values in elements]
    inner = "".join(f"<{name} {text}/>" for name, text in texts)
    text = f'<annotations><image id="0" name="a.png" width="6" height="5">{inner}</image></annotations>'
    (folder / "a.xml").write_text(text if cut > 200 else text[:cut])
    reads_or_rejects(folder, "cvat")


@given(
    names=mostly(st.text("abc:,0123456789 \n", max_size=30)),
    mask=st.binary(max_size=60),
    entries=st.text("ab/\\.\n ", max_size=20),
)
@FUZZED
def test_voc(folder: Path, names: Any, mask: bytes, entries: str) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "a.png", folder / "JPEGImages")
    (folder / "SegmentationClass" / "a.png").write_bytes(mask)
    (folder / "labelmap.txt").write_text(str(names))
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text(entries)
    reads_or_rejects(folder, "voc")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small dataset in each format, as it is exported or drawn here."""
    from pipelines.exchange.export import export
    from tests.unit.exchange.test_roundtrip import Version

    def export_once(form: str) -> Path:
        folder = tmp_path_factory.mktemp("exports") / form
        export(Version(), "dataset-0001", form, folder, PARAMS)  # type: ignore[arg-type]  # a stand-in
        return folder

    return export_once


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("cvat", "labelstudio")])
def test_damaged_files_of_an_export(form: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    folder = exported(form)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    random = np.random.default_rng(3)
    for number in range(25):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        path = copy / files[int(random.integers(len(files)))]
        data = bytearray(path.read_bytes())
        if number % 3 == 0 or not data:
            path.write_bytes(bytes(data[: int(random.integers(len(data) + 1))]))
        elif number % 3 == 1:
            for place in random.integers(len(data), size=3).tolist():
                data[place] = int(random.integers(256))
            path.write_bytes(bytes(data))
        else:
            path.unlink()
        reads_or_rejects(copy, form)
