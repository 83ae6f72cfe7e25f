"""What the source and the target bucket hold, in every generation of every object."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from google.cloud.storage import Client

from pipelines.dataset.object_names import listed_md5
from pipelines.errors import CredentialsError, ModelError, StorageError
from pipelines.forget.content import LARGEST, is_picture, names_subject
from pipelines.forget.ledger import LEDGER
from pipelines.forget.subjects import Photo, Subjects
from pipelines.forget.traces import Trace
from pipelines.gcs.client import COPIES, EMBEDDINGS, put, read, set_pool_size, split_uri, stat
from pipelines.gcs.generations import delete_for_good, list_generations, list_soft_deleted
from pipelines.gcs.threads import REQUESTS, in_threads
from pipelines.ingest.catalog import read_catalog
from pipelines.ingest.report import REPORT
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.records import ObjectRef, PhotoAddress
from pipelines.segmentation.embeddings import embedding_name
from pipelines.settings import Settings

_COPY_SUFFIXES = (".jpg", ".png", ".webp")
_ANNOTATIONS, _CHECKS = "annotations/", "checks/"
_NOT_SEARCHED = (COPIES, EMBEDDINGS)  # pictures and numbers, which are identified by their names


class SourceBucket:
    """The photos: every generation whose bytes are those of a photo, wherever it lies in the bucket."""

    name = "source bucket"

    def __init__(self, client: Client, settings: Settings, params: Params, subjects: Subjects) -> None:
        self._client, self._settings, self._params, self._subjects = client, settings, params, subjects
        self._listed = {listed_md5(md5) for md5 in subjects.md5s}

    def traces(self) -> Iterator[Trace]:
        """Yield the generations that are the photos, those that are soft-deleted, and rows of the catalogue."""
        if not self._subjects.photos:
            return
        set_pool_size(self._client, REQUESTS)
        refs = list(list_generations(self._client, self._settings.source_bucket))
        elsewhere = {
            split_uri(uri) for photo in self._subjects.photos for uri, _ in photo.addresses
        } - {(ref.bucket, ref.name) for ref in refs}  # fmt: skip
        for bucket, name in sorted(elsewhere):
            if bucket != self._settings.source_bucket:  # the archive lay there before
                try:
                    refs += [ref for ref in list_generations(self._client, bucket, name) if ref.name == name]
                except (StorageError, CredentialsError) as error:
                    yield Trace(self.name, "photo in another bucket", f"gs://{bucket}/{name}", 0, None, str(error))
        for ref, is_subject in zip(refs, in_threads(self._is_subject, refs), strict=True):
            if is_subject:
                remove = partial(delete_for_good, self._client, ref)
                yield Trace(self.name, "photo", f"{ref.uri}#{ref.generation}", max(ref.size, 0), remove)
        yield from soft_deleted(self.name, self._client, self._settings.source_bucket, self._is_listed)
        yield from self._catalogue_rows()

    def _is_listed(self, ref: ObjectRef) -> bool:
        return bool(ref.md5) and ref.md5 in self._listed

    def _is_subject(self, ref: ObjectRef) -> bool:
        """Return whether a generation holds a photo's bytes; read it where the listing does not say."""
        if self._is_listed(ref):
            return True
        is_composed = not ref.md5 and (ref.size in self._subjects.sizes or not self._subjects.sizes)
        if not (is_composed or ref.encoding):
            return False
        try:
            return sha256_hex(read(self._client, ref)) in self._subjects.hashes
        except (StorageError, CredentialsError):
            return False

    def _catalogue_rows(self) -> Iterator[Trace]:
        """Yield a trace for each photo that the catalogue describes; the catalogue is the archive's own file."""
        ref = stat(self._client, self._settings.source_bucket, self._settings.catalog)
        if ref is None:
            return
        data = read(self._client, ref)
        catalog, _ = read_catalog(data, ref.uri, self._params.ingest.severity, self._params.ingest.columns)
        for photo in self._subjects.photos:
            for text in photo.texts:
                bucket, name = split_uri(text)
                row = catalog.find(name) if bucket == self._settings.source_bucket else None
                if row and row.get("id_file"):
                    reason = f"the catalogue is the archive's own file; delete the row {row['id_file']!r} there"
                    yield Trace(self.name, "row of the catalogue", ref.uri, 0, None, reason)


