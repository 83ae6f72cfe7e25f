"""The import against a real bucket server and a Label Studio that answers from lists."""

import json
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines.errors import ConfigurationError, StorageError
from pipelines.exchange import importer
from pipelines.exchange.importer import ImportReport, dry_run, import_labelled
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import LabelledPhotos
from pipelines.exchange.readers import read_labelled_photos
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.settings import Settings


class Studio:
    """Keeps tasks and annotations; stops answering at the annotation number `dies_at`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.tasks: list[dict] = []
        self.annotations: list[tuple[int, list]] = []
        self.requests: list[str] = []
        self.dies_at = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        method, path = request.method, request.url.path
        self.requests.append(f"{method} {path}")
        if path == "/api/projects/":
            return httpx.Response(200, json={"results": [{"id": 1, "title": self.title}], "next": None})
        if path == "/api/tasks":
            wanted = json.loads(request.url.params.get("query") or "{}").get("selectedItems", {}).get("included")
            shown = [
                {**task, "total_annotations": sum(of == task["id"] for of, _ in self.annotations)}
                for task in self.tasks
                if wanted is None or task["id"] in wanted
            ]
            return httpx.Response(200, json={"tasks": shown, "total": len(shown)})
        if path == "/api/projects/1/import":
            first = len(self.tasks) + 1
            self.tasks += [
                {"id": first + place, "updated_at": "2026-01-01T00:00:00Z", "data": task["data"]}
                for place, task in enumerate(body)
            ]
            return httpx.Response(200, json={"task_count": len(body)})
        task_id = int(path.split("/")[3]) if path.startswith("/api/tasks/") else 0
        if task_id and method == "PATCH":
            self.tasks[task_id - 1]["data"] = body["data"]
            return httpx.Response(200, json={})
        if task_id and path.endswith("/annotations/"):
            if len(self.annotations) + 1 == self.dies_at:
                return httpx.Response(400, json={"detail": "no space"})
            self.annotations.append((task_id, body["result"]))
            return httpx.Response(201, json={"id": 1})
        return httpx.Response(404, json={"detail": path})

    def origins(self) -> dict[str, tuple[str, str]]:
        return {
            task["data"]["image"].rpartition("/")[2]: (
                task["data"].get("imported_split", ""),
                task["data"].get("imported_group", ""),
            )
            for task in self.tasks
        }


def photo(path: Path, shade: int, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


def mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def settings(tmp_path: Path, bucket_client: Client) -> Settings:
    name = uuid4().hex[:12]
    made = Settings(
        _env_file=None, var=tmp_path / "var", source_bucket=f"archive-{name}", source_prefix="photos/",
        target_bucket=f"labels-{name}",
    )  # fmt: skip
    for bucket in (made.source_bucket, made.target_bucket):
        gcs.ensure_bucket(bucket_client, bucket)
    return made


@pytest.fixture
def studio(two_labels: Params, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr("pipelines.ingest.pipeline.connect_copies", lambda *_: None, raising=False)
    return Studio(two_labels.project.title)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photos with masks, of which three fit, and one of them is there twice; and files without a counterpart."""
    root = tmp_path / "theirs"
    for number, name in enumerate(["a.png", "b.png", "c.png", "size.png", "broken.png", "lonely.png"]):
        photo(root / "images" / name, 20 * number)
    photo(root / "images" / "z-again.png", 0)  # the bytes of a.png
    (root / "images" / "broken.png").write_bytes(b"no photo")
    photo(root / "images" / "no-mask.png", 250)
    (root / "images" / "notes.txt").touch()
    values = np.zeros((4, 6))
    values[1:3, 1:4], values[0, 0] = 1, 255
    for name in ("a", "b", "broken", "z-again", "nobody"):
        mask(root / "masks" / f"{name}.png", values)
    mask(root / "masks" / "c.png", values * 0)
    mask(root / "masks" / "size.png", values[:3])
    (root / "masks" / "lonely.png").write_bytes(b"no mask")
    (root / "labels.csv").write_text("index,label\n1,coat\n255,void\n", encoding="utf-8")
    (root / "photos.csv").write_text(
        "file,split,group\na.png,train,Spring\nb.png,test,Spring\nz-again.png,val,\n", encoding="utf-8"
    )
    return root


@pytest.fixture
def source(folder: Path, two_labels: Params) -> LabelledPhotos:
    return read_labelled_photos(folder, LabelNames(two_labels))


def run(bucket: Client, studio: Studio, settings: Settings, params: Params, source: LabelledPhotos) -> ImportReport:
    labels = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(studio))
    return import_labelled(bucket, labels, settings, params, source, "theirs")


PROBLEMS = ["broken.png: not-an-image", "lonely.png: its mask cannot be read", "size.png: its mask has 6×3 pixels"]
FIRST_LINE = (
    "splits kept: 1 test, 1 train; 1 photos have no label at all, such as c.png; "
    "left out: 1 photos without a mask, such as no-mask.png; left out: 1 masks without a photo, such as nobody.png; "
    "left out: 1 files that are no photos, such as notes.txt"
)


