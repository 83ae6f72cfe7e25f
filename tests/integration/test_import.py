"""Labelled photos of other makers become annotations, and with a sync part of a dataset."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.pipeline import sync
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.exchange.export import export
from pipelines.exchange.importer import ImportReport, import_labelled
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import LabelledPhotos
from pipelines.exchange.masked_photos import MaskedPhotos, masked_photos
from pipelines.exchange.readers import read_labelled_photos
from pipelines.params import load_params

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
CCP = Path(os.environ.get("MASKLOOP_CCP", "/nonexistent"))


def imported(archive, source: LabelledPhotos) -> ImportReport:
    params = load_params(archive.settings.params_path)
    return import_labelled(archive.bucket, archive.labels, archive.settings, params, source, "theirs")


def photos_with_masks(folder: Path) -> None:
    """Five labelled photos, one of them with a mask of another size, one that is no photo, and a copy of the first."""
    rng = np.random.default_rng(4)
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    for number in range(5):
        mask = np.zeros((40, 30), np.uint8)
        mask[5 : 20 + number, 4:20], mask[25:30, 10:12], mask[35:38, 20:28] = 1, 2, 255
        if number == 3:
            mask = mask[:30]
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / "4.png").write_bytes(b"no photo")
    for name in ("photos", "masks"):
        (folder / name / "5.png").write_bytes((folder / name / "0.png").read_bytes())
    (folder / "labels.csv").write_text("index,label\n0,\n1,coat\n2,bag-belt\n255,void\n", encoding="utf-8")


def test_labelled_photos_become_annotations_once_and_a_dataset(make_archive, tmp_path) -> None:
    photos_with_masks(tmp_path)
    archive = make_archive("imports")
    params = load_params(archive.settings.params_path)
    source = masked_photos(tmp_path / "photos", tmp_path / "masks", tmp_path / "labels.csv", params)

    first, second = imported(archive, source), imported(archive, source)

    assert (first.photos, first.annotated, first.before) == (6, 3, 0)
    assert (second.photos, second.annotated, second.before) == (6, 0, 3)
    assert [problem.partition(": ")[0] for problem in first.problems] == ["3.png", "4.png", "5.png"]
    assert "its mask has 30×30 pixels, the photo 30×40" in first.problems[0]
    assert "not-an-image" in first.problems[1]
    assert "duplicate: same bytes as" in first.problems[2]

    version = sync(archive.bucket, archive.labels, archive.settings)

    assert version.photos == 3
    workspace = Workspace(archive.settings.workspace_path, archive.settings)
    manifest = pd.read_parquet(workspace.path / MANIFEST)
    ids = params.label_ids
    for row in manifest.to_dict("records"):
        number = int(Path(row["uri"]).stem)
        mask = Dataset(workspace.path).read_mask(row["sha256"])
        np.testing.assert_array_equal(mask, source.truth(f"{number}.png"))
        assert json.loads(row["label_pixels"]) == {"coat": (15 + number) * 16, "bag-belt": 10}
        assert row["ignored_pixels"] == 24
        assert (row["regions_manual"], row["prediction_version"]) == (3, "")
    assert {ids["coat"], ids["bag-belt"]} == set(manifest["class_ids"][0])

    published = Published(workspace)
    assert export(published, version.tag, "png", tmp_path / "out", params).written == 3
    again = masked_photos(tmp_path / "out/images", tmp_path / "out/masks", tmp_path / "out/labels.csv", params)
    for name in again.take(0, 9):
        np.testing.assert_array_equal(again.truth(name), source.truth(name))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "photos.csv").read_text(encoding="utf-8"))))
    assert {row["sha256"] for row in rows} == set(manifest["sha256"])

    second_project = make_archive("imports-again")
    table = (tmp_path / "out" / "photos.csv").read_text(encoding="utf-8")
    first_sha256 = manifest["sha256"][0]
    moved = manifest.assign(split=["test" if sha256 == first_sha256 else "train" for sha256 in manifest["sha256"]])
    for row in rows:  # a test photo and two for training, whatever the first project made of them
        split = dict(zip(moved["sha256"], moved["split"], strict=True))[row["sha256"]]
        table = table.replace(f"{row['file']},{row['split']},", f"{row['file']},{split},")
    (tmp_path / "out" / "photos.csv").write_text(table, encoding="utf-8")
    report = imported(second_project, read_labelled_photos(tmp_path / "out", LabelNames(params)))
    assert (report.annotated, report.problems) == (3, ())
    sync(second_project.bucket, second_project.labels, second_project.settings)
    folder = second_project.settings.workspace_path
    columns = ["sha256", "split", "group"]
    kept = pd.read_parquet(folder / MANIFEST)[columns].sort_values("sha256").to_dict("records")
    assert kept == moved[columns].sort_values("sha256").to_dict("records")
    for sha256 in manifest["sha256"]:
        np.testing.assert_array_equal(Dataset(folder).read_mask(sha256), Dataset(workspace.path).read_mask(sha256))


@pytest.mark.skipif(  # the project holds no photos of other people; drawn ones are tested above
    not CCP.exists(), reason="MASKLOOP_CCP names no folder with the CCP photos (photos/, masks/, labels.csv)"
)
def test_ccp_photos_are_imported_pixel_by_pixel(make_archive) -> None:
    archive = make_archive("ccp")
    params = load_params(archive.settings.params_path)
    everything = masked_photos(CCP / "photos", CCP / "masks", CCP / "labels.csv", params)
    names = everything.take(0, 20)

    class Some(MaskedPhotos):
        def take(self, first: int, count: int) -> list[str]:
            return names[first : first + count]

    report = imported(archive, Some(everything.photos, everything.masks, everything.label_of_value))
    assert (report.annotated, report.problems) == (20, ())
    sync(archive.bucket, archive.labels, archive.settings)
    folder = archive.settings.workspace_path
    for row in pd.read_parquet(folder / MANIFEST).to_dict("records"):
        truth = everything.truth(Path(row["uri"]).name)
        np.testing.assert_array_equal(Dataset(folder).read_mask(row["sha256"]), truth)
