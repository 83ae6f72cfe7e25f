"""Verify published versions: hash every file in the cache, compare what the remote holds, and repair what can be.

The remote is compared by the MD5 that the bucket lists; a deep verification downloads and hashes each object.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track
from rich.table import Table

from pipelines.dataset.objects import Objects, Source
from pipelines.dataset.remote import incomplete_versions, is_photo, photo_addresses, photo_source
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError

_BATCH = 512  # objects between two steps of a progress bar
_LISTED = 50  # rows of the table for a terminal


@dataclass(frozen=True)
class Damage:
    """An object that was damaged or missing: in which versions, where, and what was done.

    `photo` is the address of the photo it is, or empty. `problem` says why it could not be repaired; empty when it was.
    """

    versions: tuple[str, ...]
    path: str
    photo: str
    where: str
    done: str
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    """How many objects of how many versions were verified, and what was damaged or missing."""

    versions: int
    objects: int
    damages: tuple[Damage, ...]

    @property
    def unrepaired(self) -> int:
        """Return how many objects have no good copy, or could not be repaired."""
        return sum(bool(damage.problem) for damage in self.damages)

    def __str__(self) -> str:
        """Return what was verified in one line."""
        whole = "all whole" if not self.damages else f"{len(self.damages)} damaged or missing"
        repaired = f", {len(self.damages) - self.unrepaired} of them repaired" if self.damages else ""
        return f"{self.objects} objects of {self.versions} versions: {whole}{repaired}"

    def as_table(self) -> Table:
        """Return a table for a terminal, a row for each damage; what could not be repaired comes first."""
        table = Table(title="Damaged or missing", title_justify="left", show_lines=True)
        for heading in ("version", "file", "photo", "where", "what was done"):
            table.add_column(heading, overflow="fold")
        ordered = sorted(self.damages, key=lambda damage: (not damage.problem, damage.versions, damage.path))
        for damage in ordered[:_LISTED]:
            done = f"not repaired: {damage.problem}" if damage.problem else damage.done
            table.add_row(_range(damage.versions), damage.path, damage.photo, damage.where, done)
        if (more := len(ordered) - _LISTED) > 0:
            table.add_row("…", f"and {more} more", "", "", "")
        return table


class _Versions:
    """The objects of several versions: their paths, the versions that need them, and how to find a photo's bytes."""

    def __init__(self, workspace: Workspace, objects: Objects, tags: Sequence[str]) -> None:
        self.files: dict[str, dict[str, str]] = {}
        self.lists: dict[str, str] = {}  # by path, the reason why the list of a folder cannot be read
        self.place: dict[str, tuple[str, str]] = {}
        self.tags: dict[str, list[str]] = {}
        self._objects = objects
        self._addresses: dict[str, dict[str, tuple[str, int]]] = {}
        self._sources: dict[str, Source] = {}
        for tag in track(tags, "reading versions", transient=True, disable=len(tags) < 2):
            self.files[tag] = workspace.tracked(objects, tag, problems=self.lists)
            for path, md5 in self.files[tag].items():
                self.place.setdefault(md5, (tag, path))
                known = self.tags.setdefault(md5, [])
                if tag not in known:
                    known.append(tag)

    def photo(self, md5: str) -> str:
        """Return the address of the photo that an object is, or an empty text."""
        tag, path = self.place[md5]
        if not is_photo(path):
            return ""
        if tag not in self._addresses:
            self._addresses[tag] = photo_addresses(self._objects, self.files[tag])
        return self._addresses[tag].get(Path(path).name, ("", 0))[0]

    def source(self, md5: str) -> bytes | None:
        """Return an object's bytes from the bucket of photos, or None."""
        tag = self.place[md5][0]
        return self._sources.setdefault(tag, photo_source(self._objects, self.files[tag]))(md5)


def verify(workspace: Workspace, objects: Objects, tags: Sequence[str], *, deep: bool = False) -> Verification:
    """Verify versions, given by their tags, in the cache and on the remote, and repair what has a good copy.

    A file that only the cache lacks is no damage: it is downloaded when it is needed. Raise DatasetError for a version
    that does not exist, and StorageError or CredentialsError when the remote cannot be reached at all.
    """
    known = workspace.dataset_tags()
    if unknown := [tag for tag in tags if tag not in known]:
        raise DatasetError(f"there is no dataset {unknown[0]}; `maskloop status` names the newest")
    versions = _Versions(workspace, objects, tags)
    md5s = sorted(versions.place)
    damaged = set(objects.replaced)  # lists of folders, which were needed to read the versions
    absent: set[str] = set()
    for batch in track(_batches(md5s), "hashing the cache", transient=True):
        wrong, missing = objects.unusable(batch)
        damaged |= wrong
        absent |= missing
    remote = objects.missing_on_remote(set(md5s))
    if deep:
        for batch in track(_batches(sorted(set(md5s) - remote)), "hashing the remote", transient=True):
            remote |= objects.damaged_on_remote(batch)
    lost = objects.restore((damaged - objects.replaced) | (absent & remote), versions.source)
    if objects.damaged_folder.exists():
        with workspace.locked():
            objects.relink(workspace.path)
    not_sent = objects.upload(remote - lost.keys())
    damages = []
    for md5 in sorted(damaged | remote, key=lambda md5: versions.place[md5]):
        in_cache = "damaged in the cache" if md5 in damaged else "missing in the cache" if md5 in absent else ""
        on_remote = "missing or damaged on the remote" if md5 in remote else ""
        done = [*(["cache restored"] if in_cache else []), *(["uploaded"] if on_remote else [])]
        where = " and ".join(part for part in (in_cache, on_remote) if part)
        problem = lost.get(md5) or not_sent.get(md5, "")
        path, photo = versions.place[md5][1], versions.photo(md5)
        damages.append(Damage(tuple(versions.tags[md5]), path, photo, where, ", ".join(done), problem))
    return Verification(len(tags), len(md5s), tuple(damages))


def sample(workspace: Workspace, objects: Objects, count: int = 50) -> tuple[int, int, dict[str, int]]:
    """Return how many cached files of the newest version were hashed, how many are damaged, and what the remote lacks.

    The last value counts, per version, the objects that are not on the remote. Nothing is repaired but lists of
    folders that are damaged in the cache.
    """
    tags = workspace.dataset_tags()
    if not tags:
        return 0, 0, {}
    files = workspace.tracked(objects, tags[-1], problems={})
    present = sorted(md5 for md5 in set(files.values()) if objects.path(md5).exists())
    chosen = random.sample(present, min(count, len(present)))
    damaged, _ = objects.unusable(chosen)
    return len(chosen), len(damaged), incomplete_versions(workspace, objects, tags)


def _batches(md5s: Sequence[str]) -> list[Sequence[str]]:
    return [md5s[start : start + _BATCH] for start in range(0, len(md5s), _BATCH)]


def _range(tags: Iterable[str]) -> str:
    first, *others = tags
    return f"{first} … {others[-1]}" if others else first
