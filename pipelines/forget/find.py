"""Which photos and people are meant: addresses, names, hashes and tasks, looked up in every store that knows them."""

import base64
import logging
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import IMAGES
from pipelines.dataset.object_names import md5_of
from pipelines.dataset.objects import Objects
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, DataError, DatasetError, StorageError
from pipelines.forget.ledger import Forgotten
from pipelines.forget.subjects import Person, Photo, Subjects
from pipelines.gcs.client import read, set_pool_size, split_uri
from pipelines.gcs.generations import list_generations
from pipelines.gcs.threads import REQUESTS, in_threads
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.people import list_accounts, list_projects
from pipelines.labelstudio.tasks import list_tasks
from pipelines.photos.decode import sha256_hex
from pipelines.records import ObjectRef
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{6,63}")
_CANDIDATES = 10  # that an error lists


@dataclass
class _Known:
    """What is known of one photo."""

    addresses: set[tuple[str, int]] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)
    md5s: set[str] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)


class Catalogue:
    """Every photo that a task, a version, the workspace or the source bucket knows, by the SHA-256 of its bytes."""

    def __init__(self, client: Client, labels: LabelStudioClient, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._photos: dict[str, _Known] = defaultdict(_Known)
        set_pool_size(client, REQUESTS)
        self._refs = list(list_generations(client, settings.source_bucket))
        self._by_address = {(ref.uri, ref.generation): ref for ref in self._refs}
        self._add_tasks(labels)
        self._add_versions()
        self._add_objects()

    def photo(self, text: str) -> Photo:
        """Return the photo that a text names: gs:// address, object name below the prefix, SHA-256, or `task:12`.

        Raise DataError, which lists candidates, when there is none or when several photos are meant.
        """
        hashes = self._hashes_of(text)
        if len(hashes) == 1:
            return self._described(next(iter(hashes)))
        if hashes:
            listed = "; ".join(f"{sha256} ({self._where(sha256)})" for sha256 in sorted(hashes)[:_CANDIDATES])
            raise DataError(f"{text!r} means {len(hashes)} photos; name one by its SHA-256: {listed}")
        candidates = self._candidates(text)
        hint = f"did you mean {', '.join(candidates)}?" if candidates else "`maskloop lineage` and the bucket name them"
        raise DataError(f"no photo is known as {text!r}; {hint}")

    def _hashes_of(self, text: str) -> set[str]:
        if text.startswith("task:"):
            number = text.removeprefix("task:")
            return {sha256 for sha256, known in self._photos.items() if number.isdigit() and int(number) in known.tasks}
        if _SHA256.fullmatch(text.lower()):
            return {text.lower()} & self._photos.keys()
        settings = self._settings
        if text.startswith("gs://"):
            uris = {text}
        else:
            uris = {f"gs://{settings.source_bucket}/{name}" for name in (settings.source_prefix + text, text)}
        hashes = {sha256 for sha256, known in self._photos.items() if uris & {uri for uri, _ in known.addresses}}
        return hashes | self._read([ref for ref in self._refs if ref.uri in uris and not self._is_known(ref)])

    def _read(self, refs: Sequence[ObjectRef]) -> set[str]:
        """Read generations of which no SHA-256 is known, and return those."""
        hashes = set()
        for ref, data in zip(refs, in_threads(lambda ref: read(self._client, ref), refs), strict=True):
            sha256 = sha256_hex(data)
            self._add(sha256, ref)
            hashes.add(sha256)
        return hashes

    def _is_known(self, ref: ObjectRef) -> bool:
        return any((ref.uri, ref.generation) in known.addresses for known in self._photos.values())

    def _add(self, sha256: str, ref: ObjectRef) -> None:
        known = self._photos[sha256]
        known.addresses.add((ref.uri, ref.generation))
        if ref.md5:
            known.md5s.add(_hex(ref.md5))
        if ref.size >= 0:
            known.sizes.add(ref.size)

    def _add_tasks(self, labels: LabelStudioClient) -> None:
        for project in list_projects(labels):
            for task in list_tasks(labels, int(project["id"])):
                self._photos[task.image.sha256].addresses.add((task.image.uri, task.image.generation))
                self._photos[task.image.sha256].tasks.add(task.id)

    def _add_versions(self) -> None:
        """Add what manifests, annotations and file names of the versions and of the workspace say."""
        workspace = Workspace(self._settings.workspace_path, self._settings)
        if not (workspace.path / ".git").exists():
            return
        published, objects = Published(workspace), Objects(self._settings, self._client)
        for tag in published.tags():
            for path, md5 in workspace.tracked(objects, tag, problems={}).items():
                if Path(path).parent == IMAGES and _SHA256.fullmatch(Path(path).name):
                    self._photos[Path(path).name].md5s.add(md5)
                    if objects.path(md5).exists():
                        self._photos[Path(path).name].sizes.add(objects.path(md5).stat().st_size)
            try:
                rows = published.manifest(tag)[["sha256", "uri", "generation"]]
            except DatasetError as error:
                logger.warning("photos that only %s knows are not found by their address: %s", tag, error)
                continue
            for sha256, uri, generation in rows.itertuples(index=False, name=None):
                self._photos[str(sha256)].addresses.add((str(uri), int(generation)))
        dataset = Dataset(workspace.path)
        for annotation in dataset.annotations.read():
            self._photos[annotation.image.sha256].addresses.add((annotation.image.uri, annotation.image.generation))

    def _add_objects(self) -> None:
        """Add MD5 and size of the generations that are known, and the other generations with the same bytes."""
        for sha256, known in list(self._photos.items()):
            for address in known.addresses & self._by_address.keys():
                self._add(sha256, self._by_address[address])
        by_md5 = {md5: sha256 for sha256, known in self._photos.items() for md5 in known.md5s}
        for ref in self._refs:
            same = by_md5.get(_hex(ref.md5)) if ref.md5 else None
            if same:
                self._add(same, ref)

    def _described(self, sha256: str) -> Photo:
        known = self._photos[sha256]
        path = Dataset(self._settings.workspace_path).image_path(sha256)
        if path.exists():
            known.md5s.add(md5_of(path))
            known.sizes.add(path.stat().st_size)
        self._add_objects()
        return Photo(
            sha256, tuple(sorted(known.addresses)), self._own_addresses(sha256), tuple(sorted(known.md5s)),
            tuple(sorted(known.sizes)), tuple(sorted(known.tasks)),
        )  # fmt: skip

    def _own_addresses(self, sha256: str) -> tuple[str, ...]:
        """Return the addresses that no other photo has or had: only these identify the photo in a text."""
        own = {uri for uri, _ in self._photos[sha256].addresses}
        others = {uri for other, known in self._photos.items() if other != sha256 for uri, _ in known.addresses}
        md5s = self._photos[sha256].md5s
        for ref in self._refs:
            if ref.uri in own and ref.md5 and _hex(ref.md5) not in md5s:
                others.add(ref.uri)
        return tuple(sorted(own - others))

    def _where(self, sha256: str) -> str:
        known = self._photos[sha256]
        addresses = sorted(f"{uri}#{generation}" for uri, generation in known.addresses)[:2]
        return (
            ", ".join([*addresses, *(f"task:{task}" for task in sorted(known.tasks)[:2])]) or "only its hash is known"
        )

    def _candidates(self, text: str) -> list[str]:
        """Return addresses, hashes or tasks that are like a text that names no photo."""
        if text.startswith("task:"):
            numbers = sorted(task for known in self._photos.values() for task in known.tasks)
            return [f"task:{task}" for task in numbers[:_CANDIDATES]]
        if _HEX.fullmatch(text.lower()):
            return sorted(sha256 for sha256 in self._photos if sha256.startswith(text.lower()))[:_CANDIDATES]
        name = text.rpartition("/")[2].lower()
        uris = {uri for known in self._photos.values() for uri, _ in known.addresses} | {ref.uri for ref in self._refs}
        same = [uri for uri in uris if uri.lower().rpartition("/")[2] == name]
        alike = [uri for uri in uris if name.partition(".")[0] and name.partition(".")[0] in uri.lower()]
        return sorted(same or alike)[:_CANDIDATES]


def find_photos(
    client: Client, labels: LabelStudioClient, settings: Settings, texts: Iterable[str], pending: Subjects
) -> tuple[Photo, ...]:
    """Return the photos that texts name; those that a run that was killed knows are named by their hash as well."""
    wanted = list(dict.fromkeys(texts))
    unfinished = {text: photo for text in wanted for photo in pending.photos if _is_called(photo, text, settings)}
    others = [text for text in wanted if text not in unfinished]
    if not others:
        return tuple(unfinished.values())
    catalogue = Catalogue(client, labels, settings)
    photos = {photo.sha256: photo for photo in map(catalogue.photo, others)}
    return (*unfinished.values(), *photos.values())


def find_people(
    labels: LabelStudioClient, settings: Settings, addresses: Iterable[str], pending: Subjects
) -> tuple[Person, ...]:
    """Return the people with these addresses, with new pseudonyms.

    Raise DataError for an address that no account and no version knows, and for Maskloop's own account.
    """
    unfinished = {person.email.lower(): person for person in pending.people}
    wanted = list(dict.fromkeys(address.strip() for address in addresses))
    people = []
    accounts = None
    for address in wanted:
        if address.lower() in unfinished:
            people.append(unfinished[address.lower()])
            continue
        if address.lower() == settings.label_studio_email.lower():
            raise DataError(f"{address} is Maskloop's own account in Label Studio, which the loop needs")
        accounts = list_accounts(labels) if accounts is None else accounts
        same = [account for account in accounts if account.email.lower() == address.lower()]
        known = _annotators(settings) if not same else set()
        if not same and address.lower() not in known:
            like = [account.email for account in accounts if not account.is_removed][:_CANDIDATES]
            raise DataError(
                f"nobody is known as {address}; Label Studio has the accounts {', '.join(like) or 'of nobody'}"
            )
        pseudonym = f"person-{secrets.token_hex(4)}"
        people.append(
            Person(address, same[0].names, same[0].id, pseudonym) if same else Person(address, (), 0, pseudonym)
        )
    return tuple(people)


def with_aliases(subjects: Subjects, forgotten: Forgotten) -> Subjects:
    """Return the subjects with the names that stand for the photos' hashes, as every later sync writes them."""
    photos = tuple(replace(photo, alias=forgotten.alias(photo.sha256)) for photo in subjects.photos)
    people = tuple(
        replace(person, pseudonym=name) if (name := forgotten.pseudonym(person.email)) != person.email else person
        for person in subjects.people
    )
    return replace(subjects, photos=photos, people=people)


def hash_of(client: Client, text: str) -> str:
    """Return the SHA-256 that a text is, or that of the object at a gs:// address; raise DataError for other texts."""
    if _SHA256.fullmatch(text.lower()):
        return text.lower()
    if text.startswith("gs://"):
        bucket, name = split_uri(text)
        try:
            return sha256_hex(read(client, ObjectRef(bucket, name, 0)))
        except (StorageError, CredentialsError) as error:
            raise DataError(f"{text} cannot be read, so its SHA-256 is not known: {error}") from error
    raise DataError(f"{text!r} is neither a SHA-256 nor the gs:// address of an object that is there")


def _annotators(settings: Settings) -> set[str]:
    """Return the addresses of everybody who drew something in a version or in the workspace, in lower case."""
    published = Published.of(settings)
    people: set[str] = set()
    for tag in published.tags():
        manifest = published.manifest(tag)
        if "annotators" in manifest.columns:
            people |= {str(name).lower() for row in manifest["annotators"] for name in row}
    if settings.workspace_path.exists():
        people |= {annotation.annotator.lower() for annotation in Dataset(settings.workspace_path).annotations.read()}
    return people


def _is_called(photo: Photo, text: str, settings: Settings) -> bool:
    name = f"gs://{settings.source_bucket}/{settings.source_prefix}{text}"
    tasks = {f"task:{task}" for task in photo.tasks}
    return text.lower() == photo.sha256 or text in photo.texts or name in photo.texts or text in tasks


def _hex(md5: str) -> str:
    return base64.b64decode(md5).hex()
