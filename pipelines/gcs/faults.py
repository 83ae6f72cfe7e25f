"""Errors of Google Cloud Storage and its client library in words that name the true cause and what to do next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    RetryError,
    TooManyRequests,
    Unauthorized,
    from_http_response,
)
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.exceptions import ChunkedEncodingError, ConnectTimeout, RequestException, Timeout

from pipelines.errors import (
    CredentialsError,
    MaskloopError,
    ObjectDamagedError,
    ObjectStalledError,
    ObjectUnusableError,
    StorageError,
)

_ROLE = (
    "give this identity the role roles/storage.objectViewer on the source bucket, and "
    "roles/storage.objectAdmin on the target and dataset buckets"
)
_BILLING = "set MASKLOOP_BILLING_PROJECT to the Google Cloud project that pays for the requests"
_MAX_MESSAGE = 300  # characters of what the server said

Refusal = Callable[[str], MaskloopError]
# What the server's words mean, by parts of them in lower case; the first that fits counts.
_REFUSALS: tuple[tuple[tuple[str, ...], Refusal], ...] = (
    (
        ("requester pays", "requester-pays", "userproject", "user project", "serviceusage.services.use"),
        lambda said: StorageError(f"the requester pays for this bucket: {said}; {_BILLING}"),
    ),
    (
        ("customer-supplied encryption", "customer supplied encryption", "customerencryption", "encryption key"),
        lambda said: ObjectUnusableError(
            f"the object is encrypted with a key that only its owner has: {said}; store it again without that key, "
            "or with a key of Cloud KMS"
        ),
    ),
    (
        ("cloudkms", "kms"),
        lambda said: CredentialsError(
            f"its key in Cloud KMS cannot be used: {said}; give the project's storage service agent the role "
            "roles/cloudkms.cryptoKeyEncrypterDecrypter, or enable the key's version"
        ),
    ),
    (
        ("billing", "accountdisabled"),
        lambda said: StorageError(f"the billing of the bucket's project is off: {said}; turn it on and run again"),
    ),
    (
        ("vpcservicecontrols", "organization's policy", "service perimeter", "vpc"),
        lambda said: CredentialsError(
            f"a VPC service perimeter keeps this machine out: {said}; run inside the perimeter, or let it in by an "
            "ingress rule"
        ),
    ),
    (
        ("temporary hold", "event-based hold", "activehold", " hold", "retention"),
        lambda said: StorageError(
            f"a hold or a retention policy protects the object: {said}; release it, or wait until it ends"
        ),
    ),
)


@contextmanager
def explained(uri: str, bucket: str) -> Iterator[None]:
    """Turn the client library's errors into Maskloop's, which say what, where and what to do next."""
    try:
        yield
    except (
        GoogleAPICallError,
        RetryError,
        GoogleAuthError,
        RequestException,
        DataCorruption,
        InvalidResponse,
    ) as error:
        raise explain(error, uri, bucket) from error


def explain(error: BaseException, uri: str, bucket: str) -> MaskloopError:
    """Return Maskloop's error for one of the client library; `uri` is what was asked for, in `bucket`."""
    if isinstance(error, RetryError) and error.cause is not None:
        return explain(error.cause, uri, bucket)
    if isinstance(error, InvalidResponse):  # of a download
        return explain(from_http_response(error.response), uri, bucket)  # type: ignore[no-untyped-call]  # the library's
    if isinstance(error, NotFound):
        return missing_bucket(bucket)
    if isinstance(error, DataCorruption):
        return ObjectDamagedError(f"{uri}: the bytes were damaged on the way ({_short(error)}); run again")
    if isinstance(error, GoogleAPICallError):
        return _explain_answer(error, uri)
    if isinstance(error, TransportError) and error.args and isinstance(error.args[0], BaseException):
        return explain(error.args[0], uri, bucket)
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        return _explain_credentials(error, uri)
    return _explain_connection(error, uri)


def missing_bucket(bucket: str) -> StorageError:
    """Return the error for a bucket that does not exist."""
    return StorageError(
        f"bucket gs://{bucket} does not exist; create it with `maskloop buckets setup`, or set MASKLOOP_SOURCE_BUCKET, "
        "MASKLOOP_TARGET_BUCKET or MASKLOOP_DVC_BUCKET to the bucket that is meant"
    )


def _explain_answer(error: GoogleAPICallError, uri: str) -> MaskloopError:
    """Explain an HTTP status: the server is up and said why it does not do what it was asked for."""
    said, code = _short(error), int(error.code or 0)
    words = str(error).lower()
    if code in (400, 403, 412):
        for parts, refusal in _REFUSALS:
            if any(part in words for part in parts):
                explanation = refusal(said)
                return type(explanation)(f"{uri}: {explanation}")
    if isinstance(error, Unauthorized | Forbidden):
        return CredentialsError(f"Google Cloud Storage refuses access to {uri}: {said}; {_ROLE}")
    if isinstance(error, TooManyRequests):
        return StorageError(f"{uri}: the bucket server asks for fewer requests (HTTP 429: {said}); run again later")
    if code >= 500 or code == 408:
        return StorageError(
            f"{uri}: the bucket server is up and answers HTTP {code}, also when asked again ({said}); run again later"
        )
    return StorageError(f"{uri}: the bucket server refuses the request with HTTP {code} ({said}); run again")


def _explain_credentials(error: GoogleAuthError, uri: str) -> MaskloopError:
    if isinstance(error, RefreshError):
        return CredentialsError(
            f"Google's credentials cannot be renewed ({_short(error)}); run `gcloud auth application-default login` "
            "again"
        )
    return CredentialsError(
        f"the bucket server wants credentials for {uri}, and there are none that it accepts ({_short(error)}); "
        "run `gcloud auth application-default login`, or set MASKLOOP_GOOGLE_KEY"
    )


def _explain_connection(error: BaseException, uri: str) -> MaskloopError:
    if not isinstance(error, ConnectTimeout) and (isinstance(error, Timeout) or "read timed out" in str(error).lower()):
        return ObjectStalledError(f"{uri}: the bucket server stopped answering in the middle; run again later")
    if isinstance(error, ChunkedEncodingError):
        return StorageError(f"{uri}: the connection to the bucket server broke again and again; run again later")
    return StorageError(f"cannot reach the bucket server for {uri}; is it up? (`maskloop doctor`)")


def _short(error: BaseException) -> str:
    """Return what the server said on one line, without the request's address."""
    text = str(getattr(error, "message", "") or error)
    if text.startswith(("GET ", "POST ", "PUT ", "DELETE ", "PATCH ", "HEAD ")):
        text = text.partition(": ")[2] or text
    text = " ".join(text.partition(": ('Request failed with status code'")[0].split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"
