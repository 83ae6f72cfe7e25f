"""The ingest pipeline against a real bucket server and a Label Studio that answers from lists."""

import csv
import io
import logging
from dataclasses import replace

import numpy as np
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines.errors import CatalogError, StorageError
from pipelines.gcs import client as gcs
from pipelines.ingest.intake import Problem, drop_duplicate_photos
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import REPORT, IngestReport
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS, ImageRef, ObjectRef
from pipelines.settings import Settings
from tests.unit.ingest.conftest import LabelStudio, Run, counts, png, put

PHOTO = ImageRef("gs://archive/photos/a.png", 1, "aa", 30, 20)


class TestIngest:
    def test_photos_become_tasks_with_identity_and_metadata(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        assert counts(run()) == (2, 0, 0, 0, 1)
        first, second = (task["data"] for task in label_studio.tasks)
        ref = gcs.stat(bucket_client, archive_of_two.source_bucket, "photos/a.png")
        assert (first["image"], first["generation"]) == (ref.uri, str(ref.generation))
        assert (first["height"], first["width"], len(first["sha256"])) == (30, 20, 64)
        assert (first["collection"], first["typology.sub"], first["theme"]) == ("Autumn", "coat", "–")
        assert second["collection"] == "–"

    def test_a_second_run_changes_nothing(self, run: Run) -> None:
        run()
        assert counts(run()) == (0, 0, 2, 0, 1)

    def test_bad_photos_are_set_aside_with_a_reason_and_stop_nothing(
        self, run: Run, bucket_client: Client, archive_of_two: Settings
    ) -> None:
        put(bucket_client, archive_of_two, "photos/page.jpg", b"<html>")
        put(bucket_client, archive_of_two, "photos/empty.jpg", b"")
        put(bucket_client, archive_of_two, "photos/half.png", png(40)[:60])
        put(bucket_client, archive_of_two, "photos/half-again.png", png(40)[:60])
        put(bucket_client, archive_of_two, "photos/z-again.png", png(10))
        report = run()
        assert counts(report) == (2, 0, 0, 5, 1)
        assert {problem.uri.rpartition("/")[2]: problem.reason for problem in report.problems} == {
            "page.jpg": "not-an-image",
            "empty.jpg": "empty",
            "half.png": "truncated",
            "half-again.png": "truncated",
            "z-again.png": "duplicate",
        }

    def test_every_problem_is_a_line_of_the_reports_csv(
        self, run: Run, bucket_client: Client, archive_of_two: Settings
    ) -> None:
        put(bucket_client, archive_of_two, "photos/empty.jpg", b"")
        put(bucket_client, archive_of_two, "photos/z-again.png", png(10))
        put(bucket_client, archive_of_two, "photos/wrong.jpg", png(40))

        report = run()

        ref = gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT)
        lines = list(csv.DictReader(io.StringIO(gcs.read(bucket_client, ref).decode("utf-8-sig"))))
        reported = [
            (line["uri"].rpartition("/")[2], line["reason"], line["set aside"])
            for line in lines
            if line["reason"] != "catalogue"
        ]
        assert reported == [
            ("b.PNG", "no-row", "no"), ("empty.jpg", "empty", "yes"), ("wrong.jpg", "mislabelled", "no"),
            ("wrong.jpg", "no-row", "no"), ("z-again.png", "duplicate", "yes"),
        ]  # fmt: skip
        assert all(line["message"] and line["generation"].isdigit() for line in lines)
        assert len(report.problems) + len(report.notes) == len(lines)
        run()
        assert gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT) != ref, "notes of new photos are gone"

    def test_animations_are_set_aside(self, run: Run, bucket_client: Client, archive_of_two: Settings) -> None:
        frames = [Image.fromarray(np.full((30, 20, 3), shade, np.uint8)) for shade in (1, 99)]
        for kind in ("webp", "png"):
            file = io.BytesIO()
            frames[0].save(file, kind, save_all=True, append_images=frames[1:])
            put(bucket_client, archive_of_two, f"photos/moving.{kind}", file.getvalue())
        report = run()
        assert [problem.reason for problem in report.problems] == ["animated", "animated"]

    def test_a_photo_too_large_is_not_decoded(
        self, bucket_client: Client, labels: LabelStudioClient, archive_of_two: Settings, params: Params
    ) -> None:
        small = params.model_copy(update={"ingest": params.ingest.model_copy(update={"max_megapixels": 0.001})})
        report = ingest(bucket_client, labels, archive_of_two, small)
        assert [(p.uri.rpartition("/")[2], p.reason) for p in report.problems] == [("b.PNG", "too-large")]

    def test_duplicates_are_known_from_the_listing_and_not_read(
        self, run: Run, bucket_client: Client, archive_of_two: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(bucket_client, archive_of_two, "photos/0-copy-of-a.png", png(10))
        run()
        read: list[str] = []
        real = gcs.read
        monkeypatch.setattr(
            "pipelines.ingest.intake.read",
            lambda client, ref, **more: read.append(ref.name) or real(client, ref, **more),
        )
        put(bucket_client, archive_of_two, "photos/00-copy-of-a.png", png(10))
        report = run()
        assert read == []
        assert [(p.reason, p.message) for p in report.problems] == [
            (
                "duplicate",
                f"same bytes as gs://{archive_of_two.source_bucket}/photos/0-copy-of-a.png, which has the task",
            )
        ] * 2

    def test_an_object_that_vanishes_while_it_is_read_is_gone(
        self, run: Run, bucket_client: Client, archive_of_two: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = gcs.read

        def late(client: Client, ref: ObjectRef, **more: int) -> bytes:
            gcs.delete(client, ref)
            return real(client, ref, **more)

        monkeypatch.setattr("pipelines.ingest.intake.read", late)
        report = run()
        assert counts(report) == (0, 0, 0, 2, 1)
        assert {problem.reason for problem in report.problems} == {"gone"}

    def test_photos_that_look_alike_have_close_hashes(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (12, 8, 3), np.uint8)).resize((80, 120))
        for name, quality in (("one", 95), ("two", 40)):
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            put(bucket_client, archive_of_two, f"photos/{name}.jpg", file.getvalue())
        run()
        hashes = {
            task["data"]["image"].rpartition("/")[2]: int(task["data"]["phash"], 16) for task in label_studio.tasks
        }
        assert (hashes["one.jpg"] ^ hashes["two.jpg"]).bit_count() <= 4
        assert (hashes["one.jpg"] ^ hashes["a.png"]).bit_count() > 10

    def test_tasks_made_twice_by_a_killed_run_become_one(self, run: Run, label_studio: LabelStudio) -> None:
        run()
        label_studio.tasks += [{"id": 7, "data": label_studio.tasks[0]["data"], "total_annotations": 1}]
        label_studio.tasks += [{"id": 8, "data": label_studio.tasks[0]["data"]}]
        assert counts(run()) == (0, 0, 2, 0, 1)
        assert [task["id"] for task in label_studio.tasks] == [2, 7], "what somebody worked on stays"

    def test_a_changed_catalogue_reaches_tasks_that_exist(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        run()
        label_studio.tasks[0]["data"]["remark"] = "theirs"
        header = ",".join(CATALOG_COLUMNS)
        put(bucket_client, archive_of_two, "catalogue.csv", f"{header}\na,2001,Winter,,,,Look 9,,,".encode())
        report = run()
        assert (counts(report), report.described) == ((0, 0, 2, 0, 1), 1)
        assert "2 unchanged (1 with new catalogue data)" in report.total
        data = label_studio.tasks[0]["data"]
        assert (data["year"], data["collection"], data["remark"]) == ("2001", "Winter", "theirs")
        assert run().described == 0

    def test_why_a_mask_looks_wrong_stays_said_until_the_photo_changes(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        run()
        for task in label_studio.tasks:
            task["data"] |= {"review": "0.871 · drawn as coat, the model sees dress", "batch": [7]}
        put(
            bucket_client,
            archive_of_two,
            "catalogue.csv",
            f"{','.join(CATALOG_COLUMNS)}\na,2001,Winter,,,,Look 9,,,".encode(),
        )
        put(bucket_client, archive_of_two, "photos/b.PNG", png(99, 70, 60))

        assert counts(run()) == (0, 1, 1, 0, 1)

        described, changed = (task["data"] for task in label_studio.tasks)
        assert (described["year"], described["review"]) == ("2001", "0.871 · drawn as coat, the model sees dress")
        assert "review" not in changed
        assert (described["batch"], changed["batch"]) == ([7], [7]), "what others wrote stays as it was written"

    def test_an_overwritten_photo_takes_over_a_task_that_nobody_opened(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        run()
        put(bucket_client, archive_of_two, "photos/a.png", png(99, 70, 60))
        assert counts(run()) == (0, 1, 1, 0, 1)
        assert [task["data"]["height"] for task in label_studio.tasks] == [70, 50]
        assert label_studio.predictions_deleted == [1]

    def test_an_overwritten_photo_that_somebody_worked_on_gets_a_new_task(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        run()
        label_studio.tasks[0]["total_annotations"] = 1
        put(bucket_client, archive_of_two, "photos/a.png", png(99, 70, 60))
        with caplog.at_level(logging.WARNING, "pipelines.ingest.publish"):
            assert counts(run()) == (1, 0, 1, 0, 1)
        assert [task["data"]["height"] for task in label_studio.tasks] == [30, 50, 70]
        assert "photos/a.png was overwritten after somebody worked on it" in caplog.text

    def test_a_missing_catalogue_stops_before_any_task(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        gcs.delete(bucket_client, gcs.stat(bucket_client, archive_of_two.source_bucket, "catalogue.csv"))
        with pytest.raises(CatalogError, match=r"no catalogue gs://.+/catalogue\.csv; upload it, or set MASKLOOP_"):
            run()
        assert label_studio.tasks == []

    def test_a_new_archive_without_photos_and_catalogue_has_nothing_to_do(
        self, bucket_client: Client, labels: LabelStudioClient, settings: Settings, params: Params
    ) -> None:
        for bucket in (settings.source_bucket, settings.target_bucket):
            gcs.ensure_bucket(bucket_client, bucket)
        assert counts(ingest(bucket_client, labels, settings, params)) == (0, 0, 0, 0, 0)

    def test_a_missing_bucket_is_named(
        self, bucket_client: Client, labels: LabelStudioClient, settings: Settings, params: Params
    ) -> None:
        with pytest.raises(StorageError, match=f"gs://{settings.source_bucket} does not exist"):
            ingest(bucket_client, labels, settings, params)


class TestDuplicates:
    def test_the_first_of_equal_photos_is_kept(self) -> None:
        again = replace(PHOTO, uri="gs://archive/photos/b.png")
        unique, duplicates = drop_duplicate_photos([PHOTO, again], {})
        assert unique == [PHOTO]
        assert duplicates == [Problem(again.uri, "duplicate", f"same bytes as {PHOTO.uri}, which has the task", 1)]

    def test_a_photo_that_has_a_task_owns_its_bytes(self) -> None:
        again = replace(PHOTO, uri="gs://archive/photos/0.png")
        unique, duplicates = drop_duplicate_photos([again], {PHOTO.sha256: PHOTO.uri})
        assert (unique, [problem.uri for problem in duplicates]) == ([], [again.uri])

    def test_a_new_generation_with_the_old_bytes_is_no_duplicate(self) -> None:
        newer = replace(PHOTO, generation=2)
        assert drop_duplicate_photos([newer], {PHOTO.sha256: PHOTO.uri}) == ([newer], [])

    def test_other_bytes_are_no_duplicates(self) -> None:
        other = replace(PHOTO, uri="gs://archive/photos/b.png", sha256="bb")
        assert drop_duplicate_photos([PHOTO, other], {}) == ([PHOTO, other], [])


class TestReport:
    def test_one_line_adds_up_and_problems_follow(self) -> None:
        problems = (Problem("gs://a/x", "empty", "upload it again"), Problem("gs://a/y", "empty", "upload it again"))
        report = IngestReport(listed=9, created=3, updated=1, unchanged=2, ignored={".txt": 1}, problems=problems)
        first, *rest = str(report).splitlines()
        assert first == "9 listed = 3 new + 1 changed + 2 unchanged + 2 set aside (2 empty) + 1 not photos (1 .txt)"
        assert rest == ["  empty: gs://a/x: upload it again", "  empty: gs://a/y: upload it again"]

    def test_the_csv_holds_no_formulas(self) -> None:
        report = IngestReport(
            1, problems=(Problem("gs://a/x", "empty", "=HYPERLINK(1)"), Problem("@b", "empty", "m, n"))
        )
        assert report.as_csv().decode("utf-8-sig").splitlines()[1:] == [
            "'@b,,empty,yes,\"m, n\"", "gs://a/x,,empty,yes,'=HYPERLINK(1)"
        ]  # fmt: skip

    def test_no_problem_needs_no_reasons(self) -> None:
        assert (
            str(IngestReport(1, created=1)) == "1 listed = 1 new + 0 changed + 0 unchanged + 0 set aside + 0 not photos"
        )