class TargetBucket:
    """Copies, mirrored annotations, embeddings, the report of the last ingest, and check pages."""

    name = "target bucket"

    def __init__(self, client: Client, settings: Settings, subjects: Subjects) -> None:
        self._client, self._bucket, self._subjects = client, settings.target_bucket, subjects
        self._embeddings = {EMBEDDINGS + name for name in embedding_names(settings, subjects)}

    def traces(self) -> Iterator[Trace]:
        """Yield each generation whose name or content names a photo or a person."""
        set_pool_size(self._client, REQUESTS)
        refs = [ref for ref in list_generations(self._client, self._bucket) if ref.name != LEDGER]
        for trace in in_threads(self._trace, refs):
            if trace is not None:
                yield trace
        yield from soft_deleted(self.name, self._client, self._bucket, self._is_named)

    def _is_named(self, ref: ObjectRef) -> bool:
        return ref.name in self._embeddings or self._subjects.name_pattern.search(ref.name) is not None

    def _trace(self, ref: ObjectRef) -> Trace | None:
        if self._is_named(ref):
            what = "embedding" if ref.name.startswith(EMBEDDINGS) else "copy for browsers"
            return self._removable(ref, what, partial(delete_for_good, self._client, ref))
        if ref.name.startswith(_NOT_SEARCHED) or ref.size > LARGEST:
            return None
        try:
            data = read(self._client, ref)
        except (StorageError, CredentialsError) as error:
            return Trace(self.name, "object that cannot be searched", ref.uri, ref.size, None, str(error))
        if is_picture(data) or not names_subject(data, self._subjects.pattern):
            return None
        what, remove = self._removal(ref, data)
        if remove is None:
            reason = "Maskloop did not write it; look into it, and change or delete it by hand"
            return Trace(self.name, what, f"{ref.uri}#{ref.generation}", ref.size, None, reason)
        return self._removable(ref, what, remove)

    def _removal(self, ref: ObjectRef, data: bytes) -> tuple[str, Callable[[], None] | None]:
        if ref.name.startswith(_ANNOTATIONS):
            if any(sha256.encode() in data for sha256 in self._subjects.hashes):
                return "mirrored annotation", partial(delete_for_good, self._client, ref)
            return "mirrored annotation of the person", partial(self._rewrite, ref, data, "application/json")
        if ref.name == REPORT:
            return "report of ingest", partial(self._rewrite, ref, data, "text/csv; charset=utf-8")
        if ref.name.startswith(_CHECKS):
            return "check page", partial(delete_for_good, self._client, ref)
        return "other object", None

    def _removable(self, ref: ObjectRef, what: str, remove: Callable[[], None]) -> Trace:
        return Trace(self.name, what, f"{ref.uri}#{ref.generation}", max(ref.size, 0), remove)

    def _rewrite(self, ref: ObjectRef, data: bytes, content_type: str) -> None:
        """Write the object without what names the subjects where this generation is the live one, then delete it."""
        live = stat(self._client, self._bucket, ref.name)
        if live is not None and live.generation == ref.generation:
            clean = self._clean_report(data) if ref.name == REPORT else self._subjects.redacted(data.decode()).encode()
            put(self._client, self._bucket, ref.name, clean, content_type)
        delete_for_good(self._client, ref)

    def _clean_report(self, data: bytes) -> bytes:
        """Return the report of ingest without the lines that name a photo."""
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        file = io.StringIO()
        pattern = self._subjects.pattern
        csv.writer(file).writerows(row for row in rows if not pattern.search("\n".join(row).encode()))
        return file.getvalue().encode("utf-8-sig")


def embedding_names(settings: Settings, subjects: Subjects) -> set[str]:
    """Return the names that the photos' embeddings have, with each official checkpoint and the one in use."""
    from pipelines.segmentation.clicks import features_name
    from pipelines.segmentation.sam_checkpoints import OFFICIAL, embeddings_names

    folder = settings.var / "segment-anything" / "checkpoints"
    checkpoints = {path.name for path in folder.glob("*") if path.is_dir()}  # of SAM 2, named as their embeddings are
    for setting in (*OFFICIAL, settings.sam_checkpoint, *(path.name for path in folder.glob("*.pth"))):
        with suppress(ModelError):  # a file that is no official checkpoint makes no embeddings
            checkpoints.update(embeddings_names(setting))
    keys = {key for photo in subjects.photos for key in _keys(photo, settings)}
    learned = (settings.var / "clicks" / "features").glob("*")  # a folder for each click model
    checkpoints.update(features_name(path.name) for path in learned)
    return {embedding_name(checkpoint, key) for checkpoint in checkpoints for key in keys}


def _keys(photo: Photo, settings: Settings) -> Iterator[str]:
    """Yield the keys under which a photo, or its copy for browsers, may have been encoded."""
    copies = [(f"gs://{settings.target_bucket}/{COPIES}{photo.sha256}{suffix}", 0) for suffix in _COPY_SUFFIXES]
    for uri, generation in (*photo.addresses, *copies):
        for number in {generation, 0, *(number for _, number in photo.addresses)}:
            yield PhotoAddress(uri, number).key


def soft_deleted(store: str, client: Client, bucket: str, is_subject: Callable[[ObjectRef], bool]) -> Iterator[Trace]:
    """Yield what Google keeps of a bucket for some days after a deletion, with the day on which it deletes it."""
    for deleted in list_soft_deleted(client, bucket):
        if is_subject(deleted.ref):
            until = f"{deleted.until:%Y-%m-%d %H:%M} UTC" if deleted.until else "the end of the bucket's soft delete"
            reason = f"soft-deleted: only Google can delete it, and does so on {until}"
            yield Trace(store, "soft-deleted object", f"{deleted.ref.uri}#{deleted.ref.generation}",
                        max(deleted.ref.size, 0), None, reason)  # fmt: skip
