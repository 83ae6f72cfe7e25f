"""What one read can meet: each object that cannot be read is a line with its true reason, and stops no other."""

import csv
import gzip
import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from PIL import Image

from pipelines.errors import ServiceError, StorageError
from pipelines.gcs import client as gcs
from pipelines.ingest import pipeline
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import REPORT, IngestReport
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.photos.decode import decode_image
from pipelines.settings import Settings
from tests.faulty_bucket import Fault, FaultyBucket, faulty_bucket
from tests.unit.ingest.conftest import LabelStudio, Run, counts, png, put

# An answer of Google Cloud Storage for one object, the reason in the report, and words of the message.
ANSWERS = {
    "permission": (Fault(403, "x@y does not have storage.objects.get access"), "refused", "roles/storage.objectViewer"),
    "billing": (Fault(403, "The billing account for the owning project is disabled"), "unavailable", "billing"),
    "perimeter": (
        Fault(403, "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: ab"),
        "refused", "service perimeter",
    ),
    "requester pays": (
        Fault(400, "Bucket is a requester pays bucket but no user project provided."),
        "unavailable", "MASKLOOP_BILLING_PROJECT",
    ),
    "own key": (
        Fault(400, "The target object is encrypted by a customer-supplied encryption key."),
        "unreadable", "only its owner has",
    ),
    "kms": (
        Fault(403, "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account"),
        "refused", "cloudkms.cryptoKeyEncrypterDecrypter",
    ),
    "busy": (Fault(429, "rateLimitExceeded"), "unavailable", "asks for fewer requests"),
    "server error": (Fault(503, "backendError"), "unavailable", "is up and answers HTTP 503"),
    "damaged": (Fault(body="corrupt"), "unreadable", "damaged on the way"),
    "gone": (Fault(404, "No such object"), "gone", "deleted, moved or overwritten"),
    "stalled": (Fault(body="stall", seconds=2), "stalled", "stopped answering in the middle"),
    "cut off": (Fault(body="reset"), "unavailable", "bucket server"),
}  # fmt: skip


@pytest.fixture
def faulty(bucket_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBucket]:
    """A proxy with faults; the client gives up in a second or two what takes a minute otherwise."""
    retry = {"retry": gcs.DEFAULT_RETRY.with_delay(initial=0.05, multiplier=2, maximum=0.2).with_timeout(1)}
    monkeypatch.setattr(gcs, "_DOWNLOAD", {**retry, "timeout": (5, 0.5)})
    with faulty_bucket(bucket_server) as proxy:
        yield proxy


@pytest.fixture
def faulty_client(faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", faulty.url)
    return Client(project="test", credentials=AnonymousCredentials())


@pytest.fixture
def run_faulty(
    faulty_client: Client, labels: LabelStudioClient, archive_of_two: Settings, params: Params
) -> Callable[[], IngestReport]:
    return lambda: ingest(faulty_client, labels, archive_of_two, params)


@pytest.mark.parametrize("name", ANSWERS)
def test_one_object_is_one_line_with_its_true_reason(
    run_faulty: Run, faulty: FaultyBucket, label_studio: LabelStudio, name: str
) -> None:
    fault, reason, words = ANSWERS[name]
    faulty.faults["photos/a.png"] = fault

    report = run_faulty()

    assert counts(report) == (1, 0, 0, 1, 1)
    [problem] = report.problems
    assert (problem.uri.rpartition("/")[2], problem.reason) == ("a.png", reason)
    assert words in problem.message
    assert "is it up?" not in problem.message or name == "cut off"
    faulty.faults.clear()
    assert counts(run_faulty()) == (1, 0, 1, 0, 1)
    assert len(label_studio.tasks) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body="stall", times=2, seconds=2), Fault(body="corrupt", times=2), Fault(503, times=2),
        Fault(body="cut", times=1),
    ],
    ids=["stalled", "damaged", "busy", "cut off"],
)  # fmt: skip
def test_what_passes_is_read_again(run_faulty: Run, faulty: FaultyBucket, fault: Fault) -> None:
    faulty.faults["photos/a.png"] = fault
    assert counts(run_faulty()) == (2, 0, 0, 0, 1)
    assert faulty.asked["photos/a.png"] > fault.times


