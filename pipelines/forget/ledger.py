"""The list of what was forgotten, in the target bucket: ingest, import and sync read it, so that nothing comes back.

It holds no photo's hash and no address: each is a keyed hash (HMAC-SHA-256) under a random key that lies beside it. So
nothing in it can be found by the hashes that old manifests hold, and lists of two archives cannot be joined. Whoever
reads the list and has a photo's bytes, or knows an address, can still test whether it is on the list.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from google.cloud.storage import Client

from pipelines.errors import DataError, ObjectChangedError
from pipelines.gcs.client import read, stat, write
from pipelines.labelstudio.cursor import Changes
from pipelines.records import Annotation

LEDGER = "forgotten.json"  # in the target bucket
_TRIES = 5
_DERIVED = ("group", "family")  # columns of a manifest that may be named by another photo's hash
_NAMES_PEOPLE = ("created_username", "updated_by", "created_by", "last_created_by")  # of an annotation's JSON


@dataclass(frozen=True)
class Forgotten:
    """Which photos were forgotten, and under which pseudonym people's annotations stay; `key` is in hex.

    `photos` are keyed hashes of SHA-256s. `people` maps keyed hashes of addresses in lower case to pseudonyms, `users`
    ids of Label Studio's accounts.
    """

    key: str = ""
    photos: frozenset[str] = frozenset()
    people: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[int, str] = field(default_factory=dict)

    def __contains__(self, sha256: str) -> bool:
        """Return whether a photo, given by the SHA-256 of its bytes, was forgotten."""
        return bool(self.photos) and self._keyed(sha256) in self.photos

    def alias(self, sha256: str) -> str:
        """Return the name that stands for a forgotten photo where a group or family was named by its hash."""
        return f"photo-{self._keyed(sha256)[:12]}"

    def pseudonym(self, address: str) -> str:
        """Return a forgotten person's pseudonym; the address itself for everybody else."""
        return self.people.get(self._keyed(address.lower()), address) if self.people else address

    def _keyed(self, text: str) -> str:
        return hmac.new(bytes.fromhex(self.key), text.encode(), hashlib.sha256).hexdigest() if self.key else ""

    def with_photos(self, hashes: Iterable[str]) -> "Forgotten":
        """Return the list with these photos as well."""
        return replace(self, photos=self.photos | {self._keyed(sha256) for sha256 in hashes})

    def without_photo(self, sha256: str) -> "Forgotten":
        """Return the list without a photo."""
        return replace(self, photos=self.photos - {self._keyed(sha256)})

    def with_person(self, address: str, user: int, pseudonym: str) -> "Forgotten":
        """Return the list with a person as well; `user` is the account's id in Label Studio, 0 if there is none."""
        users = {**self.users, user: pseudonym} if user else self.users
        return replace(self, people={**self.people, self._keyed(address.lower()): pseudonym}, users=users)

    def applied_to(self, changes: Changes) -> Changes:
        """Return what was read from Label Studio without forgotten photos, and with pseudonyms of forgotten people."""
        if not (self.photos or self.people):
            return changes
        wanted = (annotation for annotation in changes.annotations if annotation.image.sha256 not in self)
        return replace(changes, annotations=tuple(self.renamed(annotation) for annotation in wanted))

    def renamed(self, annotation: Annotation) -> Annotation:
        """Return an annotation with the pseudonym of the person who drew it, if that person was forgotten."""
        author: Any = annotation.raw.get("completed_by")
        user = author.get("id") if isinstance(author, dict) else author
        pseudonym = self.users.get(user) if isinstance(user, int) else None
        pseudonym = pseudonym or self.pseudonym(annotation.annotator)
        if pseudonym == annotation.annotator:
            return annotation
        raw: Any = {name: value for name, value in annotation.raw.items() if name not in _NAMES_PEOPLE}
        if isinstance(author, dict):
            raw["completed_by"] = user
        return replace(annotation, annotator=pseudonym, raw=raw)

    def without(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a manifest without the rows of forgotten photos, and without forgotten people's addresses."""
        kept = [str(sha256) not in self for sha256 in table["sha256"]]
        rows = table if all(kept) else table[kept].reset_index(drop=True)
        columns = {column: self._renamed_names(rows[column]) for column in _DERIVED if column in rows.columns}
        if self.people and "annotators" in rows.columns:
            columns["annotators"] = [[self.pseudonym(str(name)) for name in row] for row in rows["annotators"]]
        changed = {
            column: pd.Series(values, rows.index, dtype=rows[column].dtype)
            for column, values in columns.items()
            if values != [list(value) if column == "annotators" else value for value in rows[column]]
        }
        return rows.assign(**changed) if changed else rows

    def _renamed_names(self, names: Iterable[object]) -> list[object]:
        return [self.alias(str(name)) if str(name) in self else name for name in names]


EMPTY_LEDGER = Forgotten()


def load_forgotten(client: Client, bucket: str) -> Forgotten:
    """Load the list; an empty one when nothing was ever forgotten.

    Raise DataError when it is damaged: without it, what was forgotten would come back.
    """
    return _load(client, bucket)[0]


def change_forgotten(client: Client, bucket: str, change: Callable[[Forgotten], Forgotten]) -> Forgotten:
    """Write the list as `change` makes it from the present one, and return it; two writers never lose a change."""
    for attempt in range(_TRIES):
        present, generation = _load(client, bucket)
        keyed = present if present.key else replace(present, key=secrets.token_hex(32))
        wanted = change(keyed)
        if wanted == present:
            return present
        try:
            write(client, bucket, LEDGER, _as_json(wanted), "application/json", replaces=generation)
        except ObjectChangedError:
            if attempt == _TRIES - 1:
                raise
            continue
        return wanted
    raise AssertionError("the last attempt returns or raises")


def _load(client: Client, bucket: str) -> tuple[Forgotten, int]:
    ref = stat(client, bucket, LEDGER)
    if ref is None:
        return EMPTY_LEDGER, 0
    try:
        fields = json.loads(read(client, ref))
        bytes.fromhex(fields["key"])
        people = {str(address): str(name) for address, name in fields["people"].items()}
        users = {int(user): str(name) for user, name in fields["users"].items()}
        return Forgotten(str(fields["key"]), frozenset(map(str, fields["photos"])), people, users), ref.generation
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"gs://{bucket}/{LEDGER} is damaged ({error!r}); it names what must not come back, so nothing is done "
            "without it: restore an older generation of it with `gcloud storage cp`"
        ) from error


def _as_json(forgotten: Forgotten) -> bytes:
    fields = {
        "about": "keyed hashes of what was removed on request; see docs/forget.md",
        "key": forgotten.key,
        "photos": sorted(forgotten.photos),
        "people": dict(sorted(forgotten.people.items())),
        "users": {str(user): name for user, name in sorted(forgotten.users.items())},
    }
    return (json.dumps(fields, indent=1) + "\n").encode()
