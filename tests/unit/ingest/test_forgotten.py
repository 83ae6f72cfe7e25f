"""What was removed on request is recognised by its bytes, whatever the object is called now."""

from collections.abc import Callable

import pytest
from google.cloud.storage import Client

from pipelines.errors import DataError
from pipelines.forget.ledger import LEDGER, change_forgotten
from pipelines.gcs import client as gcs
from pipelines.ingest.report import REPORT, IngestReport
from pipelines.photos.decode import sha256_hex
from pipelines.settings import Settings
from tests.unit.ingest.conftest import counts, png, put

Run = Callable[[], IngestReport]


def test_a_forgotten_photo_is_reported_counted_and_never_a_task(
    run: Run, bucket_client: Client, archive_of_two: Settings
) -> None:
    sha256 = sha256_hex(png(10))
    change_forgotten(bucket_client, archive_of_two.target_bucket, lambda forgotten: forgotten.with_photos([sha256]))
    put(bucket_client, archive_of_two, "photos/again/other-name.png", png(10))
    for _ in range(2):
        report = run()
        assert [(problem.uri.rpartition("/")[2], problem.reason) for problem in report.problems] == [
            ("a.png", "forgotten"), ("other-name.png", "forgotten"),
        ]  # fmt: skip
        counts(report)
    ref = gcs.stat(bucket_client, archive_of_two.target_bucket, REPORT)
    assert ref is not None
    assert sha256.encode() not in gcs.read(bucket_client, ref)

    change_forgotten(bucket_client, archive_of_two.target_bucket, lambda forgotten: forgotten.without_photo(sha256))
    assert run().created == 1


def test_a_damaged_list_stops_the_run_before_anything_comes_back(
    run: Run, bucket_client: Client, archive_of_two: Settings
) -> None:
    gcs.put(bucket_client, archive_of_two.target_bucket, LEDGER, b'{"photos": []', "application/json")
    with pytest.raises(DataError, match="restore an older generation"):
        run()
