"""One object that cannot be read is a problem of its own, and stops no other."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from google.cloud.storage import Client

from pipelines.gcs import client as gcs
from pipelines.ingest import intake
from pipelines.ingest.intake import PhotoIntake, Problem
from pipelines.records import ImageRef, ObjectRef


@pytest.fixture
def photo(bucket_client: Client, empty_bucket: str) -> ObjectRef:
    data = cv2.imencode(".png", np.full((40, 30, 3), 90, np.uint8))[1].tobytes()
    return gcs.put(bucket_client, empty_bucket, "a.png", data, "image/png")


def test_a_file_with_too_many_bytes_is_set_aside(
    bucket_client: Client, photo: ObjectRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_BYTES", 50)

    problem, _ = PhotoIntake(bucket_client, 100, photo.bucket).read(photo)

    assert isinstance(problem, Problem)
    assert (problem.reason, problem.uri) == ("unreadable", photo.uri)
    assert "upload a smaller photo" in problem.message


def test_other_bytes_than_listed_are_set_aside_until_the_next_run(bucket_client: Client, photo: ObjectRef) -> None:
    reader = PhotoIntake(bucket_client, 100, photo.bucket)

    problem, _ = reader.read(replace(photo, md5=gcs.md5_base64(b"else")))
    fine, _ = reader.read(photo)

    assert isinstance(problem, Problem)
    assert problem.reason == "unreadable"
    assert isinstance(fine, ImageRef)