def test_what_fits_is_annotated_once_and_the_rest_is_named(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos
) -> None:
    first = run(bucket_client, studio, settings, two_labels, source)
    second = run(bucket_client, studio, settings, two_labels, source)
    assert (first.photos, first.annotated, first.before) == (7, 3, 0)
    assert (second.photos, second.annotated, second.before) == (7, 0, 3)
    for problem, expected in zip(
        first.problems, [*PROBLEMS, "z-again.png: duplicate: same bytes as a.png"], strict=True
    ):
        assert problem.startswith(expected)
    assert (
        str(first).splitlines()[0]
        == f"7 photos = 3 annotated + 0 annotated before + 4 without annotation; {FIRST_LINE}"
    )
    names = {ref.name for ref in gcs.list_objects(bucket_client, settings.source_bucket, "photos/")}
    assert names == {f"photos/theirs/{name}.png" for name in "abc"}


def test_a_dry_run_says_the_same_and_changes_nothing(
    bucket_client: Client, settings: Settings, two_labels: Params, source: LabelledPhotos
) -> None:
    report = dry_run(source, two_labels)
    lines = str(report).splitlines()
    assert lines[0] == (
        f"dry run, nothing is uploaded: 7 photos = 3 with an annotation + 4 without annotation; {FIRST_LINE}"
    )
    assert [line.strip().partition(":")[0] for line in lines[1:]] == [
        "broken.png",
        "lonely.png",
        "size.png",
        "z-again.png",
    ]
    assert not list(gcs.list_objects(bucket_client, settings.source_bucket, ""))


def test_splits_and_groups_are_written_before_any_annotation(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos
) -> None:
    run(bucket_client, studio, settings, two_labels, source)
    assert studio.origins() == {"a.png": ("val", "Spring"), "b.png": ("test", "Spring"), "c.png": ("", "")}
    written = [request.split()[0] for request in studio.requests if request.startswith(("PATCH", "POST /api/tasks/"))]
    assert written == ["POST", "POST", "POST"], "new tasks carry them from the start"
    regions = {region["id"] for _, result in studio.annotations for region in result}
    assert regions == {"import-3", "import-255"}


def test_a_photo_that_the_project_has_already_takes_the_more_protective_split(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos, folder: Path
) -> None:
    gcs.put(
        bucket_client, settings.source_bucket, "photos/mine.png", (folder / "images/b.png").read_bytes(), "image/png"
    )
    gcs.put(bucket_client, settings.source_bucket, settings.catalog, source.catalog(), "text/csv")
    report = run(bucket_client, studio, settings, two_labels, source)
    assert studio.origins()["mine.png"] == ("test", "Spring")
    assert any(problem.startswith("b.png: duplicate: same bytes as") for problem in report.problems)
    (folder / "photos.csv").write_text("file,split,group\nb.png,train,Autumn\n", encoding="utf-8")
    run(bucket_client, studio, settings, two_labels, read_labelled_photos(folder, LabelNames(two_labels)))
    assert studio.origins()["mine.png"] == ("test", "Spring")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_import_that_ended_early_is_continued(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos, at: int
) -> None:
    studio.dies_at = at
    with pytest.raises(Exception, match="no space"):
        run(bucket_client, studio, settings, two_labels, source)
    assert {split for split, _ in studio.origins().values()} == {"val", "test", ""}
    studio.dies_at = 0
    report = run(bucket_client, studio, settings, two_labels, source)
    assert (report.annotated, report.before) == (4 - at, at - 1)
    assert sorted(task_id for task_id, _ in studio.annotations) == [1, 2, 3]


def test_an_import_that_ended_before_splits_were_written_writes_them_when_it_is_continued(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(importer, "_write_origins", lambda *_: (_ for _ in ()).throw(StorageError("killed here")))
        with pytest.raises(StorageError, match="killed here"):
            run(bucket_client, studio, settings, two_labels, source)
    assert not studio.annotations
    run(bucket_client, studio, settings, two_labels, source)
    assert studio.origins()["b.png"] == ("test", "Spring")


def test_unknown_labels_stop_before_anything_is_uploaded(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, folder: Path
) -> None:
    (folder / "labels.csv").write_text("index,label\n255,void\n", encoding="utf-8")
    source = read_labelled_photos(folder, LabelNames(two_labels))
    with pytest.raises(ConfigurationError, match=r"1 in a\.png and 4 more"):
        run(bucket_client, studio, settings, two_labels, source)
    assert not list(gcs.list_objects(bucket_client, settings.source_bucket, ""))
    assert not studio.requests


def test_suffixes_that_ingest_does_not_take_are_named(two_labels: Params, folder: Path) -> None:
    (folder / "images" / "a.png").rename(folder / "images" / "a.tif")
    ingest = two_labels.ingest.model_copy(update={"suffixes": (".png",)})
    params = two_labels.model_copy(update={"ingest": ingest})
    source = read_labelled_photos(folder, LabelNames(params))
    assert "a.tif: it has none of the suffixes .png; convert it" in dry_run(source, params).problems


def test_masks_of_large_photos_keep_every_pixel(
    bucket_client: Client, studio: Studio, settings: Settings, two_labels: Params, source: LabelledPhotos
) -> None:
    ingest = two_labels.ingest.model_copy(update={"editor_megapixels": 6e-6})

    report = run(bucket_client, studio, settings, two_labels.model_copy(update={"ingest": ingest}), source)

    assert report.annotated == 3
    assert all("original" not in task["data"] for task in studio.tasks)
    sizes = {(r["original_height"], r["original_width"]) for _, result in studio.annotations for r in result}
    assert sizes == {(4, 6)}
