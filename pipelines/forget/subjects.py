"""What is to be removed: photos with all that identifies them, and people; and how a text that names them is found."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.errors import ConfigurationError
from pipelines.fs import write_atomically

PENDING = "forget.json"  # in the folder for state: what a run that was killed still has to remove
_SHORT = 12  # digits of a hash that a report shows
_IN_NAMES = 8  # digits of a hash in the names of pictures


@dataclass(frozen=True)
class Photo:
    """A photo to be removed, identified by the SHA-256 of its bytes.

    `addresses` are gs:// address and generation wherever it lies or lay; `texts` those addresses that no other photo
    has or had. `md5s` (hex) are of its bytes, also as a bucket stores them; `sizes` in bytes. `alias` stands for its
    hash where that names a group.
    """

    sha256: str
    addresses: tuple[tuple[str, int], ...] = ()
    texts: tuple[str, ...] = ()
    md5s: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()
    alias: str = ""


@dataclass(frozen=True)
class Person:
    """A person to be removed: address, names, the account's id in Label Studio (0: none), and the pseudonym."""

    email: str
    names: tuple[str, ...] = ()
    user: int = 0
    pseudonym: str = ""


@dataclass(frozen=True)
class Subjects:
    """All that one run removes; `published` says whether from published versions and models' files as well.

    `tags` are the versions that the run rewrites, which are pushed again when it is continued; `models` says which
    models knew the photos, `example_runs` are runs whose model shows one. Nothing says so after the versions changed.
    """

    photos: tuple[Photo, ...] = ()
    people: tuple[Person, ...] = ()
    published: bool = False
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    example_runs: tuple[str, ...] = ()

    @cached_property
    def hashes(self) -> frozenset[str]:
        """Return the SHA-256 of every photo."""
        return frozenset(photo.sha256 for photo in self.photos)

    @cached_property
    def md5s(self) -> frozenset[str]:
        """Return the MD5s of the photos' bytes in hex."""
        return frozenset(md5 for photo in self.photos for md5 in photo.md5s)

    @cached_property
    def sizes(self) -> frozenset[int]:
        """Return the sizes of the photos' bytes."""
        return frozenset(size for photo in self.photos for size in photo.sizes)

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Return an expression that finds each text that names a photo or a person, as it is written in files."""
        words = [f"{photo.sha256[:_SHORT]}(?:{photo.sha256[_SHORT:]})?" for photo in self.photos]
        words += [rf"(?<![0-9a-f]){md5}(?![0-9a-f])" for md5 in sorted(self.md5s)]
        words += [_whole(form) for photo in self.photos for text in photo.texts for form in _forms(text)]
        words += [rf"(?i:{_address(form)})" for person in self.people for form in _forms(person.email)]
        return re.compile("|".join(words).encode() if words else rb"(?!)")

    @cached_property
    def name_pattern(self) -> re.Pattern[str]:
        """Return an expression that finds file names that carry a photo's hash, or the first digits of it."""
        digits = [rf"{photo.sha256[:_SHORT]}|(?<![0-9a-f]){photo.sha256[:_IN_NAMES]}\." for photo in self.photos]
        return re.compile("|".join([*digits, *sorted(self.md5s)]) or r"(?!)")

    def redacted(self, text: str) -> str:
        """Return a text in which an alias stands for each photo's hash and address, and pseudonyms for people."""
        for photo in self.photos:
            forms = "|".join(
                [photo.sha256, photo.sha256[:_SHORT], *(_whole(form) for text in photo.texts for form in _forms(text))]
            )
            text = re.sub(forms, photo.alias, text)
        for person in self.people:
            for form in _forms(person.email):
                text = re.sub(_address(form), person.pseudonym, text, flags=re.IGNORECASE)
        return text

    def write(self, path: Path) -> None:
        """Write what is to be removed to a file that only its owner reads."""
        write_atomically(path, json.dumps(asdict(self)).encode(), mode=0o600)

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to remove."""
        return not (self.photos or self.people)


def load_pending(path: Path) -> Subjects:
    """Load what a run that was killed still has to remove; nothing when there is no such file.

    Raise ConfigurationError when the file is damaged.
    """
    if not path.exists():
        return Subjects()
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        photos = tuple(_photo(photo) for photo in fields["photos"])
        people = tuple(
            Person(person["email"], tuple(person["names"]), int(person["user"]), person["pseudonym"])
            for person in fields["people"]
        )
        return Subjects(
            photos, people, bool(fields["published"]), tuple(fields["tags"]), tuple(fields["models"]),
            tuple(fields["example_runs"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error!r}); delete it and name again what is to be removed"
        ) from error


def joined(first: Subjects, second: Subjects) -> Subjects:
    """Return both together; of the same photo or person, what both know."""
    photos: dict[str, Photo] = {}
    for photo in (*first.photos, *second.photos):
        known = photos.get(photo.sha256, Photo(photo.sha256))
        photos[photo.sha256] = Photo(
            photo.sha256, _both(known.addresses, photo.addresses), _both(known.texts, photo.texts),
            _both(known.md5s, photo.md5s), _both(known.sizes, photo.sizes), _both(known.tasks, photo.tasks),
            photo.alias or known.alias,
        )  # fmt: skip
    people = {person.email.lower(): person for person in (*second.people, *first.people)}
    return Subjects(
        tuple(photos.values()), tuple(people.values()), first.published or second.published,
        _both(first.tags, second.tags), _both(first.models, second.models),
        _both(first.example_runs, second.example_runs),
    )  # fmt: skip


def _both(first: Collection[Any], second: Collection[Any]) -> tuple[Any, ...]:
    return tuple(sorted({*first, *second}))


def _photo(fields: dict[str, Any]) -> Photo:
    return Photo(
        str(fields["sha256"]), tuple((str(uri), int(generation)) for uri, generation in fields["addresses"]),
        tuple(fields["texts"]), tuple(fields["md5s"]), tuple(fields["sizes"]), tuple(fields["tasks"]),
        str(fields["alias"]),
    )  # fmt: skip


def _forms(text: str) -> Iterator[str]:
    """Yield the ways in which files write a text: as it is, as JSON writes it, and as addresses of the web do."""
    scheme, slashes, rest = text.rpartition("://")
    forms = [text, json.dumps(text)[1:-1], scheme + slashes + quote(rest), quote(text, safe="")]
    yield from dict.fromkeys(forms)


def _whole(text: str) -> str:
    """Return an expression for an address that is not the beginning of a longer one."""
    return rf"{re.escape(text)}(?![\w\-/%]|\.\w)"


def _address(text: str) -> str:
    return rf"(?<![\w.+\-]){re.escape(text)}(?![\w\-]|\.\w)"
