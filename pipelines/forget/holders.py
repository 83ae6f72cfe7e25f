"""Which objects of DVC name the subjects or are a photo, and what needs them."""

from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.objects import Objects
from pipelines.dataset.published import Published
from pipelines.dataset.remote import is_photo
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.forget.content import is_picture, names_subject
from pipelines.forget.subjects import Subjects

Known = dict[str, bool]


class Holders:
    """Which objects name the subjects or are a photo, by what needs them: versions, and the workspace as it is now.

    Each object is read once, however many versions need it. `known` caches by MD5 whether an object names the subjects.
    """

    def __init__(self, workspace: Workspace, client: Client, subjects: Subjects, known: Known) -> None:
        self._workspace, self._subjects, self._known = workspace, subjects, known
        self.objects = Objects(workspace.settings, client)
        self.problems: dict[str, str] = {}

    def by_tag(self) -> dict[str, dict[str, str]]:
        """Return the paths of each version's objects that name the subjects, with their MD5s; versions without none."""
        if not (self._workspace.path / ".git").exists():
            return {}
        published = Published(self._workspace)
        versions = {tag: self._holding(self._files(tag)) for tag in published.tags()}
        return {tag: files for tag, files in versions.items() if files}

    def in_workspace(self) -> dict[str, str]:
        """Return the same of the workspace, by what its pointers name."""
        return self._holding(self._files(None)) if (self._workspace.path / ".git").exists() else {}

    def needed(self) -> dict[str, list[str]]:
        """Return every object that a version or the workspace needs, with the names of what needs it."""
        needed: dict[str, list[str]] = {}
        if (self._workspace.path / ".git").exists():
            for tag in (*Published(self._workspace).tags(), None):
                for md5 in self._files(tag).values():
                    needed.setdefault(md5, []).append(tag or "the workspace")
        return needed

    def names(self, md5: str, data: bytes | None) -> bool:
        """Return whether an object with these bytes is a photo or names the subjects."""
        if md5 in self._subjects.md5s:
            return True
        if md5 not in self._known and data is not None:
            self._known[md5] = not is_picture(data) and names_subject(data, self._subjects.pattern)
        return self._known.get(md5, False)

    def is_known(self, md5: str) -> bool:
        """Return whether it is known what an object holds."""
        return md5 in self._known or md5 in self._subjects.md5s

    def _files(self, tag: str | None) -> dict[str, str]:
        problems: dict[str, str] = {}
        files = self._workspace.tracked(self.objects, tag, problems=problems)
        self.problems |= {f"{path} of {tag or 'the workspace'}": why for path, why in problems.items()}
        return files

    def _holding(self, files: dict[str, str]) -> dict[str, str]:
        holding = {}
        for path, md5 in files.items():
            if Path(path).name in self._subjects.hashes or Path(path).stem in self._subjects.hashes:
                holding[path] = md5
            elif is_photo(path):
                continue
            elif self.is_known(md5):
                if self.names(md5, None):
                    holding[path] = md5
            else:
                try:
                    if self.names(md5, self.objects.read(md5, path)):
                        holding[path] = md5
                except DatasetError as error:
                    self.problems[path] = str(error)
        return holding


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
