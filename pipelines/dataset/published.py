"""Read published dataset versions: their manifests, or a whole version in a folder of its own."""

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, MASKS
from pipelines.dataset.objects import Objects
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.settings import Settings


class Published:
    """The published versions of a workspace. What the local DVC cache lacks or holds damaged comes from the remote."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._objects = Objects(workspace.settings)

    @classmethod
    def of(cls, settings: Settings) -> "Published":
        """Return the versions of the settings' workspace."""
        return cls(Workspace(settings.workspace_path, settings))

    def tags(self) -> list[str]:
        """Return the tags of all versions, oldest first; none before there is a workspace."""
        return self._workspace.dataset_tags() if self._workspace.path.exists() else []

    def newest(self) -> str:
        """Return the newest version's tag; raise DatasetError when nothing was published yet."""
        if tags := self.tags():
            return tags[-1]
        raise DatasetError("no dataset is published yet; label photos in Label Studio, then run `maskloop sync`")

    def summary(self, tag: str) -> str:
        """Return the line that says what changed with a version."""
        return self._workspace.git("tag", "--list", "--format=%(contents:subject)", tag)

    def revision(self, tag: str) -> str:
        """Return a version's commit."""
        return self._workspace.git("rev-parse", f"{tag}^{{commit}}")

    def manifest(self, tag: str) -> pd.DataFrame:
        """Return a version's manifest: a row per photo, with its split in `split`.

        Raise DatasetError when the version has none, or its file is neither in the cache nor on the remote.
        """
        return pd.read_parquet(io.BytesIO(self.manifest_file(tag)))

    def manifest_file(self, tag: str) -> bytes:
        """Return the bytes of a version's manifest, after they were compared with the MD5 that the version records."""
        if tag not in self.tags():
            raise DatasetError(f"there is no dataset {tag}; `maskloop status` names the newest")
        files = self._workspace.tracked(self._objects, tag, MANIFEST)
        if str(MANIFEST) not in files:
            raise DatasetError(f"{tag} has no {MANIFEST}; it was not published by this project's stages")
        return self._objects.read(files[str(MANIFEST)], f"{MANIFEST} of {tag}")

    def files(self, tag: str) -> dict[str, str]:
        """Return the MD5 name of each file of a version that DVC keeps, by its path."""
        return self._workspace.tracked(self._objects, tag)

    def read_file(self, tag: str, files: Mapping[str, str], path: str) -> bytes:
        """Return the bytes of a file, one of a version's `files`, after they were compared with its MD5.

        Raise DatasetError when the version has no such file, or it has no good copy.
        """
        if path not in files:
            raise DatasetError(f"{tag} has no {path}; `maskloop verify {tag}` says what it lacks")
        return self._objects.read(files[path], f"{path} of {tag}")

    def text(self, tag: str, path: str) -> str:
        """Return the text of a file that git tracks, such as params.yaml; an empty text when there is none."""
        return self._workspace.show(tag, path)

    @contextmanager
    def checked_out(self, tag: str, *targets: Path) -> Iterator[Dataset]:
        """Yield a version checked out in a temporary folder; a sync may run at the same time.

        `targets` are the files to check out; by default annotations, photos, masks and the manifest.
        """
        settings = self._workspace.settings
        folder = settings.var / "checkouts"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{tag}-", dir=folder) as scratch:
            clone = Workspace(Path(scratch) / "clone", settings)
            clone.ensure(self._workspace.path)
            clone.check_out(tag, self._workspace.path, *(targets or (ANNOTATIONS, IMAGES, MASKS, MANIFEST)))
            yield Dataset(clone.path)
