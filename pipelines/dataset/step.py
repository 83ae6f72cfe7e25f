"""The next version, at the cost of what differs from the last one.

`dvc repro` looks at every file of every folder several times. When the last version lies here, and code and parameters
are those that made it, only the touched files can differ: the stages run, and what DVC would write into `dvc.lock` and
the `.dvc` files follows from the last version and these. DVC itself does the same whenever everything is read, once a
day at least, and a test holds that both write the same bytes.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipelines.atomic import write_atomically
from pipelines.dataset.cache import keep_file, keep_folder, md5_of, path_in_cache, read_folder
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MASKS, image_path, mask_path
from pipelines.dataset.workspace import Workspace

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
        stages = _load(workspace, _PIPELINE).get("stages", {})
        lock = _load(workspace, _LOCK).get("stages", {})
        if not all(name in lock and _is_current(workspace, stages[name], lock[name]) for name in _STAGES):
            return None
        recorded = {one["path"]: _output(one) for name in _STAGES for one in lock[name]["outs"]}
        for path in _TRACKED:
            [one] = _load(workspace, _pointer(path)).get("outs") or [None]
            if one is None:
                return None
            recorded[str(path)] = _output(one)
        folders = [one.md5 for one in recorded.values() if one.files is not None]
        return cls(workspace, stages, recorded) if all(_is_kept(workspace, one) for one in folders) else None

    def build(self, touched: Touched) -> None:
        """Run the stages, keep what is new in DVC's cache, and record it.

        Raises DatasetError with a stage's own words when it fails; nothing is recorded then.
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
                self._look_at_folder(MASKS, {mask_path(photo).name for photo in touched.photos})
        for raw in _TRACKED:
            self._record(_pointer(raw), _IN_POINTER, {raw.name: self._outputs[str(raw)]})
        self._record(_LOCK, _IN_LOCK, self._outputs)

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
                size -= path_in_cache(settings, old).stat().st_size
            if (file := self._workspace.path / path / name).exists():
                files[name], added = keep_file(settings, file)
                size += added
        self._outputs[str(path)] = _Output(keep_folder(settings, files), size, len(files))

    def _record(self, file: Path, pattern: str, outputs: Mapping[str, _Output]) -> None:
        """Write what is known of these paths into a file of DVC, and leave all else of it as it is."""
        text = self._workspace.read(str(file))
        for path, output in outputs.items():
            text = re.sub(pattern.format(path=re.escape(path)), partial(_renewed, output), text)
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


def _is_kept(workspace: Workspace, folder: str) -> bool:
    return path_in_cache(workspace.settings, folder).exists()


def _pointer(path: Path) -> Path:
    return path.with_name(f"{path.name}.dvc")


def _load(workspace: Workspace, path: Path) -> dict[str, Any]:
    return yaml.load(workspace.read(str(path)), Loader=yaml.CSafeLoader) or {}
