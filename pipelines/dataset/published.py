"""What published dataset versions hold: their tables, found by the hash that the tag's dvc.lock names."""

import io
import json
from pathlib import Path

import pandas as pd
import yaml
from google.cloud.storage import Client

from pipelines.dataset.cache import path_in_cache
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, ObjectChangedError
from pipelines.gcs.client import read
from pipelines.records import ObjectRef
from pipelines.settings import Settings


class Published:
    """The published versions of a workspace; files that the local DVC cache lacks are read from the remote."""

    def __init__(self, workspace: Workspace, bucket: Client) -> None:
        self._workspace, self._bucket = workspace, bucket

    @classmethod
    def of(cls, settings: Settings, bucket: Client) -> "Published":
        """Give the versions of the settings' workspace."""
        return cls(Workspace(settings.workspace_path, settings), bucket)

    def tags(self) -> list[str]:
        """Give the tags of all versions, oldest first; none before there is a workspace."""
        return self._workspace.dataset_tags() if self._workspace.path.exists() else []

    def newest(self) -> str:
        """Give the newest version's tag; raises DatasetError when nothing was published yet."""
        if tags := self.tags():
            return tags[-1]
        raise DatasetError("no dataset is published yet; label photos in Label Studio, then run `maskloop sync`")

    def summary(self, tag: str) -> str:
        """Give the line that says what changed with a version."""
        return self._workspace.git("tag", "--list", "--format=%(contents:subject)", tag)

    def revision(self, tag: str) -> str:
        """Give a version's commit."""
        return self._workspace.git("rev-parse", f"{tag}^{{commit}}")

    def manifest(self, tag: str) -> pd.DataFrame:
        """Give a version's manifest: a row per photo, with its side in `split`."""
        return pd.read_parquet(io.BytesIO(self.manifest_file(tag)))

    def manifest_file(self, tag: str) -> bytes:
        """Give the bytes of a version's manifest."""
        return self.file(self._hash(tag, MANIFEST), f"{MANIFEST} of {tag}")

    def folder(self, tag: str, path: Path) -> dict[str, str]:
        """Give the files of a version's folder: the hash under which DVC keeps each, by name."""
        entries = json.loads(self.file(self._hash(tag, path), f"{path} of {tag}"))
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}

    def _hash(self, tag: str, path: Path) -> str:
        lock = yaml.safe_load(self._workspace.show(tag, "dvc.lock")) or {}
        tracked = yaml.safe_load(self._workspace.show(tag, f"{path}.dvc")) or {}
        outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", ())]
        known = {str(out["path"]): str(out["md5"]) for out in outs if "md5" in out}
        known |= {str(path.parent / out["path"]): str(out["md5"]) for out in tracked.get("outs", ())}
        if str(path) not in known:
            raise DatasetError(f"{tag} names no {path}; it was not published by this project's stages")
        return known[str(path)]

    def file(self, md5: str, what: str) -> bytes:
        """Give the bytes that DVC keeps under a hash; `what` names them in messages."""
        settings, name = self._workspace.settings, f"files/md5/{md5[:2]}/{md5[2:]}"
        kept = path_in_cache(settings, md5)
        try:
            return kept.read_bytes() if kept.exists() else read(
                self._bucket, ObjectRef(settings.dvc_bucket, f"dvc/{name}", 0)
            )  # fmt: skip
        except ObjectChangedError as error:
            raise DatasetError(f"{what} is neither in the cache nor in gs://{settings.dvc_bucket}") from error