def test_a_library_s_own_fault_costs_one_photo(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipelines.ingest import intake

    real = intake.examine_image

    def faulty(data: bytes, **more: float) -> tuple[int, int, str]:
        if len(data) % 2 == len(png(10)) % 2 and data == png(10):
            raise RecursionError("too deep")
        return real(data, **more)

    monkeypatch.setattr(intake, "examine_image", faulty)
    report = run()
    assert counts(report) == (1, 0, 0, 1, 1)
    assert "RecursionError" in report.problems[0].message


def test_fifty_photos_of_twelve_hundred_that_cannot_be_read(
    run_faulty: Run, faulty: FaultyBucket, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
) -> None:
    broken = {"empty": b"", "page": b"<html>", "half": png(3)[:60]}
    for number in range(1198):
        put(bucket_client, archive_of_two, f"photos/{number:04}.png", png(number % 250, 8 + number // 250, 8))
    for place, (fault, _, _) in enumerate(ANSWERS.values()):
        for number in range(4):
            faulty.faults[f"photos/{100 * place + 7 * number:04}.png"] = fault
    for name, data in list(broken.items())[:2]:
        put(bucket_client, archive_of_two, f"photos/{name}.png", data)

    report = run_faulty()

    assert report.listed == 1203
    assert counts(report) == (1152, 0, 0, 50, 1)
    assert len({(problem.uri, problem.reason) for problem in report.problems}) == 50
    assert len(label_studio.tasks) == report.created
    stored = gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT)
    lines = csv.DictReader(io.StringIO(gcs.read(bucket_client, stored).decode("utf-8-sig")))
    assert sum(line["set aside"] == "yes" for line in lines) == 50


def test_a_server_that_delivers_nothing_ends_the_run_with_a_report(
    run_faulty: Run, faulty: FaultyBucket, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pipeline, "_CHUNK", 10)
    for number in range(100):
        put(bucket_client, archive_of_two, f"photos/{number:04}.png", png(number, 9))
        if number >= 20:
            faulty.faults[f"photos/{number:04}.png"] = Fault(503, "backendError")

    with pytest.raises(StorageError, match=r"50 photos in a row could not be read, the last one because: .*HTTP 503"):
        run_faulty()

    assert len(label_studio.tasks) == 20, "what was read before is kept"
    stored = gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT)
    lines = list(csv.DictReader(io.StringIO(gcs.read(bucket_client, stored).decode("utf-8-sig"))))
    assert sum(line["reason"] == "unavailable" for line in lines) == 50
    faulty.faults.clear()
    assert counts(run_faulty()) == (82, 0, 20, 0, 1)


def test_photos_that_are_refused_in_a_row_end_nothing(
    run_faulty: Run, faulty: FaultyBucket, bucket_client: Client, archive_of_two: Settings
) -> None:
    """A condition on a folder refuses all of its photos, and the others are there to be labelled."""
    for number in range(80):
        put(bucket_client, archive_of_two, f"photos/{number:04}.png", png(number + 20))
        if number < 60:
            faulty.faults[f"photos/{number:04}.png"] = Fault(403, "no access")
    report = run_faulty()
    assert (report.created, len(report.problems)) == (22, 60)


def test_what_was_done_before_label_studio_fails_is_in_the_report(
    run: Run, bucket_client: Client, archive_of_two: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.ingest import publish

    monkeypatch.setattr(pipeline, "_CHUNK", 1)
    real, calls = publish.create_tasks, iter(range(2))

    def failing(*arguments: object) -> int:
        if next(calls):
            raise ServiceError("Label Studio answers HTTP 502")
        return real(*arguments)

    monkeypatch.setattr(publish, "create_tasks", failing)
    put(bucket_client, archive_of_two, "photos/0.png", b"")
    with pytest.raises(ServiceError, match="HTTP 502"):
        run()
    assert b"upload it again" in gcs.read(bucket_client, gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT))


class TestEncoded:
    """Objects with a content encoding, as `gcloud storage cp --gzip-local` writes them."""

    def upload(self, client: Client, settings: Settings, name: str, data: bytes, encoding: str = "gzip") -> None:
        blob = client.bucket(settings.source_bucket).blob(name)
        blob.content_encoding = encoding
        blob.upload_from_string(data, "image/png")

    def test_a_packed_photo_becomes_a_task_with_a_copy_to_show(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        self.upload(bucket_client, archive_of_two, "photos/packed.png", gzip.compress(png(44)))
        assert counts(run()) == (3, 0, 0, 0, 1)
        data = label_studio.tasks[2]["data"]
        assert data["original"] == f"gs://{archive_of_two.source_bucket}/photos/packed.png"
        assert data["image"].startswith(f"gs://{archive_of_two.target_bucket}/copies/")
        copy = gcs.stat(bucket_client, *gcs.split_uri(data["image"]))
        assert gcs.read(bucket_client, copy) == png(44)
        assert counts(run()) == (0, 0, 3, 0, 1)

    def test_a_label_that_is_not_true_costs_nothing(
        self, run: Run, bucket_client: Client, archive_of_two: Settings
    ) -> None:
        self.upload(bucket_client, archive_of_two, "photos/plain.png", png(45))
        assert counts(run()) == (3, 0, 0, 0, 1)

    def test_a_damaged_packing_is_one_line(self, run: Run, bucket_client: Client, archive_of_two: Settings) -> None:
        self.upload(bucket_client, archive_of_two, "photos/half.png", gzip.compress(png(46))[:-9])
        report = run()
        assert counts(report) == (2, 0, 0, 1, 1)
        assert "stored as gzip that is damaged" in report.problems[0].message

    def test_a_packed_bomb_is_one_line(
        self, run: Run, bucket_client: Client, archive_of_two: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipelines.ingest.intake._MAX_BYTES", 100_000)
        self.upload(bucket_client, archive_of_two, "photos/bomb.png", gzip.compress(bytes(10_000_000)))
        report = run()
        assert [problem.reason for problem in report.problems] == ["unreadable"]

    def test_a_packed_catalogue_is_read(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        plain = gcs.read(bucket_client, gcs.stat(bucket_client, archive_of_two.source_bucket, "catalogue.csv"))
        self.upload(bucket_client, archive_of_two, "catalogue.csv", gzip.compress(plain))
        run()
        assert label_studio.tasks[0]["data"]["collection"] == "Autumn"


class TestMasters:
    """Photos that browsers do not show."""

    @pytest.mark.parametrize(("kind", "suffix"), [("TIFF", ".tif"), ("BMP", ".bmp"), ("AVIF", ".avif")])
    def test_people_see_a_copy_of_the_same_size(
        self,
        run: Run,
        bucket_client: Client,
        label_studio: LabelStudio,
        archive_of_two: Settings,
        kind: str,
        suffix: str,
    ) -> None:
        file = io.BytesIO()
        picture = np.random.default_rng(0).integers(0, 4, (15, 10, 3), np.uint8).repeat(4, 0).repeat(4, 1) * 60
        Image.fromarray(picture).save(file, kind)
        put(bucket_client, archive_of_two, f"photos/master{suffix}", file.getvalue())

        assert counts(run()) == (3, 0, 0, 0, 1)

        data = label_studio.tasks[2]["data"]
        assert data["original"].endswith(f"photos/master{suffix}")
        assert (data["height"], data["width"]) == (60, 40)
        ref = gcs.stat(bucket_client, *gcs.split_uri(data["image"]))
        copy = decode_image(gcs.read(bucket_client, ref))
        assert np.abs(copy.astype(int) - decode_image(file.getvalue())).mean() < 4
        assert label_studio.copies_connected == [archive_of_two.target_bucket]
        assert counts(run()) == (0, 0, 3, 0, 1)
        assert gcs.stat(bucket_client, *gcs.split_uri(data["image"])) == ref, "it is made once"

    def test_a_master_that_becomes_a_jpeg_is_shown_itself(
        self, run: Run, bucket_client: Client, label_studio: LabelStudio, archive_of_two: Settings
    ) -> None:
        file = io.BytesIO()
        Image.new("RGB", (20, 30), (9, 9, 9)).save(file, "TIFF")
        put(bucket_client, archive_of_two, "photos/a.png", file.getvalue())
        run()
        assert "original" in label_studio.tasks[0]["data"]
        put(bucket_client, archive_of_two, "photos/a.png", png(9))
        assert run().updated == 1
        data = label_studio.tasks[0]["data"]
        assert ("original" in data, data["image"].endswith("photos/a.png")) == (False, True)
