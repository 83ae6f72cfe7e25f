"""The next version, at the cost of what differs from the last one.

`dvc repro` looks at every file of every folder several times. When the records here are those of the last version, and
code and parameters those that made it, only the touched files can differ: the stages run, and what DVC would write into
`dvc.lock` and the `.dvc` files follows from the last version and these. DVC itself does the same whenever everything is
read, once a day at least, and a test holds that both write the same bytes.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipelines.dataset.cache import keep_file, keep_folder, md5_of, path_in_cache, read_folder
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MASKS, PHOTOS, image_path, mask_path
from pipelines.dataset.remote import is_published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.fs import write_atomically

logger = logging.getLogger(__name__)
_STAGES = ("compile", "check", "split")
_TRACKED = (ANNOTATIONS, IMAGES, BEFORE)
_LOCK, _PIPELINE, _PARAMS = Path("dvc.lock"), Path("dvc.yaml"), Path("params.yaml")


@dataclass(frozen=True)
class Touched:
    """Names of annotation files, and photos (SHA-256), that may have come, gone or changed since the last version."""

    annotations: frozenset[str] = frozenset()
    photos: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Output:
    """What DVC notes of a file, or of a folder of so many `files`."""

    md5: str
    size: int
    files: int | None = None


class Step:
    """A step from the last version, whose outputs are known, to the next one."""

    def __init__(self, workspace: Workspace, stages: Mapping[str, Any], recorded: Mapping[str, _Output]) -> None:
        self._workspace, self._stages = workspace, stages
        self._outputs = dict(recorded)

    @classmethod
    def from_last(cls, workspace: Workspace) -> "Step | None":
        """Prepare a step; None where DVC must look itself, because something else than data may have changed."""
        try:
            stages, lock = (_load(workspace, path).get("stages", {}) for path in (_PIPELINE, _LOCK))
            if set(lock) != set(_STAGES) or not all(_is_current(workspace, stages[name], lock[name]) for name in lock):
                return None
            recorded = {one["path"]: _output(one) for name in _STAGES for one in lock[name]["outs"]}
            recorded |= {str(path): _output(_load(workspace, _pointer(path))["outs"][0]) for path in _TRACKED}
        except (OSError, yaml.YAMLError, LookupError, TypeError):
            return None
        folders = [one.md5 for one in recorded.values() if one.files is not None]
        if not all(path_in_cache(workspace.settings, name).exists() for name in folders):
            return None
        return cls(workspace, stages, recorded) if is_published(workspace) else None

    def build(self, touched: Touched) -> bool:
        """Run the stages, keep what is new in DVC's cache, and record it.

        False, and nothing is recorded, when other masks changed than those of touched photos: then DVC must look.
        Raises DatasetError with a stage's own words when it fails; nothing is recorded then either.
        """
        self._look_at_folder(ANNOTATIONS, touched.annotations)
        self._look_at_folder(IMAGES, {image_path(photo).name for photo in touched.photos})
        self._look_at_file(BEFORE)
        for name in _STAGES:
            stage = self._stages[name]
            files = {path: is_kept for path, is_kept in _outs(stage).items() if path != str(MASKS)}
            for path in files:  # of the masks only those that change are written
                (self._workspace.path / path).unlink(missing_ok=True)
            logger.info("stage %s: %s", name, stage["cmd"])
            self._workspace.run(stage["cmd"])
            for path, is_kept in files.items():
                self._look_at_file(Path(path), keep=is_kept)
            if str(MASKS) in _outs(stage):
                if not self._others_are_as_before(touched.photos):
                    return False
                self._look_at_folder(MASKS, {mask_path(photo).name for photo in touched.photos})
        for raw in _TRACKED:
            self._record(_pointer(raw), _IN_POINTER, {raw.name: self._outputs[str(raw)]})
        named = {path for name in _STAGES for path in (*self._stages[name]["deps"], *_outs(self._stages[name]))}
        self._record(_LOCK, _IN_LOCK, {path: one for path, one in self._outputs.items() if path in named})
        return True

    def _others_are_as_before(self, touched: frozenset[str]) -> bool:
        columns = ["sha256", "mask_sha256"]
        tables = (pd.read_parquet(self._workspace.path / path, columns=columns) for path in (BEFORE, PHOTOS))
        before, now = (
            set(table[~table["sha256"].isin(touched)].itertuples(index=False, name=None)) for table in tables
        )
        if before != now:
            logger.warning("masks changed whose annotations did not; DVC looks at everything")
        return before == now

    def _look_at_file(self, path: Path, *, keep: bool = True) -> None:
        file = self._workspace.path / path
        if keep:
            self._outputs[str(path)] = _Output(*keep_file(self._workspace.settings, file))
        else:
            data = file.read_bytes()
            self._outputs[str(path)] = _Output(md5_of(data), len(data))

    def _look_at_folder(self, path: Path, names: Iterable[str]) -> None:
        settings, before = self._workspace.settings, self._outputs[str(path)]
        files, size = read_folder(settings, before.md5), before.size
        for name in names:
            if old := files.pop(name, None):
                size -= self._size_in_cache(old)
            if (file := self._workspace.path / path / name).exists():
                files[name], added = keep_file(settings, file)
                size += added
        self._outputs[str(path)] = _Output(keep_folder(settings, files), size, len(files))

    def _size_in_cache(self, name: str) -> int:
        path = path_in_cache(self._workspace.settings, name)
        try:
            return path.stat().st_size
        except OSError as error:
            raise DatasetError(f"the DVC cache has no {path}; run `dvc fetch` in the workspace") from error

    def _record(self, file: Path, pattern: str, outputs: Mapping[str, _Output]) -> None:
        """Write what is known of these paths into a file of DVC, and leave all else of it as it is."""
        text = self._workspace.read(str(file))
        for path, output in outputs.items():
            text, count = re.subn(pattern.format(path=re.escape(path)), partial(_renewed, output), text)
            if not count:
                raise DatasetError(
                    f"{file} in {self._workspace.path} does not record {path}; run `dvc repro split` there"
                )
        write_atomically(self._workspace.path / file, text.encode())


_SIZE = r"(?P<size>\n +size: )\d+((?P<files>\n +nfiles: )\d+)?"
_IN_LOCK = rf"(?P<before>- path: {{path}}\n +hash: md5\n +md5: )\S+{_SIZE}(?P<after>\n)"
_IN_POINTER = rf"(?P<before>- md5: )\S+{_SIZE}(?P<after>\n +hash: md5\n +path: {{path}}\n)"


def _renewed(output: _Output, found: re.Match[str]) -> str:
    files = f"{found['files']}{output.files}" if output.files is not None else ""
    return f"{found['before']}{output.md5}{found['size']}{output.size}{files}{found['after']}"


def _is_current(workspace: Workspace, stage: Mapping[str, Any], lock: Mapping[str, Any]) -> bool:
    """Tell whether the stage that is recorded in `lock` had this command, these parameters and this code."""
    recorded = {one["path"]: one["md5"] for one in lock["deps"]}
    if stage["cmd"] != lock["cmd"] or set(stage["deps"]) != set(recorded):
        return False
    if set(_outs(stage)) != {one["path"] for one in lock["outs"]}:
        return False
    params = _load(workspace, _PARAMS)
    if lock.get("params", {}).get(_PARAMS.name, {}) != {name: params.get(name) for name in stage["params"]}:
        return False
    code = [path for path in stage["deps"] if not path.startswith("data/")]
    return all(md5_of((workspace.path / path).read_bytes()) == recorded[path] for path in code)


def _outs(stage: Mapping[str, Any]) -> dict[str, bool]:
    """Give the outputs of a stage of dvc.yaml, and whether DVC keeps each in its cache."""
    found = {}
    for one in (*stage.get("outs", ()), *stage.get("metrics", ())):
        [(path, options)] = one.items() if isinstance(one, dict) else [(one, {})]
        found[path] = bool(options.get("cache", True))
    return found


def _output(fields: Mapping[str, Any]) -> _Output:
    return _Output(fields["md5"], fields["size"], fields.get("nfiles"))


def _pointer(path: Path) -> Path:
    return path.with_name(f"{path.name}.dvc")


def _load(workspace: Workspace, path: Path) -> dict[str, Any]:
    return yaml.load(workspace.read(str(path)), Loader=yaml.CSafeLoader) or {}
